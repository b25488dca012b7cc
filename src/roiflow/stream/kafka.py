"""Kafka: events read from a topic, and what was not taken written to another.

The consumer assigns itself every partition and keeps its own positions, so that no group is ever
rebalanced and nothing hangs on what the broker remembers. A topic is told from another of its name
by its id: what was journaled of one that is gone says nothing about one that was made anew.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
    TopicDescription,
)

from roiflow.errors import ServiceError
from roiflow.stream.arrivals import Arrived, Letter, Position
from roiflow.stream.dead_letters import content

ANSWER_SECONDS = 3.0
"""So long a broker may take to say what a topic is."""

DELIVERY_SECONDS = 10.0
"""So long a broker may take to make messages durable."""

LOOK_SECONDS = 1.0
"""So often a reader asks whether the topic is still the one it reads."""

COMMIT_SECONDS = 1.0
FETCH_MILLISECONDS = 50
"""A broker without news answers after this; what comes meanwhile may wait as long."""

GROUP = "roiflow"

Delivered = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True)
class Known:
    """What the broker says of a topic."""

    id: str
    partitions: int


class Topic:
    """A topic of a broker (`address`: host:port, several with commas), made where it is absent."""

    def __init__(self, address: str, name: str, partitions: int) -> None:
        self.address, self.name = address, name
        self._partitions = partitions
        self._admin = AdminClient(self.settings())

    def settings(self) -> dict[str, str | int | float | bool]:
        """What every client of this broker is told."""
        return {
            "bootstrap.servers": self.address,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,  # what matters is raised
        }

    def error(self, error: KafkaError) -> ServiceError:
        """What a client said, with the broker's address."""
        return ServiceError(f"Kafka at {self.address}: topic {self.name}: {error.str()}")

    def look(self) -> Known:
        """Ask and wait. Raises ServiceError where the broker cannot be reached."""
        return self.known(self.ask())

    def ask(self) -> "Future[TopicDescription]":
        """Ask without waiting; `known` takes the answer."""
        asked = self._admin.describe_topics(
            TopicCollection([self.name]), request_timeout=ANSWER_SECONDS
        )
        return asked[self.name]

    def known(self, answer: "Future[TopicDescription]") -> Known:
        """The topic of an answer. Raises ServiceError."""
        try:
            found = answer.result()
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise self.error(error) from None
            self._make()
            return self.look()
        name = str(found.topic_id).replace("/", "_").replace("+", "-")
        return Known(name, len(found.partitions))

    def _make(self) -> None:
        new = NewTopic(self.name, self._partitions, -1)
        made = self._admin.create_topics([new], request_timeout=ANSWER_SECONDS)[self.name]
        try:
            made.result()
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self.error(error) from None


