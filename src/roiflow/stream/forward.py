"""The served log sent to Kafka: every line at least once, from where it was left.

How far it came is kept with the id of the topic it went to. A topic that was made anew, by a broker
that lost its memory, is sent everything again that the log still holds; the consumer finds the
duplicates.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from roiflow.errors import ServiceError
from roiflow.files import write_file
from roiflow.stream.arrivals import Arrivals, Position
from roiflow.stream.kafka import LOOK_SECONDS, Outgoing


class Outlet(Protocol):
    """Where lines go: a Sender. Both methods raise ServiceError where there is no connection."""

    def topic_id(self) -> str:
        """Of the topic as it is now."""
        ...

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Returns when the messages are durable."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What a topic was sent."""

    topic: str
    position: Position


class _Keys(msgspec.Struct):
    user_id: str | None = None
    impression_id: str | None = None


_keys = msgspec.json.Decoder(_Keys).decode


def key_of(line: bytes) -> bytes | None:
    """Events of one user, and those of one impression, go to one partition each."""
    try:
        keys = _keys(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    key = keys.user_id or keys.impression_id
    return key.encode(errors="replace") if key else None


class Forwarder:
    """Sends what a log has. `state` is the file that keeps how far it came."""

    def __init__(
        self,
        log: Arrivals,
        outlet: Outlet,
        state: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ServiceError where `state` is something else."""
        self._log, self._outlet, self._path, self._clock = log, outlet, state, clock
        self._sent = _read(state)
        self._log.seek(self._sent.position)
        self._look_at: float | None = None

    def step(self, limit: int, seconds: float) -> int:
        """Send at most `limit` lines, waiting `seconds` for the first; says how many.

        Raises ServiceError where the broker cannot be reached; nothing is lost then.
        """
        self._look()
        found = self._log.poll(limit, seconds)
        if not found.payloads:
            return 0
        # Durable first, then noted: a kill between the two sends lines twice, and ids tell.
        try:
            self._outlet.send([Outgoing(line, key_of(line)) for line in found.payloads])
        except ServiceError:
            self._look_at = None
            self._log.seek(self._sent.position)
            raise
        self._keep(Sent(self._sent.topic, found.position))
        return len(found.payloads)

    def _look(self) -> None:
        if self._look_at is not None and self._clock() < self._look_at:
            return
        # A broker that lost its memory has a topic of another id, even under the same name and with
        # offsets that look alike: everything that the log still holds is sent again.
        topic = self._outlet.topic_id()
        if topic != self._sent.topic:
            self._keep(Sent(topic, {}))
            self._log.seek({})
        self._look_at = self._clock() + LOOK_SECONDS

    def _keep(self, sent: Sent) -> None:
        with write_file(self._path) as aside:
            aside.write_bytes(msgspec.json.encode(sent))
        self._sent = sent


def _read(path: Path) -> Sent:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sent)
    except FileNotFoundError:
        return Sent("", {})
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ServiceError(f"{path}: not how far a log was sent: {error}") from None
