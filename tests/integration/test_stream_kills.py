"""Each event counts once, whatever is killed: consumer, forwarder, Redis, broker, at any moment.

Events come twice, out of order and among bad ones. At the end every count in Redis and every event
in the lake is compared with the truth, which is counted here from the unique good events.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer as Reader
from confluent_kafka import TopicPartition

from roiflow.data import event_lake
from roiflow.data.events import KINDS
from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.errors import ServiceError
from roiflow.features.spec import COUNTS, ITEM_ENTITIES, SPECS, WINDOW_DAYS
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import FeatureStore, MemoryStore
from roiflow.stream.checks import OVERSIZED
from roiflow.stream.dead_letters import SHORTENED
from roiflow.stream.events import Event, Slate
from roiflow.stream.journal import last_state
from roiflow.stream.kafka import Outgoing, Sender
from tests import feature_world as world
from tests import streams
from tests.brokers import Broker, ObjectStore, RedisServer
from tests.conftest import Record
from tests.stream_worker import Config
from tests.streams import Bad, Counted, bad_events, counted, disturbed, key, visits

HOUR = streams.HOUR
START = world.LAST.end + 5 * HOUR
SPAN = 30 * HOUR
ADS = {ad: about[2] for ad, about in world.ADS.items()}
USERS = ["u1", "u2", "u3", *(f"n{number}" for number in range(40))]
ROOT = Path(__file__).parents[2]
WAIT = 120.0


class Process:
    """A worker that can be killed and started again."""

    def __init__(self, role: str, config: Path) -> None:
        self._command = (sys.executable, "-m", "tests.stream_worker", role, str(config))
        self._log = config.with_name(f"{role}.log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """As a supervisor ends it; it must end well."""
        assert self._process
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(60) == 0, self.said()
        self._process = None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def said(self) -> str:
        status = self._process.poll() if self._process else None
        return f"status {status}: {self._log.read_text(errors='replace')[-3_000:]}"


class Log:
    """The served log as the door writes it, a segment every few lines."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._number, self._lines = folder, 0, 0

    def put(self, payloads: Sequence[bytes]) -> None:
        path = self._folder / f"{self._number:06d}.jsonl.open"
        with path.open("ab") as file:
            file.write(b"".join(payload + b"\n" for payload in payloads))
        self._lines += len(payloads)
        if self._lines > 300 * (self._number + 1):
            path.rename(path.with_suffix(""))
            self._number += 1


@dataclass
class Stream:
    """What is sent, and what is true."""

    good: list[Event]
    bad: list[Bad]
    to_log: list[bytes]
    to_broker: list[bytes]


def stream(seed: int, slates: int, direct: bool) -> Stream:
    rng = np.random.default_rng(seed)
    good = visits(rng, START, SPAN, slates, USERS, ADS)
    bad = bad_events(START + SPAN, 3)
    straight = np.array([direct and not isinstance(event, Slate) for event in good])
    straight &= rng.random(len(good)) < 0.5
    payloads = [streams.payload(event) for event in good]
    logged = [one for one, other in zip(payloads, straight, strict=True) if not other]
    produced = [one for one, other in zip(payloads, straight, strict=True) if other]
    half = len(bad) // 2 if direct else len(bad)
    return Stream(
        good, bad, disturbed(rng, logged, bad[:half]), disturbed(rng, produced, bad[half:])
    )


class Feeder(threading.Thread):
    """Sends payloads a few at a time; `hurry` sends what is left at once."""

    def __init__(
        self, put: Callable[[Sequence[bytes]], None], payloads: Sequence[bytes], seconds: float
    ) -> None:
        super().__init__(daemon=True)
        self._put, self._payloads, self._pause = put, payloads, max(0.03, seconds / 500)
        self._size = max(1, int(len(payloads) * self._pause / seconds))
        self.hurry = threading.Event()

    def run(self) -> None:
        at = 0
        while at < len(self._payloads):
            size = 1_000 if self.hurry.is_set() else self._size
            self._put(self._payloads[at : at + size])
            at += size
            self.hurry.wait(0.0 if self.hurry.is_set() else self._pause)


def insist(sender: Sender) -> Callable[[Sequence[bytes]], None]:
    """A producer that sends again until the broker has everything."""

    def put(payloads: Sequence[bytes]) -> None:
        while True:
            try:
                sender.send([Outgoing(payload, payload[-9:]) for payload in payloads])
            except ServiceError:
                time.sleep(0.1)
            else:
                return

    return put


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    world.random_world(7).built(folder)
    return folder / "features"


