"""Own processes: started once, ready, recorded, ended exactly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from roiflow.deployment import processes
from roiflow.deployment.processes import Server, running, start, stop
from roiflow.errors import ServiceError

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for name in list(running(tmp_path)):
        stop(name, tmp_path, seconds=1.0)


def server(name: str, code: str, ready: Callable[[], bool] = lambda: True) -> Server:
    return Server(name, (sys.executable, "-c", code), "x", ready, seconds=20.0)


def children_of(home: Path, name: str) -> Callable[[], bool]:
    return lambda: (home / "logs" / f"{name}.log").read_text() != ""


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_second_start_starts_nothing(home: Path) -> None:
    sleeper = server("sleeper", "import time; time.sleep(600)")
    first = start([sleeper], home)
    assert start([sleeper], home) == first
    assert list(running(home)) == ["sleeper"]


def test_stop_ends_the_whole_group_and_nothing_else(home: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (record,) = start([server("family", FAMILY, children_of(home, "family"))], home)
        child = int((home / "logs" / "family.log").read_text())
        assert stop("family", home)
        assert gone(record.pid)
        assert gone(child)
        assert bystander.poll() is None
        assert not stop("family", home)
    finally:
        bystander.kill()
        bystander.wait()


def test_whose_end_nobody_asks_for_has_ended(home: Path) -> None:
    # As under the first process of a container, which waits for no child that it did not start.
    code = f"""
