"""The stream's processes, for tests to kill: `python -m tests.stream_worker ROLE CONFIG`."""

import signal
import sys
import time
from pathlib import Path

import msgspec

from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary
from roiflow.online.redis_store import BATCH_SECONDS, RedisStore
from roiflow.online.snapshot import load_snapshot
from roiflow.stream.arrivals import Arrivals, DeadLetters
from roiflow.stream.consumer import Consumer, Pace
from roiflow.stream.dead_letters import FileDeadLetters
from roiflow.stream.forward import Forwarder
from roiflow.stream.journal import Journal
from roiflow.stream.kafka import KafkaArrivals, KafkaDeadLetters, Sender, Topic
from roiflow.stream.replica import Replica
from roiflow.stream.served_tail import ServedLogArrivals
from roiflow.stream.stepping import keep_stepping
from tests.streams import LIMITS


class Config(msgspec.Struct, kw_only=True):
    """Where things are."""

    home: str
    features: str
    redis: str
    broker: str | None
    letters_in_kafka: bool
    ahead: int
    """Microseconds from the machine's clock to the world's."""
    fetch_milliseconds: int = 50
    batch_events: int = 500
    batch_seconds: float = 0.02
    segment_bytes: int = 1 << 17
    segment_seconds: float = 2.0

    @property
    def served(self) -> Path:
        return Path(self.home) / "served"

    @property
    def journal(self) -> Path:
        return Path(self.home) / "journal"

    @property
    def lake(self) -> Path:
        return Path(self.home) / "lake"

    @property
    def letters(self) -> Path:
        return Path(self.home) / "letters"

    def topic(self, name: str, partitions: int = 3) -> Topic:
        assert self.broker
        return Topic(self.broker, name, partitions)

    def arrivals(self) -> Arrivals:
        if self.broker is None:
            return ServedLogArrivals(self.served)
        return KafkaArrivals(self.topic("events"), fetch_milliseconds=self.fetch_milliseconds)

    def dead_letters(self) -> DeadLetters:
        if self.letters_in_kafka:
            return KafkaDeadLetters(self.topic("letters", 1))
        return FileDeadLetters(self.letters)

    def store(self) -> RedisStore:
        features = Path(self.features)
        plan = Plan.read(features / "plan.parquet")
        vocabulary = Vocabulary.read(features / "vocabulary.parquet")
        return RedisStore(
            plan, vocabulary, plan.history_length, self.redis, read_seconds=BATCH_SECONDS
        )

    def consumer(self) -> Consumer:
        pace = Pace(
            batch_events=self.batch_events,
            batch_seconds=self.batch_seconds,
            segment_bytes=self.segment_bytes,
            segment_seconds=self.segment_seconds,
            remembered=LIMITS.lateness,
        )
        return Consumer(
            self.arrivals(), self.dead_letters(), Journal(self.journal), self.lake, LIMITS, pace,
            lambda: time.time_ns() // 1_000 + self.ahead,
        )  # fmt: skip

    def replica(self, store: RedisStore) -> Replica:
        snapshot = Path(self.features) / "online"

        def load() -> bool:
            return snapshot.is_dir() and load_snapshot(store, snapshot)

        return Replica("store", store, load, time.monotonic)


def consume(config: Config, stopped: list[int]) -> None:
    consumer = config.consumer()
    consumer.start([config.replica(config.store())])
    print("started", flush=True)
    keep_stepping(consumer.step, lambda: bool(stopped), say)
    consumer.close()


def send(config: Config, stopped: list[int]) -> None:
    forwarder = Forwarder(
        ServedLogArrivals(config.served),
        Sender(config.topic("events"), seconds=3.0),
        Path(config.home) / "sent.json",
    )
    print("started", flush=True)
    keep_stepping(lambda: forwarder.step(500, 0.05), lambda: bool(stopped), say)


def say(text: str) -> None:
    print(text, flush=True)


def main(role: str, config: str) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    run = {"consume": consume, "send": send}[role]
    run(msgspec.json.decode(Path(config).read_bytes(), type=Config), stopped)


if __name__ == "__main__":
    main(*sys.argv[1:])
