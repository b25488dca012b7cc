"""All that was ever taken: the lake's parts, then the journal's segments.

A segment that is in both is read from the journal, where it is whole.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data import event_lake
from roiflow.data.event_lake import IDS, Part
from roiflow.data.events import EVENTS, between
from roiflow.data.weeks import LATEST
from roiflow.stream.journal import Batch, Journal

BATCH_ROWS = 4_000
"""Events that are given at a time, batches of one stamp never split."""


class History:
    """The events of a journal and of the lake it goes to."""

    def __init__(self, lake: Path, journal: Journal) -> None:
        self._lake, self._journal = lake, journal

    def after(self, stamp: int) -> Iterator[Batch]:
        """Everything with a later stamp, in the order it was taken."""
        return _batches(self._since(stamp + 1, Part.read))

    def ids(self, known: int) -> Iterator[pa.Table]:
        """The columns event_lake.IDS of what became known at or after a time, table by table."""
        return (events.select(IDS) for events in self._since(known, Part.ids))

    def last_number(self) -> int:
        """The last segment there was; -1 before the first."""
        numbers = [part.number for part in event_lake.parts(self._lake)]
        return max([-1, *numbers, *self._journal.numbers()])

    def last_stamp(self) -> int:
        """The newest stamp; 0 before the first."""
        parts = event_lake.parts(self._lake)
        known = _known(parts[-1].ids()) if parts else np.zeros(0, np.int64)
        return max(self._journal.state.stamp, int(known.max()) if known.size else 0)

    def _since(self, known: int, read: Callable[[Part], pa.Table]) -> Iterator[pa.Table]:
        # While a segment goes to the lake it is in both for a moment. The journal's is whole; the
        # lake's may be one of two weeks' parts.
        segments = self._journal.numbers()
        parts = [part for part in event_lake.parts(self._lake) if part.number not in segments]
        for part in parts:
            if part.week.end > known:
                yield between(read(part), known, LATEST)
        for number in segments:
            for batch in self._journal.read(number):
                yield between(batch.events, known, LATEST)


def _batches(tables: Iterable[pa.Table]) -> Iterator[Batch]:
    """Tables in order of their stamps -> batches of about BATCH_ROWS events."""
    waiting: list[pa.Table] = [EVENTS.empty_table()]
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= BATCH_ROWS:
            yield from _cut(pa.concat_tables(waiting))
            waiting = [EVENTS.empty_table()]
    yield from _cut(pa.concat_tables(waiting))


def _cut(events: pa.Table) -> Iterator[Batch]:
    """Between two stamps, after BATCH_ROWS events or some more."""
    # A store takes a stamp whole or not at all, so a cut through one would lose its second half:
    # the store would have the stamp already.
    known = _known(events)
    start = 0
    while start < known.size:
        last = known[min(start + BATCH_ROWS, known.size) - 1]
        end = int(np.searchsorted(known, last, side="right"))
        yield Batch(int(last), events.slice(start, end - start))
        start = end


def _known(events: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return events[c.KNOWN_TIME].cast(pa.int64()).to_numpy()
