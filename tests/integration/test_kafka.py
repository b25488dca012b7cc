"""The adapter against a broker of Kafka's protocol (see tests/brokers.py for its limits)."""

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from roiflow.errors import ServiceError
from roiflow.stream.arrivals import Arrivals, Letter
from roiflow.stream.kafka import KafkaArrivals, KafkaDeadLetters, Outgoing, Sender, Topic
from tests.brokers import Broker
from tests.unit.stream.arrivals_contract import ArrivalsContract, drain, events, payloads


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.kill()


class KafkaDoor:
    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.sender = Sender(topic, seconds=2.0)
        self.readers: list[KafkaArrivals] = []

    def put(self, payloads: list[bytes]) -> None:
        self.sender.send([Outgoing(payload, key=payload[-5:]) for payload in payloads])

    def reader(self) -> Arrivals:
        self.readers.append(KafkaArrivals(self.topic))
        return self.readers[-1]


@pytest.fixture
def door(broker: Broker) -> Iterator[KafkaDoor]:
    door = KafkaDoor(Topic(broker.address, "events", 3))
    yield door
    for reader in door.readers:
        reader.close()


class TestKafkaArrivals(ArrivalsContract):
    pass


def polled(arrivals: Arrivals, awaited: list[bytes]) -> set[bytes]:
    """As a consumer reads: a broker that is away is waited for, and some may come twice."""
    found: set[bytes] = set()
    end = time.monotonic() + 20
    while not found.issuperset(awaited) and time.monotonic() < end:
        with suppress(ServiceError):
            found.update(arrivals.poll(1_000, 0.1).payloads)
    return found


def test_a_topic_is_made_with_its_partitions_by_who_comes_first(broker: Broker) -> None:
    first = Topic(broker.address, "events", 3).look()
    assert first.partitions == 3
    assert Topic(broker.address, "events", 5).look() == first
    assert Topic(broker.address, "letters", 1).look().id != first.id


def test_events_of_one_key_keep_their_order(door: KafkaDoor) -> None:
    sent = [Outgoing(b"%d" % number, key=b"u%d" % (number % 7)) for number in range(700)]
    door.sender.send(sent)
    read = [int(one) for poll in drain(door.reader(), 700) for one in poll.payloads]
    for user in range(7):
        assert [one for one in read if one % 7 == user] == list(range(user, 700, 7))


def test_a_message_without_content_is_empty(broker: Broker, door: KafkaDoor) -> None:
    door.put([b""])
    assert payloads(drain(door.reader(), 1)) == [b""]


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    address = Broker(tmp_path).address
    topic = Topic(address, "events", 1)
    arrivals = KafkaArrivals(topic)
    for call in (
        topic.look,
        lambda: arrivals.poll(1, 0.1),
        lambda: KafkaDeadLetters(topic).put([Letter("schema", "", "", b"", 1)]),
    ):
        started = time.monotonic()
        with pytest.raises(ServiceError, match=f"Kafka at {address}: topic events: "):
            call()
        assert time.monotonic() - started < 8
    arrivals.close()


def test_a_topic_made_anew_is_read_from_its_beginning(broker: Broker, door: KafkaDoor) -> None:
    door.put(events(0, 40))
    reader = door.reader()
    old = drain(reader, 40)[-1].position
    broker.kill()
    with pytest.raises(ServiceError, match=broker.address):  # noqa: PT012  it takes polls to notice
        for _ in range(20):
            reader.poll(10, 0.1)
    with pytest.raises(ServiceError, match=broker.address):
        door.put(events(0, 1))
    broker.start()
    door.put(events(30, 50))
    assert polled(reader, events(30, 50)) == set(events(30, 50))
    other = door.reader()
    other.seek(old)
    polls = drain(other, 20)
    assert payloads(polls) == sorted(events(30, 50))
    assert not set(polls[-1].position) & set(old)


def test_a_longer_topic_made_anew_is_read_whole(broker: Broker, door: KafkaDoor) -> None:
    door.put(events(0, 10))
    reader = door.reader()
    assert polled(reader, events(0, 10)) == set(events(0, 10))
    broker.kill()
    broker.start()
    door.sender = Sender(door.topic)
    door.put(events(100, 300))  # beyond every offset that was read
    assert polled(reader, events(100, 300)) == set(events(100, 300))


def test_dead_letters_say_why(broker: Broker) -> None:
    topic = Topic(broker.address, "letters", 1)
    KafkaDeadLetters(topic).put(
        [
            Letter("schema", "dwell_ms -1 \u00b5\ud800", "events/0@7", b'{"kind":1}', 5_000_000),
            Letter("malformed", "not JSON", "events/1@9", b"\x00\xff", 6_000_000),
        ]
    )
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "people"})
    consumer.assign([TopicPartition("letters", 0, 0)])
    found: list[Message] = []
    end = time.monotonic() + 10
    while len(found) < 2 and time.monotonic() < end:
        found += consumer.consume(10, 0.2)
    consumer.close()
    assert [message.value() for message in found] == [b'{"kind":1}', b"\x00\xff"]
    assert dict(found[0].headers() or ()) == {
        "reason": b"schema",
        "detail": "dwell_ms -1 \u00b5?".encode(),
        "source": b"events/0@7",
        "time": b"5000000",
    }
    assert dict(found[1].headers() or ())["reason"] == b"malformed"


class Mocked(Topic):
    """A topic of librdkafka's own mock cluster, which cannot describe topics."""

    def ask(self) -> "Future[Any]":
        answer: Future[Any] = Future()
        answer.set_result(SimpleNamespace(topic_id="one", partitions=[0]))
        return answer


def test_offsets_that_are_no_longer_there_are_read_from_the_beginning() -> None:
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1})
    for number in range(5):
        cluster.produce("events", b"%d" % number, partition=0)
    cluster.flush(10)
    (broker,) = cluster.list_topics(timeout=10).brokers.values()
    arrivals = KafkaArrivals(Mocked(f"{broker.host}:{broker.port}", "events", 1))
    arrivals.seek({"kafka/one/0": 3})
    assert payloads(drain(arrivals, 2)) == [b"3", b"4"]
    arrivals.seek({"kafka/one/0": 1_000})
    polls = drain(arrivals, 5)
    assert payloads(polls) == [b"0", b"1", b"2", b"3", b"4"]
    assert polls[-1].position == {"kafka/one/0": 5}
    arrivals.close()
