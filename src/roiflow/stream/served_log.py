"""The served-event log: what was shown with which probability, and what came of it.

An append-only folder of segments of JSON lines, an event a line. A segment is `<name>.jsonl.open`
while it grows and `<name>.jsonl` once it is complete and on disk.

What `write` took is with the system when it returns: it survives the end of this process, by
SIGKILL too. Lost is what a machine that loses its power had not put on disk by itself; a segment is
put there when it is sealed. A line that a kill cut is the last of its segment, and nobody was told
that it is there; a reader that stops at the last line end never sees it.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa

from roiflow.data.events import CLICK, CONVERSION, between, conform, of_kind, shown, with_outcomes
from roiflow.data.schemas import CONVERSIONS
from roiflow.errors import ContractError, ServiceError
from roiflow.files import Descriptor
from roiflow.stream import rows
from roiflow.stream.events import Event

OPEN, SEALED = ".jsonl.open", ".jsonl"
ROOM_BYTES = 1 << 14
"""A log that can be written has room for so much."""


class _Segment:
    """A file that lines are put at the end of."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where it cannot be made or has no room; nothing is left of it then."""
        self.path, self.size = path, 0
        self._file = Descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            self.prove()
        except OSError:
            self.drop()
            raise

    def write(self, lines: bytes) -> None:
        """All of `lines`. Raises OSError where they do not go in whole."""
        self._put(lines)
        self.size += len(lines)

    def prove(self) -> None:
        """Raises OSError without room; what is written here is no line and is taken back."""
        self._put(b" " * ROOM_BYTES)
        os.ftruncate(self._file.fileno(), self.size)

    def _put(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._file.fileno(), content) :]

    def seal(self) -> None:
        """On disk, closed and called complete. Raises OSError; it is closed even so."""
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()
        self.path.rename(self.path.with_name(self.path.name.removesuffix(".open")))

    def drop(self) -> None:
        """Let go of a segment that failed, without its last lines where those are not whole."""
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), self.size)
        with suppress(OSError):
            self._file.close()
        if not self.size:
            with suppress(OSError):
                self.path.unlink()


class EventLog:
    """Puts events at the end of the folder's current segment. One process, one thread."""

    def __init__(self, folder: Path, *, segment_bytes: int = 1 << 26) -> None:
        """Raises ServiceError where the folder cannot be written."""
        self._folder, self._segment_bytes = folder, segment_bytes
        self._encode = msgspec.json.Encoder().encode
        self._sequence = 0
        self._prefix = f"{time.time_ns():020d}-{os.getpid()}"
        self._segment: _Segment | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"{folder}: {error.strerror}; no event log, no serving") from None
        self.check()

    def write(self, events: Sequence[Event], longest: int | None = None) -> None:
        """Hand events to the system, in one write: they survive the end of this process.

        Raises ServiceError where that fails; the segment is given up then, none of the events
        counts, and the next call tries a new segment. Raises it also where an event is of more
        than `longest` bytes, which no reader would take; nothing is written then.
        """
        messages = [self._encode(event) for event in events]
        size = max(map(len, messages), default=0)
        if longest is not None and size > longest:
            raise ServiceError(
                f"an event of {size} bytes is over {longest}, stream.message_kb of params.yaml: "
                "not logged, not served"
            )
        lines = b"".join(message + b"\n" for message in messages)
        segment = self._current()
        try:
            segment.write(lines)
        except OSError as error:
            raise self._give_up(segment, error) from None
        if segment.size >= self._segment_bytes:
            self._turn(segment)

    def check(self) -> None:
        """Raises ServiceError where the log cannot be written now."""
        segment = self._current()
        try:
            segment.prove()
        except OSError as error:
            raise self._give_up(segment, error) from None

    def _current(self) -> _Segment:
        if self._segment is None:
            try:
                self._segment = self._next()
            except OSError as error:
                raise _unwritable(self._folder, error) from None
        return self._segment

    def _next(self) -> _Segment:
        segment = _Segment(self._folder / f"{self._prefix}-{self._sequence:06d}{OPEN}")
        self._sequence += 1
        return segment

    def _turn(self, full: _Segment) -> None:
        """Go on in a new segment; where there is none to be had, in the full one."""
        with suppress(OSError):
            self._segment = self._next()
            full.seal()

    def _give_up(self, segment: _Segment, error: OSError) -> ServiceError:
        self._segment = None
        segment.drop()
        return _unwritable(segment.path, error)

    def close(self) -> None:
        """Seal the segment. Raises ServiceError where it does not get to the disk."""
        segment, self._segment = self._segment, None
        if segment:
            try:
                segment.seal()
            except OSError as error:
                raise _unwritable(segment.path, error) from None


def _unwritable(path: Path, error: OSError) -> ServiceError:
    return ServiceError(f"{path}: cannot be written: {error.strerror}")


def segments(folder: Path) -> list[Path]:
    """Every segment, oldest first; those still open are read up to their last whole line."""
    return sorted([*folder.rglob(f"*{SEALED}"), *folder.rglob(f"*{OPEN}")], key=lambda p: p.name)


def read(folder: Path, start: int, end: int) -> dict[str, pa.Table]:
    """Impressions and conversions of the contract with start <= known_time < end, microseconds.

    Clicks and conversions known before `end` make `clicked` and the cost. Raises ContractError
    naming the segment that cannot be read.
    """
    parts = [_events(path) for path in segments(folder)]
    events = between(pa.concat_tables([rows.table([]), *parts]), 0, end)
    conversions = of_kind(events, CONVERSION)
    impressions = between(shown(events), start, end)
    return {
        "impressions": with_outcomes(impressions, of_kind(events, CLICK), conversions),
        "conversions": conform(between(conversions, start, end), CONVERSIONS),
    }


def _events(path: Path) -> pa.Table:
    content = _content(path)
    whole = content[: content.rfind(b"\n") + 1]
    try:
        return rows.table(msgspec.json.Decoder(Event).decode_lines(whole))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: not a served-event segment: {error}") from None


def _content(path: Path) -> bytes:
    with suppress(FileNotFoundError):  # sealed between the listing and here
        return path.read_bytes()
    return path.with_name(path.name.removesuffix(".open")).read_bytes()