class KafkaArrivals:
    """Arrivals (see there) of a topic: every partition, from the positions it is told."""

    def __init__(
        self,
        topic: Topic,
        clock: Callable[[], float] = time.monotonic,
        fetch_milliseconds: int = FETCH_MILLISECONDS,
    ) -> None:
        self._topic, self._clock = topic, clock
        self._told: Position = {}
        self._known: Known | None = None
        self._next: dict[int, int] = {}
        self._asked: Future[TopicDescription] | None = None
        self._look_at = self._commit_at = 0.0
        self._broken = self._reading = False
        self._consumer = Consumer(
            topic.settings()
            | {
                "group.id": GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": fetch_milliseconds,
                "error_cb": self._failed,
            }
        )

    def _failed(self, error: KafkaError) -> None:
        self._broken |= error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT)

    def seek(self, position: Position) -> None:
        """See Arrivals; entries of topics that are gone say nothing."""
        self._told, self._known, self._next = dict(position), None, {}
        self._reading = False

    def poll(self, limit: int, seconds: float) -> Arrived:
        """See Arrivals."""
        self._look()
        # First what is here already. `consume` with a timeout would wait for all `limit` of them,
        # and the first event would wait for the last; `poll` returns with the first.
        messages = self._consumer.consume(limit, 0)
        if not messages:
            first = self._consumer.poll(seconds)
            if first is not None:  # one without content is false
                messages = [first, *self._consumer.consume(limit - 1, 0)]
        if any(message.error() for message in messages):
            messages = self._without_errors(messages)
        return self._arrived(messages)

    def _look(self) -> None:
        """Ask now and then what the topic is; wait only where reading cannot go on without.

        From a broker that was away nothing is read before it says that the topic is the same.
        """
        # A broker that was away may have come back with nothing of what it had, and the topic be
        # another of the same name: offsets of the old one would skip or repeat. So it is asked
        # before reading.
        if self._broken:
            self._consumer.unassign()
            self._reading, self._asked = False, None
        waits = not self._reading
        if self._asked is None and (waits or self._clock() >= self._look_at):
            self._asked = self._topic.ask()
            self._look_at = self._clock() + LOOK_SECONDS
        if self._asked and (waits or self._asked.done()):
            answer, self._asked = self._asked, None
            found = self._topic.known(answer)
            self._broken = False
            if found != self._known or not self._reading:
                self._assign(found)

    def _assign(self, found: Known) -> None:
        # Told positions are of topics by id: those of another topic say nothing, and where none is
        # told, a partition is read from its beginning. The consumer knows what was there before.
        if self._known is None or found.id != self._known.id:
            told, self._told = self._told, {}
            keys = {number: _key(found.id, number) for number in range(found.partitions)}
            self._next = {number: told[key] for number, key in keys.items() if key in told}
        self._known, self._reading = found, True
        self._consumer.assign(
            [
                TopicPartition(self._topic.name, number, self._next.get(number, OFFSET_BEGINNING))
                for number in range(found.partitions)
            ]
        )

    def _without_errors(self, messages: Sequence[Message]) -> list[Message]:
        """What can be read; a partition that no longer holds its offset starts from its beginning.

        Raises ServiceError for what has no remedy here.
        """
        assert self._known
        for message in messages:
            error = message.error()
            if error is None:
                continue
            # The broker keeps no message as old as the position: retention, or a log cut short.
            if error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._next.pop(message.partition() or 0, None)
                self._assign(self._known)
            elif not (error.retriable() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
                raise self._topic.error(error)
        return [message for message in messages if message.error() is None]

    def _arrived(self, messages: Sequence[Message]) -> Arrived:
        assert self._known
        name = self._topic.name
        places = [(message.partition() or 0, message.offset() or 0) for message in messages]
        self._next.update({number: offset + 1 for number, offset in places})
        return Arrived(
            [message.value() or b"" for message in messages],
            [message.timestamp()[1] * 1000 for message in messages],
            [f"{name}/{number}@{offset}" for number, offset in places],
            {_key(self._known.id, number): at for number, at in self._next.items()},
        )

    def commit(self, position: Position) -> None:
        """See Arrivals; told now and then, and not waited for."""
        if self._known is None or self._clock() < self._commit_at:
            return
        # For lag in Kafka's own tools only; the journal is what a consumer goes on from. So once a
        # second is enough, and an answer nobody waits for.
        self._commit_at = self._clock() + COMMIT_SECONDS
        offsets = [
            TopicPartition(self._topic.name, number, position[key])
            for number in range(self._known.partitions)
            if (key := _key(self._known.id, number)) in position
        ]
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def _key(topic: str, partition: int) -> str:
    return f"kafka/{topic}/{partition}"


@dataclass(frozen=True)
class Outgoing:
    """A message to send."""

    payload: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Sender:
    """Sends messages to a topic and waits until the broker has them."""

    def __init__(self, topic: Topic, seconds: float = DELIVERY_SECONDS) -> None:
        self._topic, self._seconds = topic, seconds
        self._producer: Producer | None = None

    def topic_id(self) -> str:
        """Of the topic as it is now. Raises ServiceError where the broker cannot be reached."""
        return self._topic.look().id

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Raises ServiceError where not every message is durable; some of them may be."""
        producer = self._connect() if self._producer is None else self._producer
        self._producer = None  # one that failed is not used again, with what it may still hold
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        for message in messages:
            self._produce(producer, message, delivered)
        left = producer.flush(self._seconds + 1)
        if failed or left:
            producer.purge()
            producer.flush(0)
            raise self._topic.error(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))
        self._producer = producer

    def _connect(self) -> Producer:
        self._topic.look()  # makes the topic, and fails sooner than a delivery does
        return Producer(
            self._topic.settings()
            | {
                # Not idempotent: what is sent twice the consumer finds, and a broker that keeps a
                # producer's sequence, but not the batch it died with, would take it for sent.
                "enable.idempotence": False,
                "acks": "all",
                "linger.ms": 2,
                "compression.type": "lz4",
                "message.timeout.ms": int(self._seconds * 1000),
            }
        )

    def _produce(self, producer: Producer, message: Outgoing, delivered: Delivered) -> None:
        while True:
            try:
                producer.produce(
                    self._topic.name,
                    message.payload,
                    key=message.key,
                    headers=list(message.headers),
                    on_delivery=delivered,
                )
            except BufferError:  # full: the broker takes some first, or they time out
                producer.poll(0.1)
            else:
                return


class KafkaDeadLetters:
    """Dead letters in a topic: the payload, and why it was not taken in the headers."""

    def __init__(self, topic: Topic) -> None:
        self._sender = Sender(topic)

    def put(self, letters: Sequence[Letter]) -> None:
        """See DeadLetters. Raises ServiceError where the broker cannot be reached."""
        self._sender.send([_outgoing(letter) for letter in letters])


def _outgoing(letter: Letter) -> Outgoing:
    headers = {
        "reason": letter.reason,
        "detail": letter.detail,
        "source": letter.source,
        "time": str(letter.time),
    }
    named = tuple((name, value.encode(errors="replace")) for name, value in headers.items())
    return Outgoing(content(letter), headers=named)
