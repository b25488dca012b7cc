"""Dead letters as files of JSON lines, one a day, for people to read.

A letter is written before the consumer goes on, so one may come twice after a kill; its source
tells. The counts, which are kept in the journal, are exact.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from roiflow.errors import ServiceError
from roiflow.stream.arrivals import Letter
from roiflow.stream.checks import OVERSIZED

SHORTENED = 1_024


def content(letter: Letter) -> bytes:
    """What is kept of the payload: all of it, unless it was too large."""
    return letter.payload[:SHORTENED] if letter.reason == OVERSIZED else letter.payload


class FileDeadLetters:
    """Letters in <folder>/YYYY-MM-DD.jsonl."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, letters: Sequence[Letter]) -> None:
        """See DeadLetters. Raises ServiceError where they cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for day, lines in _by_day(letters).items():
                _append(self._folder / f"{day}.jsonl", b"".join(lines))
        except OSError as error:
            raise ServiceError(f"{self._folder}: no dead letters: {error.strerror}") from None


def _by_day(letters: Sequence[Letter]) -> dict[str, list[bytes]]:
    days: dict[str, list[bytes]] = {}
    for letter in letters:
        time = datetime.fromtimestamp(letter.time / 1e6, UTC)
        said = {
            "time": time.isoformat(),
            "reason": letter.reason,
            "detail": letter.detail,
            "source": letter.source,
            "payload": content(letter).decode("utf-8", "backslashreplace"),
        }
        days.setdefault(f"{time:%Y-%m-%d}", []).append(msgspec.json.encode(said) + b"\n")
    return days


def _append(path: Path, lines: bytes) -> None:
    """On disk on return, or not there at all; what a kill left of a line stays one of its own."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        left = b"\n" + lines if torn else lines
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
