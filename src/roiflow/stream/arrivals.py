"""Where events arrive from, and where those go that are not taken: the ends of the consumer.

A position is the truth of what was read: the consumer keeps it with the events it came after, and
seeks there again. What `commit` says is information for the broker's own tools.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Position = dict[str, int]
"""`served/<segment>` or `kafka/<topic-id>/<partition>` -> the next byte or offset to read."""


@dataclass(frozen=True)
class Arrived:
    """What one poll gave: lists of equal length, one entry an event."""

    payloads: list[bytes]
    times: list[int]
    """Microseconds since the epoch: when each reached the door or the broker."""
    sources: list[str]
    """Such as "events/3@1207": for dead letters."""
    position: Position
    """After these, of everything that was ever read."""


class Arrivals(Protocol):
    """Events in order of arrival. Methods raise ServiceError where there is no connection."""

    def seek(self, position: Position) -> None:
        """Go on from a position; what it does not name is read from its beginning."""
        ...

    def poll(self, limit: int, seconds: float) -> Arrived:
        """At most `limit` events; waits `seconds` at most, less once there are some."""
        ...

    def commit(self, position: Position) -> None:
        """Tell the broker how far reading went."""
        ...


@dataclass(frozen=True)
class Letter:
    """An event that was not taken. `reason` is a code of checks.py, `detail` names the value."""

    reason: str
    detail: str
    source: str
    payload: bytes
    time: int


class DeadLetters(Protocol):
    """Keeps what was not taken, for people."""

    def put(self, letters: Sequence[Letter]) -> None:
        """Returns when they are durable."""
        ...
