"""Atomic writes: a reader sees the old output or the new one, never half of either.

What is written lies beside its target under a name of its own, which its writer holds by a lock
that ends with the process. The next writer of the target removes what nobody holds.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roiflow.errors import RunError

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


class Descriptor:
    """An open file by its number, of which this is the only owner.

    The system gives the number of what is closed to what is opened next: a log's to a client's
    connection. So it is forgotten as it is closed, and no call can reach something else by it.
    """

    def __init__(self, path: Path, flags: int) -> None:
        """Raises OSError."""
        self._number: int | None = os.open(path, flags, 0o644)

    def fileno(self) -> int:
        """The number. Raises OSError once it is closed."""
        if self._number is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._number

    def close(self) -> None:
        """Let go of it, once. Raises OSError; it is gone even so."""
        number, self._number = self._number, None
        if number is not None:
            os.close(number)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


@contextmanager
def _held(path: Path, folder: bool) -> Iterator[Path]:
    """A new name beside `path`, made as file or folder and held until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path)
    descriptor, aside = _make(path, folder)
    try:
        with _named(path):
            yield aside
    finally:
        # The name goes before the lock does: one that nobody holds is taken for what a killed
        # writer left.
        _remove(aside)
        os.close(descriptor)


def _make(path: Path, folder: bool) -> tuple[int, Path]:
    # Between making and locking, another writer's sweep may have taken it for left behind: then
    # there is another name.
    while True:
        aside = _aside(path)
        aside.mkdir() if folder else aside.touch(exist_ok=False)
        if (descriptor := _hold(aside, alone=True)) is not None:
            return descriptor, aside


def _hold(path: Path, alone: bool) -> int | None:
    """Lock a file or folder; None where another process holds or removed it.

    Some network disks know no such locks: then `alone` says whether nobody else can hold it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Opened and locked is not enough: it may have been removed between the two, and the lock be
        # on a file without a name.
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if alone and error.errno in NO_LOCKS:
            return descriptor
    os.close(descriptor)
    return None


def sweep(path: Path) -> None:
    """Remove what writers of `path` left beside it when they were killed."""
    # Only names of this target: other writers in the folder look after their own.
    for aside in path.parent.glob(f".{_literal(path.name)}.*.part"):
        if (descriptor := _hold(aside, alone=False)) is not None:
            _remove(aside)
            os.close(descriptor)


def _literal(name: str) -> str:
    # A target's name may hold what glob takes for a pattern.
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A full disk with the name of what was written, which libraries that write leave out."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC or (error.errno is None and no_room(path.parent))
        if not full or error.filename is not None:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def no_room(folder: Path) -> bool:
    """Whether the disk of a folder is full: a library may report a short write and no reason."""
    # Not 0: a file system keeps back a few blocks that no file gets.
    return shutil.disk_usage(folder).free < 65_536


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` if the block succeeds."""
    with _held(path, folder=False) as aside:
        yield aside
        # Before the new name: after a power cut it must not stand for content that was never
        # written.
        _sync(aside)
        aside.replace(path)


@contextmanager
def write_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; put it in the place of `path` if the block succeeds."""
    with _held(path, folder=True) as aside:
        yield aside
        # As in `write_file`, file by file: a name must not stand for what was never written.
        for folder, _, names in os.walk(aside):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        if not path.exists():
            aside.replace(path)
        # The old one has the name aside then, and goes with it.
        elif not _exchanged(aside, path):
            # Some disks know no exchange. Between the two renames there is no folder: a reader
            # fails then, and still never sees half of one.
            old = _aside(path)
            path.replace(old)
            aside.replace(path)
            shutil.rmtree(old)
        _sync(path.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Give two folders each other's name in one step; False where the system cannot."""
    # Python has no call for it. -100: relative paths are of the working directory; 2: exchange.
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return swap is not None and swap(-100, bytes(one), -100, bytes(other), 2) == 0


def read_json(path: Path) -> dict[str, Any]:
    """What a step wrote of itself. Raises OSError, or RunError where it is not a JSON object."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(f"{path}: not JSON: {error}: run the step that writes it again") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: not a JSON object: run the step that writes it again")
    return content
