"""The slate route against FastAPI and BentoML's own routes, in server CPU time per request.

The model is left out: every stack answers the same slate. CPU time, because the load generator
shares the machine; the rounds alternate, the median counts.
"""

import json
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from roiflow.deployment import processes
from roiflow.deployment.processes import Running, Server, free_port, port_ready
from roiflow.online.snapshot import load_snapshot
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts
from tests.conftest import Record
from tests.unit.serving.packages import tiny_world, write_package

APPS = ("lean", "buffered", "dispatched", "mounted", "fastapi", "bento")
ROUNDS, REQUESTS, CLIENTS = 5, 3000, 8
BODY = json.dumps(
    {"request_id": "r1", "user_id": "ann", "placement": "top", "device": "phone"}
).encode()
HEAD = (
    "POST /v1/slate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, Running]]:
    root = str(Path(__file__).parents[2])
    started = {}
    for name in APPS:
        port = free_port()
        command = (
            sys.executable, "-m", "uvicorn", "--factory", f"tests.benchmarks.slate_apps:{name}",
            "--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--http", "httptools",
            "--no-access-log", "--log-level", "warning",
        )  # fmt: skip
        environment = {
            "PYTHONPATH": f"{root}/src:{root}",
            "SERVED": str(tmp_path / name),
            "BENTOML_HOME": str(tmp_path / "bentoml"),
        }
        server = Server(
            name, command, f"http://127.0.0.1:{port}", port_ready(port), environment, seconds=120
        )
        (started[name],) = processes.start([server], tmp_path)
    yield started
    processes.stop_all(tmp_path)


def ask(connection: socket.socket) -> bytes:
    connection.sendall(HEAD.encode() + BODY)
    return answered(connection)


def answered(connection: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 200"), answer
    return body


def microseconds(server: Running) -> float:
    """Server CPU time per request, over one connection."""
    process = psutil.Process(server.pid)
    port = int(server.address.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(20):
            ask(connection)
        before = process.cpu_times()
        for _ in range(REQUESTS):
            ask(connection)
        after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return float(spent / REQUESTS * 1e6)


def together(server: Running) -> tuple[float, float]:
    """Slates a second, and p99 in milliseconds, of CLIENTS that ask at the same time."""
    port = int(server.address.rsplit(":", 1)[1])
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(CLIENTS)]
    for client in clients:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    laps, started = [], time.perf_counter()
    for _ in range(REQUESTS // CLIENTS):
        asked = time.perf_counter()
        for client in clients:
            client.sendall(HEAD.encode() + BODY)
        for client in clients:
            answered(client)
            laps.append(time.perf_counter() - asked)
    spent = time.perf_counter() - started
    for client in clients:
        client.close()
    return len(laps) / spent, 1e3 * float(np.percentile(laps, 99))


def test_being_in_the_log_first_costs_little_throughput(
    servers: dict[str, Running], record: Record
) -> None:
    """Against a log that writes 64 slates at once, after they were answered."""
    names = ("lean", "buffered")
    rounds = [{name: together(servers[name]) for name in names} for _ in range(2 * ROUNDS)]
    rate = {name: statistics.median(one[name][0] for one in rounds) for name in names}
    p99 = {name: statistics.median(one[name][1] for one in rounds) for name in names}
    for name, what in (("lean", "in the log before"), ("buffered", "64 at once, after")):
        record(
            f"slates without a model, {CLIENTS} clients, {what} the answer",
            f"{rate[name]:,.0f} a second, p99 {p99[name]:.2f} ms",
        )
    assert rate["lean"] > 0.75 * rate["buffered"]


def test_the_slate_route_costs_a_fraction_of_its_peers(
    servers: dict[str, Running], record: Record
) -> None:
    answers = set()
    for server in servers.values():
        port = int(server.address.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            answers.add(json.dumps(json.loads(ask(connection)), sort_keys=True))
    assert len(answers) == 1  # every stack answers the same
    rounds = [{name: microseconds(servers[name]) for name in APPS} for _ in range(ROUNDS)]
    cost = {name: statistics.median(one[name] for one in rounds) for name in APPS}
    for name in APPS:
        record(
            f"server CPU per slate request without a model, {name}",
            f"{cost[name]:.0f} us, {cost[name] / cost['lean']:.1f} x lean",
        )
    # To be in the log before the answer: microseconds, where a slate with its model takes 480.
    assert cost["lean"] - cost["buffered"] < 20
    assert cost["fastapi"] > 1.2 * cost["dispatched"]
    assert cost["bento"] > 4 * cost["dispatched"]


def test_the_model_path_one_request_and_in_batches(tmp_path: Path, record: Record) -> None:
    world = tiny_world(tmp_path)
    recommender = Recommender(write_package(tmp_path / "package", world))
    store = recommender.memory_store()
    load_snapshot(store, world.features / "online")
    names = world.built.vocabulary.ids("user").to_pylist()
    seconds = {}
    for size in (1, 512):
        users = [names[at % len(names)] for at in range(size)]
        times = np.full(size, world.built.as_of + 1_000_000)
        batch = RequestContexts(
            [f"r{at}" for at in range(size)], users, times, ["home_top"] * size, ["phone"] * size
        )
        recommender.recommend(batch, store)
        laps = []
        for _ in range(2000 // size + 5):
            started = time.perf_counter()
            recommender.recommend(batch, store)
            laps.append((time.perf_counter() - started) / size)
        seconds[size] = statistics.median(laps)
    record("slate of 12 ads, one request", f"{seconds[1] * 1e3:.2f} ms")
    record("slate of 12 ads, in batches of 512", f"{seconds[512] * 1e3:.3f} ms")
    assert seconds[512] < seconds[1] / 5
