"""Each slate that was answered is in the log, whole: the server is killed, its disk is full."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from roiflow.deployment.processes import free_port, port_ready
from roiflow.stream.events import Event, Slate
from roiflow.stream.served_log import segments
from tests.conftest import Record
from tests.full_disk import small_disk

ROOT = Path(__file__).parents[2]
CLIENTS = 8


def serve(port: int, folder: Path) -> "subprocess.Popen[bytes]":
    """A real server of the slate app, whose slates are planted."""
    command = (
        sys.executable, "-m", "uvicorn", "--factory", "tests.planted_app:app",
        "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools",
        "--no-access-log", "--log-level", "warning",
    )  # fmt: skip
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "SERVED": str(folder)}
    child = subprocess.Popen(command, cwd=ROOT, env=environment)
    ready, limit = port_ready(port), time.monotonic() + 60
    while not ready():
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.02)
    return child


class Client(threading.Thread):
    """Asks for slates until the server is gone; keeps what was answered."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(daemon=True)
        self.answered: dict[str, list[str]] = {}
        self._port, self._name = port, name

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        number = 0
        try:
            while True:
                request = f"{self._name}-{number}"
                body = {"request_id": request, "user_id": "u", "placement": "p", "device": "d"}
                connection.request("POST", "/v1/slate", json.dumps(body))
                answer = connection.getresponse()
                ads = json.loads(answer.read())["ads"]
                assert answer.status == 200
                self.answered[request] = [ad["ad_id"] for ad in ads]
                number += 1
        except (OSError, http.client.HTTPException):
            connection.close()


def kill_once(folder: Path, name: str, seconds: float) -> dict[str, list[str]]:
    """What was answered in `seconds` of load that a SIGKILL ends."""
    port = free_port()
    child = serve(port, folder)
    clients = [Client(port, f"{name}-{number}") for number in range(CLIENTS)]
    try:
        for client in clients:
            client.start()
        time.sleep(seconds)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    for client in clients:
        client.join()
    return {request: ads for client in clients for request, ads in client.answered.items()}


def logged(folder: Path) -> dict[str, list[str]]:
    """Slates of the whole lines; a line that is not whole may only be a segment's last."""
    decode = msgspec.json.Decoder(Event).decode
    found = {}
    for path in segments(folder):
        *whole, _ = path.read_bytes().split(b"\n")
        for line in whole:
            slate = decode(line)
            assert isinstance(slate, Slate)
            found[slate.request_id] = [ad.ad_id for ad in slate.ads]
    return found


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_what_was_answered_is_in_the_log_whenever_the_server_is_killed(
    tmp_path: Path, full: bool, record: Record
) -> None:
    kills, rng = (120 if full else 3), np.random.default_rng(5)
    answered: dict[str, list[str]] = {}
    for number in range(kills):
        answered |= kill_once(tmp_path, f"k{number}", float(rng.uniform(0.05, 0.6)))
    found = logged(tmp_path)
    assert len(answered) > 20 * kills
    lost = {request for request, ads in answered.items() if found.get(request) != ads}
    assert not lost
    extra = len(found) - len(answered)
    assert extra <= CLIENTS * kills  # what each client had under way
    record(
        f"the slate server killed {kills} times under the load of {CLIENTS} clients",
        f"{len(answered):,} slates answered, 0 of them not in the log; {extra} logged, unanswered",
    )


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, json.dumps(body) if body else None)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def slate(port: int, request: str) -> int:
    body = {"request_id": request, "user_id": "u", "placement": "p", "device": "d"}
    return ask(port, "POST", "/v1/slate", body)[0]


def test_a_server_on_a_full_disk_is_not_ready_until_there_is_room(tmp_path: Path) -> None:
    """No client is sent a log line, no refused slate is in the log, and no restart is needed."""
    port = free_port()
    with small_disk(tmp_path / "disk") as disk:
        child = serve(port, disk / "served")
        try:
            (disk / "filler").write_bytes(bytes(30_000))
            served = {f"r{number}": slate(port, f"r{number}") for number in range(100)}
            assert set(served.values()) == {200, 503}
            status, content = ask(port, "GET", "/readyz")
            assert status == 503
            assert "cannot be written: No space left on device" in content["error"]
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            served |= {f"s{number}": slate(port, f"s{number}") for number in range(5)}
            for client in clients:
                client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
                client.close()
            (disk / "filler").unlink()
            assert ask(port, "GET", "/readyz") == (200, {"status": "ready"})
            served["last"] = slate(port, "last")
        finally:
            child.terminate()
            child.wait()
        assert served["last"] == 200
        found = logged(disk / "served")
    assert set(found) == {request for request, status in served.items() if status == 200}
