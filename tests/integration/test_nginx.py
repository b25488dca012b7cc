"""The edge as a real nginx: who gets which arm, and what happens when one is gone."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from roiflow.deployment import local, processes
from roiflow.deployment.edge import Arm, render, revision
from roiflow.deployment.start_page import pages
from roiflow.errors import ServiceError
from roiflow.experiment.assignment import SALT, in_canary
from tests.split import arm
from tests.unit.deployment.homes import write_run

USERS = [f"user-{number}" for number in range(3000)]


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with its server's name and the arm it was told."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        host, port = self.connection.getsockname()
        body = f"{port} {self.headers['X-Arm']} {host}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.stop("nginx", tmp_path)


def configure(home: Path, port: int, *arms: Arm) -> str:
    text = render(arms, SALT, f"127.0.0.1:{port}", str(home))
    (home / "nginx.conf").write_text(text)
    return text


def ask(port: int, users: list[str], path: str = "/edge") -> list[str]:
    """Over one connection, or another where a retiring worker closed it, as clients do."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    answers = []
    for user in users:
        headers = {"X-User-Id": user} if user else {}
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
        except ConnectionError:
            connection.close()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
        answers.append(answer.read().decode().strip())
    connection.close()
    return answers


def test_the_split_is_the_predicted_one_for_every_user(home: Path) -> None:
    port = processes.free_port()
    text = configure(home, port, Arm("canary", 25, "127.0.0.1:9"), Arm("stable", 75, "127.0.0.1:9"))
    processes.start([local.nginx(home, port)], home)
    found = [answer.split()[0] for answer in ask(port, USERS)]
    percents = {"canary": 25.0, "stable": 75.0}
    assert found == [arm(user, SALT, percents) for user in USERS]
    assert [one == "canary" for one in found] == in_canary(USERS, SALT, 0.25).tolist()
    assert found.count("canary") / len(USERS) == pytest.approx(0.25, abs=0.03)
    assert ask(port, USERS[:1])[0].split()[1] == revision(text)
    assert len(set(ask(port, ["", "", ""]))) == 1  # without a user: by address


def test_a_ramp_moves_users_one_way_over_a_reload(home: Path) -> None:
    port = processes.free_port()
    held: set[str] = set()
    for percent in (1.0, 5.0, 50.0):
        rest = Arm("stable", 100 - percent, "127.0.0.1:9")
        configure(home, port, Arm("canary", percent, "127.0.0.1:9"), rest)
        if held or percent > 1:
            processes.reload("nginx", home)
        processes.start([local.nginx(home, port)], home)
        ready = local.nginx(home, port).ready
        while not (ready() and ready() and ready()):
            pass
        found = ask(port, USERS)
        # A worker of before may take a connection until it is told to end: its answer says so.
        new = revision((home / "nginx.conf").read_text())
        while {answer.split()[-1] for answer in found} != {new}:
            found = ask(port, USERS)
        now = {user for user, answer in zip(USERS, found, strict=True) if "canary" in answer}
        assert held < now
        assert now == set(np.array(USERS)[in_canary(USERS, SALT, percent / 100)].tolist())
        held = now


def test_a_dead_canary_costs_no_slate(home: Path, upstream: int) -> None:
    port, dead = processes.free_port(), processes.free_port()
    stable = Arm("stable", 50, f"127.0.0.1:{upstream}")
    configure(home, port, Arm("canary", 50, f"127.0.0.1:{dead}"), stable)
    processes.start([local.nginx(home, port)], home)
    answers = ask(port, USERS[:200], "/v1/slate")
    assert all(answer.startswith(f"{upstream} ") for answer in answers)
    assert {answer.split()[1] for answer in answers} == {"canary", "stable"}


def test_a_taken_port_is_reported_in_nginxs_words(home: Path, upstream: int) -> None:
    configure(home, upstream, Arm("stable", 100, "127.0.0.1:9"))
    server = local.nginx(home, upstream)
    with pytest.raises(ServiceError, match=r"Address (already )?in use"):
        processes.start([server], home)


def test_an_invalid_configuration_is_refused_before_it_is_used(home: Path) -> None:
    (home / "nginx.conf").write_text("events {} http { split_clients }")
    with pytest.raises(ServiceError, match=r"nginx\.conf: [\s\S]*test failed"):
        local.check_nginx(home, home / "nginx.conf")


def show_pages(home: Path, *arms: Arm) -> int:
    """The edge with the pages of a home; its port."""
    port = processes.free_port()
    text = render(arms, SALT, f"127.0.0.1:{port}", str(home / "edge"), pages=pages(home))
    (home / "edge" / "pages").mkdir(parents=True)
    (home / "edge" / "nginx.conf").write_text(text)
    (home / "edge" / "pages" / "index.html").write_text("the start page")
    write_run(home, "2026-W05", 1.0, verdict="pass", promote=True, rule="first model")
    processes.start([local.nginx(home / "edge", port)], home)
    return port


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_before_the_first_deployment_there_are_pages_and_no_slates(home: Path) -> None:
    port = show_pages(home)
    assert get(port, "/") == (200, "the start page")
    status, body = get(port, "/v1/slate", "POST")
    assert status == 503
    assert json.loads(body)["error"].startswith("nothing is deployed yet")


def test_of_a_run_only_its_two_pages_are_shown(home: Path, upstream: int) -> None:
    port = show_pages(home, Arm("stable", 100, f"127.0.0.1:{upstream}"))
    run = "/runs/simulator-2026-W05"
    assert get(port, f"{run}/report/report.html") == (200, "<p>report 2026-W05")
    assert get(port, f"{run}/drift/drift.html") == (200, "<p>drift 2026-W05")
    assert get(port, "/runs/simulator-2026-W04/report/report.html")[0] == 404
    for other in (
        f"{run}/params.yaml",
        f"{run}/screen/decision.json",
        "/index.html",
        "/v1/slate",
    ):
        assert get(port, other)[1].startswith(f"{upstream} stable"), other
    assert get(port, f"{run}/report/../../../../promotions.jsonl")[0] == 400


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = tmp_path / "a {home} 'of; mine"
    try:
        assert get(show_pages(home), "/runs/simulator-2026-W05/report/report.html")[0] == 200
    finally:
        processes.stop("nginx", home)