import sys, time
from pathlib import Path
from roiflow.deployment.processes import Server, start
sleeper = Server("left", (sys.executable, "-c", "import time; time.sleep(600)"), "x", lambda: True)
print(start([sleeper], Path({str(home)!r}))[0].pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        left = psutil.Process(int(parent.stdout.readline()))
        began = time.monotonic()
        assert stop("left", home, seconds=60.0)
        assert time.monotonic() - began < 30
        assert left.status() == psutil.STATUS_ZOMBIE
    finally:
        parent.kill()
        parent.communicate()


def test_children_of_a_killed_leader_are_ended(home: Path) -> None:
    (record,) = start([server("family", FAMILY, children_of(home, "family"))], home)
    child = int((home / "logs" / "family.log").read_text())
    os.kill(record.pid, signal.SIGKILL)
    while not gone(record.pid):
        time.sleep(0.01)
    assert running(home) == {}
    assert stop("family", home)
    assert gone(child)


def test_a_reused_process_id_is_left_alone(home: Path) -> None:
    """The recorded id now belongs to a process that started at another time."""
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        (record,) = start([server("sleeper", "import time; time.sleep(600)")], home)
        stop("sleeper", home)
        reused = replace(record, pid=bystander.pid, born=record.born + "0")
        (home / "servers" / "sleeper.json").write_text(json.dumps(vars(reused)))
        assert running(home) == {}
        assert not stop("sleeper", home)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_server_that_dies_is_reported_with_its_last_words(home: Path) -> None:
    bad = server("bad", "raise SystemExit('port 80 is taken')", lambda: False)
    with pytest.raises(ServiceError, match=r"bad: ended before [\s\S]*port 80 is taken"):
        start([bad], home)
    assert not list((home / "servers").glob("*.json"))


def test_a_server_that_is_never_ready_is_ended_with_those_started_beside_it(home: Path) -> None:
    good = server("good", "import time; time.sleep(600)")
    slow = replace(server("slow", "import time; time.sleep(600)", lambda: False), seconds=0.3)
    with pytest.raises(ServiceError, match=r"slow: was not ready after 0\.3 s"):
        start([good, slow], home)
    assert running(home) == {}


def test_a_command_that_does_not_exist_is_named(home: Path) -> None:
    missing = Server("missing", ("/nowhere/redis-server",), "x", lambda: True)
    with pytest.raises(ServiceError, match="missing: /nowhere/redis-server"):
        start([missing], home)


def test_what_ignores_sigterm_is_killed(home: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print(1, flush=True); time.sleep(600)"
    )
    (record,) = start([server("deaf", code, children_of(home, "deaf"))], home)
    assert stop("deaf", home, seconds=0.3)
    assert gone(record.pid)


def test_stop_all_ends_all_of_one_home_and_none_of_another(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    start([server(name, "import time; time.sleep(600)") for name in ("a", "b")], home)
    start([server("c", "import time; time.sleep(600)")], other)
    try:
        assert sorted(processes.stop_all(home)) == ["a", "b"]
        assert processes.stop_all(home) == []
        assert list(running(other)) == ["c"]
    finally:
        stop("c", other)


def test_a_broken_record_is_named(home: Path) -> None:
    record = home / "servers" / "redis.json"
    record.parent.mkdir()
    record.write_text('{"name": "redis"}')
    with pytest.raises(ServiceError, match=r"redis\.json: not the record"):
        running(home)
    record.unlink()


def test_a_taken_port_gives_way_to_a_free_one() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert processes.free_port(port) != port
    assert processes.free_port(port) == port


def test_only_a_server_that_needs_them_is_given_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_SQL", "postgresql://me:hunter2@db/ads")
    monkeypatch.setenv("ROIFLOW_KAFKA", "127.0.0.1:9092")
    plain = server("plain", "import time; time.sleep(600)")
    trusted = replace(plain, name="trusted", secrets=True)
    pids = [record.pid for record in start([plain, trusted], home)]
    ours, theirs = (psutil.Process(pid).environ() for pid in pids)
    assert "ROIFLOW_SQL" not in ours
    assert theirs["ROIFLOW_SQL"] == "postgresql://me:hunter2@db/ads"
    assert ours["ROIFLOW_KAFKA"] == theirs["ROIFLOW_KAFKA"] == "127.0.0.1:9092"


def listener(name: str, port: int) -> Server:
    code = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    command = (sys.executable, "-c", code)
    address = f"redis://127.0.0.1:{port}/0"
    return Server(name, command, address, processes.port_ready(port), seconds=20.0)


def test_a_server_that_ended_by_itself_comes_back_to_its_port(home: Path) -> None:
    port = processes.free_port()
    (record,) = start([listener("redis", port)], home)
    assert processes.port_of("redis", home, 1) == port
    os.kill(record.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(record.pid)], timeout=10.0)
    assert processes.port_of("redis", home, 1) == port


def test_a_port_that_was_taken_meanwhile_gives_way(home: Path) -> None:
    port = processes.free_port()
    (record,) = start([listener("redis", port)], home)
    os.kill(record.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(record.pid)], timeout=10.0)
    with socket.create_server(("127.0.0.1", port)):
        assert processes.port_of("redis", home, 1) not in (port, 1)


def test_a_stopped_server_prefers_the_usual_port(home: Path) -> None:
    port, usual = processes.free_port(), processes.free_port()
    start([listener("redis", port)], home)
    stop("redis", home)
    assert processes.port_of("redis", home, usual) == usual


def test_a_proxy_of_the_environment_is_not_asked_for_a_server_of_this_machine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.com")
    port = processes.free_port()
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    address = f"http://127.0.0.1:{port}"
    ready = processes.http_ready(f"{address}/")
    (record,) = start([Server("web", command, address, ready, seconds=20.0)], home)
    environment = psutil.Process(record.pid).environ()
    assert environment["no_proxy"] == environment["NO_PROXY"] == "example.com,127.0.0.1,localhost"


def test_a_server_that_refuses_is_not_ready(home: Path) -> None:
    port = processes.free_port()
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    ready = processes.port_ready(port)
    start([Server("web", command, f"http://127.0.0.1:{port}", ready, seconds=20.0)], home)
    assert not processes.http_ready(f"http://127.0.0.1:{port}/nowhere")()
    assert processes.http_ready(f"http://127.0.0.1:{port}/")()
    assert not processes.http_ready(f"http://127.0.0.1:{port}/", lambda _: False)()
