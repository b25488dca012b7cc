"""The served-event log: what was shown with which probability, and what came of it.

An append-only folder of segments of JSON lines, an event a line. A segment is `<name>.jsonl.open`
while it grows and `<name>.jsonl` once it is complete and on disk. Lines leave the buffer whole, in
one write. A killed process therefore loses at most what it had not flushed, and a reader that stops
at the last line end never sees half a record.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pyarrow as pa

from roiflow.data.events import CLICK, CONVERSION, between, conform, of_kind, shown, with_outcomes
from roiflow.data.schemas import CONVERSIONS
from roiflow.errors import ContractError, ServiceError
from roiflow.stream import rows
from roiflow.stream.events import Event

OPEN, SEALED = ".jsonl.open", ".jsonl"


class EventLog:
    """Appends events to the folder's current segment. One process, one thread."""

    def __init__(
        self,
        folder: Path,
        *,
        buffer_bytes: int = 1 << 16,
        segment_bytes: int = 1 << 26,
        flush_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ServiceError where the folder cannot be written."""
        self._folder, self._clock = folder, clock
        self._buffer_bytes, self._segment_bytes = buffer_bytes, segment_bytes
        self._flush_seconds = flush_seconds
        self._encoder = msgspec.json.Encoder()
        self._sequence = 0
        self._prefix = f"{time.time_ns():020d}-{os.getpid()}"
        self._buffer = bytearray()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ServiceError(f"{folder}: {error.strerror}; no event log, no serving") from None

    def _open(self) -> None:
        self._path = self._folder / f"{self._prefix}-{self._sequence:06d}{OPEN}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(self._path, flags, 0o644)
        self._size, self._flushed = 0, self._clock()

    def append(self, event: Event) -> None:
        """Buffer an event; flush where the buffer is full or old.

        Raises ServiceError where the log cannot be written; the event is not taken then.
        """
        line = self._encoder.encode(event) + b"\n"
        self._buffer += line
        full = len(self._buffer) >= self._buffer_bytes
        if full or self._clock() - self._flushed >= self._flush_seconds:
            try:
                self.flush()
            except ServiceError:
                if len(self._buffer) >= len(line):
                    del self._buffer[-len(line) :]
                raise

    def flush(self) -> None:
        """Hand the buffer to the system: it survives the end of this process."""
        try:
            while self._buffer:
                written = os.write(self._file, self._buffer)
                self._size += written
                del self._buffer[:written]
            self._flushed = self._clock()
            if self._size >= self._segment_bytes:
                self._seal()
                self._sequence += 1
                self._open()
        except OSError as error:
            raise ServiceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _seal(self) -> None:
        os.fsync(self._file)
        os.close(self._file)
        self._path.rename(self._path.with_name(self._path.name.removesuffix(".open")))

    def close(self) -> None:
        """Flush and seal the segment."""
        self.flush()
        self._seal()


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