class Stack:
    """Everything that runs, on loopback."""

    def __init__(
        self, folder: Path, features: Path, objects: ObjectStore | None, ends: ExitStack
    ) -> None:
        """All durable with the S3 server, or else broker and Redis come back empty."""
        durable = objects is not None
        self.redis = RedisServer(folder, durable=durable)
        ends.callback(self.redis.kill)
        self.broker = Broker(folder, objects)
        ends.callback(self.broker.kill)
        self.config = Config(
            home=str(folder / "home"),
            features=str(features),
            redis=self.redis.url,
            broker=self.broker.address,
            letters_in_kafka=durable,
            ahead=START + SPAN - time.time_ns() // 1_000,
            fetch_milliseconds=5_000 if durable else 50,  # an object for every batch
        )
        Path(self.config.home).mkdir()
        path = folder / "config.json"
        path.write_bytes(msgspec.json.encode(self.config))
        self.consumer, self.forwarder = Process("consume", path), Process("send", path)
        ends.callback(self.consumer.kill)
        ends.callback(self.forwarder.kill)
        self.log = Log(self.config.served)
        self.parts: dict[str, Any] = {
            "consumer": self.consumer,
            "forwarder": self.forwarder,
            "redis": self.redis,
            "broker": self.broker,
        }
        for part in reversed(self.parts.values()):
            part.start()

    def feeders(self, sent: Stream, seconds: float) -> list[Feeder]:
        feeders = [Feeder(self.log.put, sent.to_log, seconds)]
        if sent.to_broker:
            sender = Sender(self.config.topic("events"), seconds=3.0)
            feeders.append(Feeder(insist(sender), sent.to_broker, seconds))
        return feeders

    def kill_all(self, rng: np.random.Generator, kills: int) -> Counter[str]:
        """Each part so often, in any order, at any moment; says what was killed."""
        order = rng.permutation([name for name in self.parts for _ in range(kills)]).tolist()
        for name in order:
            time.sleep(rng.uniform(0.05, 0.9))
            self.parts[name].kill()
            time.sleep(rng.uniform(0.0, 0.4))
            self.parts[name].start()
        return Counter(order)

    def settle(self, sent: Stream) -> None:
        """Wait until every good event is taken, in Redis, and every bad one is kept."""
        wanted = {(bad.reason, shown(bad.reason, bad.payload)) for bad in sent.bad}
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            assert self.consumer.alive(), self.consumer.said()
            state = last_state(self.config.journal)
            taken = sum(state.counts.get(kind, 0) for kind in KINDS)
            if taken >= len(sent.good) and self.letters() >= wanted and self.in_redis(state.stamp):
                return
            time.sleep(0.2)
        raise AssertionError(f"{taken} of {len(sent.good)} taken: {self.consumer.said()}")

    def in_redis(self, stamp: int) -> bool:
        store = self.config.store()
        with suppress(ServiceError):
            return store.watermark() == stamp
        return False

    def letters(self) -> set[tuple[str, str]]:
        if self.config.letters_in_kafka:
            return set(produced_letters(self.broker.address))
        found = set()
        for path in self.config.letters.glob("*.jsonl"):
            lines = path.read_text().split("\n")[:-1]
            found |= {(one["reason"], one["payload"]) for one in map(json.loads, lines)}
        return found


def shown(reason: str, payload: bytes) -> str:
    kept = payload[:SHORTENED] if reason == OVERSIZED else payload
    return kept.decode("utf-8", "backslashreplace")


def produced_letters(address: str) -> Iterator[tuple[str, str]]:
    reader = Reader({"bootstrap.servers": address, "group.id": "people", "log_level": 0})
    reader.assign([TopicPartition("letters", 0, 0)])
    messages = reader.consume(10_000, 2.0)
    reader.close()
    for message in messages:
        if message.error() is None:
            headers: Mapping[str, bytes] = dict(message.headers() or ())  # type: ignore[arg-type]
            content = message.value() or b""
            yield headers["reason"].decode(), content.decode("utf-8", "backslashreplace")


def lake_rows(lake: Path) -> list[dict[str, Any]]:
    tables = [part.read() for part in event_lake.parts(lake)]
    # Times as numbers: they are compared as such.
    columns = pa.concat_tables(tables)
    for name in ("event_time", "known_time"):
        at = columns.schema.get_field_index(name)
        columns = columns.set_column(at, name, columns[name].cast(pa.int64()))
    return columns.to_pylist()


def check_lake(rows: list[dict[str, Any]], good: Sequence[Event]) -> dict[tuple[str, str], int]:
    """Every good event once, as it was sent; says when each was taken."""
    by_key = {(row["kind"], row["event_id"]): row for row in rows}
    assert len(by_key) == len(rows) == len(good)
    for event in good:
        row = by_key[key(event)]
        sent: dict[str, Any] = msgspec.to_builtins(event)
        known = sent.pop("known_time")
        sent.pop("event_id", None)
        assert {name: row[name] for name in sent} == sent
        assert row["known_time"] >= known
    return {name: row["known_time"] for name, row in by_key.items()}


