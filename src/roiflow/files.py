"""Atomic writes: a reader sees the old output or the new one, never half of either."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; rename it to `path` if the block succeeds."""
    aside = _aside(path)
    try:
        yield aside
        _sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def write_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; put it in the place of `path` if the block succeeds."""
    aside = _aside(path)
    aside.mkdir()
    try:
        yield aside
        if path.exists():
            old = _aside(path)
            path.replace(old)
            aside.replace(path)
            shutil.rmtree(old)
        else:
            aside.replace(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
