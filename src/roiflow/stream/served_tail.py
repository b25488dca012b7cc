"""The served log as arrivals: its segments' lines as they are written."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from roiflow.stream.arrivals import Arrived, Position
from roiflow.stream.served_log import OPEN, SEALED, segments

PREFIX = "served/"
_READ = 1 << 22
_PAUSE = 0.005
_LIST_SECONDS = 0.05


class ServedLogArrivals:
    """Reads every segment of a folder from where it was left, the oldest first.

    Several processes may write; the order among them is that of their start.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._folder, self._clock, self._now = folder, clock, now
        self._position: Position = {}
        self._growing: list[Path] = []
        self._listed = -_LIST_SECONDS

    def seek(self, position: Position) -> None:
        """See Arrivals."""
        self._position = dict(position)
        self._listed = -_LIST_SECONDS

    def poll(self, limit: int, seconds: float) -> Arrived:
        """See Arrivals."""
        end = self._clock() + seconds
        while True:
            found = self._read(limit)
            left = end - self._clock()
            if found.payloads or left <= 0:
                return found
            time.sleep(min(_PAUSE, left))

    def commit(self, position: Position) -> None:
        """See Arrivals; there is no broker to tell."""

    def _read(self, limit: int) -> Arrived:
        payloads: list[bytes] = []
        sources: list[str] = []
        for path in self._segments():
            name = path.name.removesuffix(OPEN).removesuffix(SEALED)
            for start, line in _lines(path, self._position.get(PREFIX + name, 0)):
                if len(payloads) >= limit:
                    break
                payloads.append(line)
                sources.append(f"{PREFIX}{name}@{start}")
                self._position[PREFIX + name] = start + len(line) + 1
        times = [self._now()] * len(payloads)
        return Arrived(payloads, times, sources, dict(self._position))

    def _segments(self) -> list[Path]:
        """Those that have more to read or may get it; the folder is listed now and then."""
        now = self._clock()
        if now - self._listed >= _LIST_SECONDS:
            self._growing, self._listed = segments(self._folder), now
        return [path for path in self._growing if self._more(path)]

    def _more(self, path: Path) -> bool:
        name = path.name.removesuffix(OPEN).removesuffix(SEALED)
        try:
            return path.stat().st_size > self._position.get(PREFIX + name, 0)
        except FileNotFoundError:  # sealed since the listing
            self._listed = -_LIST_SECONDS
            return False


def _lines(path: Path, start: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines from an offset, with where each begins."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(start)
        while content := file.read(_READ):
            # The last line may be half written. It is left for the next poll, unless it is longer
            # than a read, and then read on to its end.
            whole = content.rfind(b"\n") + 1
            if not whole:
                content += file.readline()
                whole = len(content) if content.endswith(b"\n") else 0
            if not whole:
                return
            for line in content[: whole - 1].split(b"\n"):
                yield start, line
                start += len(line) + 1
            file.seek(start)