AD_WINDOWS = sorted({spec.window_days or 0 for spec in SPECS if spec.entity == "ad"})


def user_counts(store: FeatureStore, time: int, days: int) -> Counter[tuple[str, str]]:
    states = store.read(USERS, time)
    assert not states.degraded
    first = streams.first_counted(time, days) // MICROS_PER_DAY
    counts: Counter[tuple[str, str]] = Counter()
    for number, user in enumerate(USERS):
        rows = slice(states.bucket_offsets[number], states.bucket_offsets[number + 1])
        inside = states.bucket_day[rows] >= first
        totals = states.bucket_counts[rows][inside].sum(axis=0)
        counts.update({(user, kind): int(n) for kind, n in zip(COUNTS, totals, strict=True)})
    return +counts


def ad_counts(store: FeatureStore, time: int, days: int) -> Counter[tuple[str, str]]:
    states = store.ad_states(time)
    assert not states.degraded
    cells, entity = store.plan.item_cells, ITEM_ENTITIES.index("ad")
    window = WINDOW_DAYS.index(days)
    lookup = store.vocabulary.lookup("ad")
    counts: Counter[tuple[str, str]] = Counter()
    for cell in range(cells.of_window[window], cells.of_window[window + 1]):
        if cells.entity[cell] == entity:
            for ad in ADS:
                row = states.counts[cells.base[cell] + lookup[ad]].tolist()
                kinds = ("impressions", "clicks", "conversions", "revenue")
                counts.update({(ad, kind): n for kind, n in zip(kinds, row, strict=True)})
    return +counts


def check_store(
    store: FeatureStore, before: FeatureStore, rows: Sequence[Counted], stamp: int
) -> int:
    """Every count of users and ads in every window, at several times; says how many were there."""
    compared = 0
    for ahead in (HOUR, 3 * HOUR, 23 * HOUR, 100 * HOUR):
        time = stamp // HOUR * HOUR + ahead + HOUR // 7
        for days in WINDOW_DAYS:
            truth = user_counts(before, time, days) + streams.by_user(rows, time, days)
            assert user_counts(store, time, days) == truth
            compared += len(truth)
        for days in AD_WINDOWS:
            ads = ad_counts(before, time, days) + streams.by_ad(rows, time, days)
            assert ad_counts(store, time, days) == ads
            compared += len(ads)
    return compared


@pytest.mark.proof
@pytest.mark.parametrize(
    "durable", [True, False], ids=["all-come-back", "broker-and-redis-come-back-empty"]
)
def test_every_event_counts_once_whatever_is_killed(
    durable: bool,
    features: Path,
    objects: ObjectStore,
    tmp_path: Path,
    full: bool,
    record: Record,
) -> None:
    kills = 20 if full else 2
    rng = np.random.default_rng(int(os.environ.get("ROIFLOW_TEST_SEED", "11")) + durable)
    sent = stream(int(rng.integers(1 << 30)), 4_000 if full else 600, direct=durable)
    with ExitStack() as ends:
        stack = Stack(tmp_path, features, objects if durable else None, ends)
        feeders = stack.feeders(sent, seconds=3.2 * kills)
        for feeder in feeders:
            feeder.start()
        killed = stack.kill_all(rng, kills)
        for feeder in feeders:
            feeder.hurry.set()
        for feeder in feeders:
            feeder.join(WAIT)
            assert not feeder.is_alive()
        stack.settle(sent)
        letters = stack.letters()
        stack.consumer.stop()
        stack.forwarder.stop()
        config = stack.config
        rows = lake_rows(config.lake)
        known = check_lake(rows, sent.good)
        store = config.store()
        before = MemoryStore(store.plan, store.vocabulary, store.history)
        load_snapshot(before, features / "online")
        compared = check_store(store, before, counted(sent.good, known, ADS), max(known.values()))
        store.close()
    assert letters == {(bad.reason, shown(bad.reason, bad.payload)) for bad in sent.bad}
    kind = "all durable" if durable else "broker and Redis come back empty"
    record(
        f"kills, {kind}: {', '.join(f'{n} x {name}' for name, n in sorted(killed.items()))}",
        f"{len(sent.good):,} events of {len(sent.to_log) + len(sent.to_broker):,} messages, "
        f"{compared:,} counts compared, 0 differ; {len(letters)} bad ones kept with reasons",
    )
