"""Online features of a request from Redis on loopback: one round trip, its time, bytes per user."""

import gc
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import ONLINE, build
from roiflow.online.redis_store import RedisStore
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import dense
from tests.benchmarks.feature_peers.embedded import PARAMS
from tests.benchmarks.feature_peers.world import WEEKS, write_world
from tests.conftest import Record
from tests.integration.test_redis_store import Server

CANDIDATES = 200
TARGET_MS = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.client.close()
    server.stop()


def times(ask: Callable[[int], object], users: list[int]) -> tuple[float, float]:
    """Median and 99th percentile, in ms."""
    gc.collect()
    gc.freeze()
    seconds = []
    for user in users:
        start = time.perf_counter()
        ask(user)
        seconds.append(time.perf_counter() - start)
    gc.unfreeze()
    median, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    return float(median), float(p99)


def test_features_of_200_candidates_in_one_round_trip(
    tmp_path: Path, full: bool, server: Server, record: Record
) -> None:
    validated = write_world(tmp_path / "validated", 1_000_000 if full else 20_000)
    built = build(Window(validated), Vocabulary({}), PARAMS, tmp_path / "features")
    plan, now = built.engine.plan, WEEKS[-1].end + 1
    store = RedisStore(plan, built.vocabulary, PARAMS.history_length, server.url)
    load_snapshot(store, tmp_path / "features" / ONLINE)
    users = [int(key.rpartition(b":u")[2]) for key in server.client.scan_iter("*:user:*", 1_000)]
    sizes = [server.client.memory_usage(f"roiflow:user:u{user}") or 0 for user in users[:2_000]]
    catalogue = built.features.catalogues[-1]
    ad = np.ascontiguousarray(catalogue.ad[None, :CANDIDATES])
    price = np.ascontiguousarray(catalogue.price[None, :CANDIDATES])
    bid = np.ascontiguousarray(catalogue.bid[None, :CANDIDATES])
    asked = np.random.default_rng(0).choice(users, 2_000).tolist()

    def ask(user: int, moment: int = now) -> None:
        states, ads = store.read([f"u{user}"], moment), store.ad_states(moment)
        found = dense(
            plan, states, ads, event_time=np.array([moment]), placement=np.ones(1, np.int32),
            ad=ad, price=price, bid=bid,
        )  # fmt: skip
        assert found.shape == (1, CANDIDATES, len(plan.specs))

    ask(asked[0])
    before = trips(server)
    median, p99 = times(ask, asked)
    assert trips(server) - before == len(asked)
    first = times(lambda user: ask(user, now + (user + 1) * MICROS_PER_HOUR), list(range(24)))[0]
    store.close()
    what = f"online features of {CANDIDATES} candidates, {len(users):,} users in Redis"
    record(what, f"p50 {median:.2f} ms, p99 {p99:.2f} ms, one round trip (target {TARGET_MS} ms)")
    record(f"{what}, first request of an hour", f"p50 {first:.2f} ms")
    record(
        "a user in Redis", f"mean {np.mean(sizes):,.0f} bytes, p99 {np.quantile(sizes, 0.99):,.0f}"
    )
    assert median < TARGET_MS


def trips(server: Server) -> int:
    """Commands that read, since the server's start."""
    stats = server.client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("mget", "get"))
