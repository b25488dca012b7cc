"""How many events a second the consumer takes, and how soon the next request sees one.

Rates are by CPU time of the consumer's own process, over loopback, with Redis in another; the peer
takes one event at a time, as a consumer is first written.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import redis
from redis.client import Pipeline

from roiflow.deployment.processes import free_port
from roiflow.online.store import FeatureStore
from roiflow.stream.events import Behaviour
from roiflow.stream.journal import last_state
from roiflow.stream.kafka import Outgoing, Sender
from tests.benchmarks.stream_traffic import behaviour, mixed, write_features
from tests.brokers import Broker, RedisServer
from tests.conftest import Record
from tests.stream_worker import Config
from tests.streams import payload

ROOT = Path(__file__).parents[2]
EVENTS, PEER_EVENTS = 240_000, 20_000
BATCH = 2_000
RATE, PROBES = 2_000, 200
HOUR = 3_600_000_000


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def microseconds() -> int:
    return time.time_ns() // 1_000


def config(folder: Path, server: RedisServer, broker: Broker | None = None) -> Config:
    write_features(folder / "features")
    (folder / "home" / "served").mkdir(parents=True)
    return Config(
        home=str(folder / "home"),
        features=str(folder / "features"),
        redis=server.url,
        broker=broker.address if broker else None,
        letters_in_kafka=False,
        ahead=0,
        batch_events=BATCH,
        batch_seconds=0.05,
        segment_bytes=64 << 20,
        segment_seconds=3_600.0,
    )


def started(ends: ExitStack, server: RedisServer | Broker) -> None:
    server.start()
    ends.callback(server.kill)


def peer(client: redis.Redis, messages: list[bytes]) -> None:
    """One event at a time: counters by user and by ad and hour, histories, whose impression."""
    for message in messages:
        event = json.loads(message)
        hour = event["known_time"] // HOUR
        if not client.set(f"seen:{event['kind']}:{name(event)}", 1, nx=True, ex=2 * 86_400):
            continue
        pipeline = client.pipeline(transaction=True)
        match event["kind"]:
            case "slate":
                for position, ad in enumerate(event["ads"], 1):
                    about = f"{event['user_id']} {ad['ad_id']}"
                    pipeline.set(f"shown:{event['request_id']}:{position}", about, ex=8 * 86_400)
                    count(pipeline, event["user_id"], ad["ad_id"], hour, "impressions")
            case "behaviour":
                history = f"{event['ad_id']} {event['action']} {event['event_time']}"
                pipeline.rpush(f"history:{event['user_id']}", history)
                pipeline.ltrim(f"history:{event['user_id']}", -200, -1)
                count(pipeline, event["user_id"], event["ad_id"], hour, "behaviours")
            case kind:
                found = client.get(f"shown:{event['impression_id']}")
                if isinstance(found, bytes):
                    user, _, ad = found.decode().partition(" ")
                    count(pipeline, user, ad, hour, f"{kind}s")
        pipeline.execute()


def count(pipeline: Pipeline, user: str, ad: str, hour: int, kind: str) -> None:
    for key, field in ((f"user:{user}:{hour}", f"{ad}:{kind}"), (f"ad:{ad}:{hour}", kind)):
        pipeline.hincrby(key, field, 1)
        pipeline.expire(key, 29 * 86_400)


def name(event: dict[str, str]) -> str:
    return event.get("request_id") or event.get("event_id") or event["impression_id"]


def cpu(run: Callable[[], object]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def in_kafka(messages: list[bytes], sender: Sender) -> None:
    for start in range(0, len(messages), 10_000):
        sender.send([Outgoing(one, one[-9:]) for one in messages[start : start + 10_000]])


@pytest.mark.parametrize("through", ["served log", "Kafka"])
def test_the_consumer_takes_several_times_what_one_of_single_events_takes(
    through: str, tmp_path: Path, ends: ExitStack, record: Record
) -> None:
    server = RedisServer(tmp_path, durable=False)
    started(ends, server)
    broker = Broker(tmp_path) if through == "Kafka" else None
    if broker:
        started(ends, broker)
    about = config(tmp_path, server, broker)
    rng, now = np.random.default_rng(0), microseconds()
    past = mixed(rng, 60_000, now - 40 * HOUR, 0.45, "w")
    fresh = mixed(rng, EVENTS, now - HOUR, EVENTS / 3_400, "m")

    def put(number: int, messages: list[bytes]) -> None:
        if broker:
            in_kafka(messages, Sender(about.topic("events")))
        else:
            path = about.served / f"{number}.jsonl"
            path.write_bytes(b"".join(one + b"\n" for one in messages))

    consumer = about.consumer()
    consumer.start([about.replica(about.store())])

    def take(messages: list[bytes]) -> None:
        left = len(messages)
        while left:
            left -= consumer.step()

    put(0, past)
    take(past)  # users have a past, passes are compiled
    put(1, fresh)
    begun = time.monotonic()
    spent = cpu(lambda: take(fresh))
    wall = time.monotonic() - begun
    store = about.store()
    assert store.watermark() == consumer.state.stamp
    store.close()
    counts = consumer.state.counts
    assert counts["slate"] == (60_000 + EVENTS) // 5
    assert sum(counts.values()) == len(past) + len(fresh)
    consumer.close()
    client = redis.Redis.from_url(server.url)
    client.flushall()
    some = fresh[: PEER_EVENTS * 6 // 10]
    one_by_one = len(some) / cpu(lambda: peer(client, some))
    client.close()
    messages = len(fresh) / spent
    record(
        f"consumer from {through}, {EVENTS:,} events ({len(fresh):,} messages)",
        f"{EVENTS / spent:,.0f} events ({messages:,.0f} messages) a CPU second, "
        f"{EVENTS / wall:,.0f} events a second of wall time with Redis beside it; "
        f"{messages / one_by_one:.0f} x a consumer of single events",
    )
    assert messages > 3 * one_by_one
    assert EVENTS / spent > 20_000


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        (sys.executable, *command),
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def seconds_until_seen(store: FeatureStore, user: str) -> float:
    begun = time.monotonic()
    while time.monotonic() - begun < 20:
        if store.read([user], microseconds()).history_length[0]:
            return time.monotonic() - begun
        time.sleep(0.001)
    raise AssertionError(f"{user} is not seen")


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


class Live:
    """Door, consumer, forwarder where there is a broker, and traffic; each a process."""

    def __init__(self, folder: Path, ends: ExitStack, *, kafka: bool) -> None:
        server = RedisServer(folder, durable=False)
        started(ends, server)
        broker = Broker(folder) if kafka else None
        if broker:
            started(ends, broker)
        self.about = config(folder, server, broker)
        self.served = str(self.about.served)
        where = folder / "config.json"
        where.write_bytes(msgspec.json.encode(self.about))
        port = free_port()
        self.door = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        ends.callback(self.door.close)
        app = ("-m", "uvicorn", "--factory", "tests.benchmarks.slate_apps:lean", "--no-access-log")
        serving = running(*app, "--host", "127.0.0.1", "--port", str(port), SERVED=self.served)
        ends.enter_context(serving)
        worker = ("-m", "tests.stream_worker")
        self.consumer = ends.enter_context(running(*worker, "consume", str(where)))
        if broker:
            ends.enter_context(running(*worker, "send", str(where)))
        until(self.answers)
        seconds = PROBES // 6 + 20
        traffic = ("-m", "tests.benchmarks.stream_traffic", self.served, str(RATE), str(seconds))
        ends.enter_context(running(*traffic))
        until(lambda: self.taken() > 3 * RATE)

    def answers(self) -> bool:
        try:
            return self.door.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def taken(self) -> int:
        """Events, an impression being one."""
        counts = last_state(self.about.journal).counts
        return sum(counts.values()) + 2 * counts.get("slate", 0)

    def seconds(self) -> float:
        """CPU time of the consumer."""
        times = psutil.Process(self.consumer.pid).cpu_times()
        return float(times.user + times.system)

    def post(self, event: Behaviour) -> None:
        sent = msgspec.to_builtins(event)
        del sent["known_time"]
        answer = self.door.post("/v1/events", json={"events": [sent]})
        assert answer.json() == {"accepted": 1, "refused": []}, answer.text


@pytest.mark.parametrize("through", ["served log", "served log and Kafka", "Kafka"])
def test_an_event_is_seen_by_the_next_request_within_a_second(
    through: str, tmp_path: Path, ends: ExitStack, record: Record
) -> None:
    live = Live(tmp_path, ends, kafka="Kafka" in through)
    store = live.about.store()
    ends.callback(store.close)
    put = live.post
    if through == "Kafka":
        sender = Sender(live.about.topic("events"))
        put = lambda event: sender.send([Outgoing(payload(event))])  # noqa: E731
    put(behaviour("first", microseconds(), -1, 1))
    seconds_until_seen(store, "user-1")
    rng, waits = np.random.default_rng(1), []
    taken, spent, begun = live.taken(), live.seconds(), time.monotonic()
    for number in range(2, PROBES + 2):
        put(behaviour(f"probe{number}", microseconds(), -number, 1))
        waits.append(seconds_until_seen(store, f"user-{number}"))
        time.sleep(rng.uniform(0.0, 0.05))
    wall = time.monotonic() - begun
    rate, share = (live.taken() - taken) / wall, (live.seconds() - spent) / wall
    middle, high, most = np.quantile(waits, [0.5, 0.99, 1.0])
    record(
        f"from the answer to the first read that shows it, through {through}, "
        f"under {RATE:,} events a second",
        f"p50 {middle * 1e3:.0f} ms, p99 {high * 1e3:.0f} ms, longest {most * 1e3:.0f} ms; "
        f"{rate:,.0f} events a second taken in {share:.0%} of a core",
    )
    assert rate > 0.9 * RATE
    assert high < 1.0
