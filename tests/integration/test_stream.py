"""The served log through the consumer into a real Redis, compared with the truth."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from roiflow.cli import main as cli
from roiflow.data import event_lake
from roiflow.data.events import new_rows
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.offline.build import Built
from roiflow.online.redis_store import RedisStore
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import FeatureStore, MemoryStore
from roiflow.stream.consumer import Consumer, Pace
from roiflow.stream.events import Event, event_id
from roiflow.stream.journal import Journal
from roiflow.stream.replica import Replica
from roiflow.stream.served_log import EventLog
from roiflow.stream.served_tail import ServedLogArrivals
from tests.brokers import Broker
from tests.conftest import Record
from tests.feature_world import LAST, random_world
from tests.integration.test_redis_store import Server
from tests.unit.online.store_contract import online
from tests.unit.stream.streams import (
    LIMITS,
    Letters,
    behaviour,
    click,
    conversion,
    ids,
    slate,
    taken,
)

HOUR = MICROS_PER_HOUR
START = LAST.end + 5 * HOUR
NOW = START + 20 * HOUR
USERS = ["u1", "u2", "u3", "new1", "new2"]
ADS = ["a1", "a2", "a3", "a4", "unknown"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def built(place: Path) -> Built:
    return random_world(11).built(place)


@pytest.fixture
def snapshot(built: Built, place: Path) -> Path:
    return place / "features" / "online"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture
def store(server: Server, built: Built) -> Iterator[RedisStore]:
    store = RedisStore(built.engine.plan, built.vocabulary, 3, server.url)
    yield store
    store.close()


def events(seed: int, visits: int) -> list[Event]:
    rng = random.Random(seed)
    found: list[Event] = []
    for number in range(visits):
        at = START + rng.randrange(18 * HOUR)
        known = at + rng.randrange(HOUR)
        user = rng.choice(USERS)
        found.append(behaviour(f"b{number}", user, rng.choice(ADS), at, known))
        found.append(slate(f"r{number}", user, rng.sample(ADS, 3), at, known))
        for position in (1, 2, 3):
            if rng.random() < 0.3:
                found.append(click(f"r{number}:{position}", at, known + rng.randrange(HOUR)))
            if rng.random() < 0.2:
                bought = known + rng.randrange(HOUR)
                found.append(conversion(f"r{number}:{position}", 7_000_000, at, known=bought))
    return found


def consumer(folder: Path, store: FeatureStore, snapshot: Path) -> Consumer:
    pace = Pace(20, 0.06, 20_000, 1e9, 100 * HOUR)
    one = Consumer(
        ServedLogArrivals(folder / "served"), Letters(), Journal(folder / "journal"),
        folder / "lake", LIMITS, pace, lambda: NOW,
    )  # fmt: skip
    one.start([Replica("s", store, lambda: load_snapshot(store, snapshot), time.monotonic)])
    return one


def write(folder: Path, some: list[Event]) -> None:
    log = EventLog(folder / "served")
    log.write(some)
    log.close()


def the_truth(built: Built, folder: Path, snapshot: Path) -> MemoryStore:
    """Every event of the lake by itself, in a store of this process."""
    store = MemoryStore(built.engine.plan, built.vocabulary, 3)
    load_snapshot(store, snapshot)
    rows = pa.concat_tables([part.read() for part in event_lake.parts(folder / "lake")])
    rows = rows.sort_by([("known_time", "ascending"), ("event_time", "ascending")])
    for row in range(rows.num_rows):
        store.update(new_rows(rows.slice(row, 1)))
    return store


def assert_equal(built: Built, found: FeatureStore, expected: FeatureStore) -> None:
    """In every feature and history, at the end and after the windows have moved."""
    for time_ in (NOW, NOW + 30 * HOUR):
        states = [store.read(USERS, time_) for store in (found, expected)]
        for name in (name for name in states[0].__dataclass_fields__ if "history" in name):
            left, right = (getattr(one, name) for one in states)
            assert_array_equal(left, right, err_msg=name)
        features = [online(built, store, USERS, time_) for store in (found, expected)]
        assert_array_equal(features[0], features[1])
        left, right = (store.ad_states(time_).counts for store in (found, expected))
        assert_array_equal(left, right)
        assert left.sum() > 0


def test_redis_that_loses_its_memory_has_every_count_again(
    tmp_path: Path, built: Built, server: Server, store: RedisStore, snapshot: Path
) -> None:
    some, rng = events(1, 60), random.Random(2)
    arriving = [*some, *rng.sample(some, 40)]
    rng.shuffle(arriving)
    write(tmp_path, arriving)
    one = consumer(tmp_path, store, snapshot)
    steps = 0
    while one.step():
        steps += 1
        if steps in (3, 9):
            server.stop()
        if steps in (5, 10):
            server.start()
    for _ in range(100):
        if not one.replicas[0].behind:
            break
        one.step()
    one.close()
    assert taken(tmp_path) == ids(some)
    assert one.state.counts["duplicate"] == 40
    assert_equal(built, store, the_truth(built, tmp_path, snapshot))


def test_a_consumer_that_starts_anew_in_the_middle_adds_nothing_twice(
    tmp_path: Path, built: Built, store: RedisStore, snapshot: Path
) -> None:
    some = events(3, 50)
    random.Random(4).shuffle(some)
    write(tmp_path, some)
    for steps in (1, 3, 2, 1_000):
        one = consumer(tmp_path, store, snapshot)
        for _ in range(steps):
            if not one.step():
                break
        one._journal.close()  # as a kill: nothing else is done
    one = consumer(tmp_path, store, snapshot)
    one.close()
    assert taken(tmp_path) == ids(some)
    assert_equal(built, store, the_truth(built, tmp_path, snapshot))


def test_an_event_is_there_for_the_next_request(
    tmp_path: Path, store: RedisStore, snapshot: Path, record: Record
) -> None:
    log = EventLog(tmp_path / "served")
    one = consumer(tmp_path, store, snapshot)
    seconds = []
    for number in range(40):
        started = time.monotonic()
        log.write([behaviour(f"b{number}", "new1", "a1", START + number)])
        one.step()
        assert store.read(["new1"], NOW).history_length.tolist() == [min(number + 1, 3)]
        seconds.append(time.monotonic() - started)
    p99 = 1e3 * float(np.percentile(seconds, 99))
    record("event logged to event read from Redis, one at a time", f"p99 {p99:.0f} ms")
    assert p99 < 1_000


def test_from_the_served_log_through_kafka_into_the_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands alone: forwarded, consumed, and after a second time nothing more."""
    broker = Broker(tmp_path)
    broker.start()
    try:
        monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("ROIFLOW_KAFKA", broker.address)
        now = time.time_ns() // 1000
        some: list[Event] = [behaviour(f"b{n}", "u", "a", now - n) for n in range(200)]
        write(
            tmp_path / "home",
            [*some, *some[:50], behaviour("old", "u", "a", now - 300 * HOUR, now)],
        )
        for _ in range(2):
            command("forward", "--until-idle", "0.5")
            said = command("consume", "--until-idle", "2")
            assert "behaviour 200, duplicate 50, late 1" in said
        assert "behaviour" in command("status")
    finally:
        broker.kill()
    rows = [part.read() for part in event_lake.parts(tmp_path / "home" / "lake")]
    assert sorted(pa.concat_tables(rows)["event_id"].to_pylist()) == sorted(
        event_id(event) for event in some
    )


def command(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, ["stream", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
