"""What the consumer has taken, on this machine's disk: all other state can be made anew from it.

Segments `<number>.journal` of frames; a new one at every start. A frame is a batch of events with
its stamp and how far the arrivals were read; the first of a segment has no events and the whole
state. A frame counts once all of it is on disk: what follows a torn one is ignored, and its events
arrive again.

A segment that is closed goes to the lake and is then removed. One process writes at a time: the
folder is locked.
"""

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import pyarrow as pa

from roiflow.data.events import EVENTS, complete, new_rows
from roiflow.errors import ServiceError
from roiflow.files import Descriptor
from roiflow.stream.arrivals import Position

SUFFIX = ".journal"
_FRAME = struct.Struct("<4sIII")  # magic, checksum, length of what is said, length of the events
_MAGIC = b"RJ1\n"


class State(msgspec.Struct, frozen=True):
    """How far the consumer is: the last stamp, what was read, what was counted since ever."""

    stamp: int
    position: Position
    counts: dict[str, int]


START = State(0, {}, {})


@dataclass(frozen=True)
class Batch:
    """Events that were taken together; all are known at `stamp`."""

    stamp: int
    events: pa.Table

    @cached_property
    def tables(self) -> dict[str, pa.Table]:
        """What the online stores take of it."""
        return new_rows(self.events)


class Journal:
    """The segments of a folder, and the one that is being written."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ServiceError where another process writes it or the folder cannot be written."""
        self._folder, self._clock = folder, clock
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(folder / "lock")
        except OSError as error:
            raise ServiceError(f"{folder}: no journal: {error.strerror}") from None
        self.state = last_state(folder)
        self.number, self.batches = -1, 0
        self._file: Descriptor | None = None
        self._end, self._opened = 0, clock()

    def open(self, number: int, stamp: int = 0) -> None:
        """Close the segment that is written, and begin one; `number` is above all there were.

        Later stamps are above `stamp`, too. Raises ServiceError where it cannot be written; the
        journal is then as before.
        """
        state = State(max(stamp, self.state.stamp), self.state.position, self.state.counts)
        # The new segment is on disk, its name too, before the old one is let go: whenever this
        # process is killed, the newest segment that can be read has the newest state.
        path = self._folder / f"{number:09d}{SUFFIX}"
        try:
            file = Descriptor(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                end = _write(file.fileno(), 0, state, bytes(EVENTS.serialize()))
                _sync_folder(self._folder)
            except OSError:
                file.close()
                path.unlink()
                raise
        except OSError as error:
            raise ServiceError(f"{path}: cannot be written: {error.strerror}") from None
        self._close()
        self._path, self._file, self._end = path, file, end
        self.state, self.number, self.batches = state, number, 0
        self._opened = self._clock()

    def append(self, events: pa.Table, state: State) -> None:
        """Keep a batch and the state after it; it is on disk on return.

        Raises ServiceError where it cannot be written; the journal is then as before.
        """
        body = events.combine_chunks().to_batches()[0].serialize() if events.num_rows else b""
        assert self._file, "no segment was opened"
        last = self.state.position
        # Only what moved: a served log has a position for every segment there ever was, and a frame
        # would grow with them. Who reads adds the frames of a segment up, and its first one has
        # all.
        changed = {key: at for key, at in state.position.items() if last.get(key) != at}
        said = State(state.stamp, changed, state.counts)
        try:
            self._end = _write(self._file.fileno(), self._end, said, bytes(body))
        except OSError as error:
            with suppress(OSError):  # the next frame is written over it
                os.ftruncate(self._file.fileno(), self._end)
            raise ServiceError(f"{self._path}: cannot be written: {error.strerror}") from None
        self.state = state
        self.batches += 1

    @property
    def size(self) -> int:
        """Bytes of the segment that is written."""
        return self._end

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return self._clock() - self._opened

    def closed(self) -> list[int]:
        """Segments that grow no more, oldest first."""
        return [number for number in numbers(self._folder) if number != self.number]

    def numbers(self) -> list[int]:
        """All segments, oldest first."""
        return numbers(self._folder)

    def read(self, number: int) -> list[Batch]:
        """The batches of a segment, oldest first."""
        return read(self._folder, number)

    def remove(self, number: int) -> None:
        """Forget a segment."""
        (self._folder / f"{number:09d}{SUFFIX}").unlink(missing_ok=True)

    def close(self) -> None:
        """End writing; another process may go on."""
        self._close()
        self._lock.close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file:
            with suppress(OSError):  # every frame is on disk, so this says nothing of them
                file.close()


def _write(file: int, at: int, state: State, body: bytes) -> int:
    """Put a frame at an offset, on disk; the offset after it."""
    said = msgspec.json.encode(state)
    checksum = zlib.crc32(body, zlib.crc32(said))
    # One write and one sync for a frame. The checksum covers both parts, for a disk may have the
    # end of a frame and not its middle after a power cut; what does not fit it was never
    # acknowledged.
    left = memoryview(_FRAME.pack(_MAGIC, checksum, len(said), len(body)) + said + body)
    while left:
        written = os.pwrite(file, left, at)
        at, left = at + written, left[written:]
    # fdatasync: the size is part of what it syncs, the times of the file are nobody's.
    os.fdatasync(file)
    return at


def numbers(folder: Path) -> list[int]:
    """The segments of a folder, oldest first."""
    return sorted(int(path.stem) for path in folder.glob(f"*{SUFFIX}"))


def read(folder: Path, number: int) -> list[Batch]:
    """The batches of a segment, oldest first; none where it was removed meanwhile."""
    frames = _frames(folder / f"{number:09d}{SUFFIX}")
    batches = []
    schema = EVENTS
    for at, (state, body) in enumerate(frames):
        if at == 0:
            schema = pa.ipc.read_schema(pa.py_buffer(body))
        elif body:
            rows = pa.ipc.read_record_batch(pa.py_buffer(body), schema)
            batches.append(Batch(state.stamp, complete(pa.Table.from_batches([rows]), EVENTS)))
    return batches


def last_state(folder: Path) -> State:
    """The state after the last whole frame; START of an empty journal."""
    for number in reversed(numbers(folder)):
        position: Position = {}
        state = None
        for state, _ in _frames(folder / f"{number:09d}{SUFFIX}"):
            position |= state.position
        if state is not None:
            return State(state.stamp, position, state.counts)
    return START


def _frames(path: Path) -> Iterator[tuple[State, bytes]]:
    """What each whole frame says, and its events."""
    try:
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        return
    decode = msgspec.json.Decoder(State).decode
    at = 0
    while at + _FRAME.size <= len(content):
        magic, checksum, said, body = _FRAME.unpack_from(content, at)
        start, middle, end = (
            at + _FRAME.size,
            at + _FRAME.size + said,
            at + _FRAME.size + said + body,
        )
        # The first frame that is not whole ends the segment: it was being written when the end
        # came, or is what an earlier, longer write left behind the new end.
        whole = magic == _MAGIC and end <= len(content)
        if not whole or zlib.crc32(content[start:end]) != checksum:
            return
        yield decode(content[start:middle]), bytes(content[middle:end])
        at = end


def _lock(path: Path) -> Descriptor:
    """An open file that holds the lock. Raises ServiceError, naming the process that has it."""
    file = Descriptor(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(file.fileno(), 100, 0).decode(errors="replace").strip()
        file.close()
        raise ServiceError(f"{path.parent}: process {holder} consumes already") from None
    except OSError:
        file.close()
        raise
    return file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems have no such thing
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
