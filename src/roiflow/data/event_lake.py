"""The stream's events in the lake: <lake>/stream/events/week=YYYY-Www/part-<number>.parquet.

A part holds what one segment of the consumer's journal took in one week of `known_time`. A
segment's older week is written first and segments in the order of their numbers: once a later week
has a part, all of the earlier ones is there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.events import EVENT, EVENTS, KIND, between, changes, complete
from roiflow.data.schemas import CHANGES
from roiflow.data.weeks import MICROS_PER_WEEK, Week

SOURCE, TABLE = "stream", "events"
IDS = (KIND, EVENT, c.EVENT_TIME, c.KNOWN_TIME)
"""What tells whether an event was there before."""

# The epoch is a Thursday: weeks are counted from the first Monday after it.
_MONDAY = Week(1970, 2).start


@dataclass(frozen=True, order=True)
class Part:
    """One file."""

    number: int
    week: Week
    path: Path

    def read(self) -> pa.Table:
        """Its events, in the order they were taken. Raises SourceError, naming the file."""
        return complete(lake.read_parquet(self.path), EVENTS)

    def changes(self) -> pa.Table:
        """Its changes of the catalogue, without reading the rest."""
        if c.CHANGE not in lake.read_schema(self.path).names:
            return CHANGES.empty_table()
        names = [KIND, *(name for name in CHANGES.names)]
        return changes(lake.read_parquet(self.path, names))

    def ids(self) -> pa.Table:
        """The columns of IDS alone, which is faster."""
        return lake.read_parquet(self.path, IDS)


def parts(root: Path) -> list[Part]:
    """Every part, in the order they were written; `root` is the lake."""
    paths = (root / SOURCE / TABLE).glob(f"week=*/{lake.PARTS}")
    # By number and then by week, as the fields stand. Numbers are compared as numbers: 10 comes
    # after 9.
    return sorted(
        Part(
            int(path.stem.removeprefix("part-")),
            Week.parse(path.parent.name.removeprefix("week=")),
            path,
        )
        for path in paths
    )


def write(root: Path, number: int, events: pa.Table) -> None:
    """A segment's events, week after week; the same events always make the same files."""
    # Oldest first: a reader takes a week for whole once a later one has a part.
    for week in _weeks(events):
        rows = between(events, week.start, week.end)
        path = root / SOURCE / TABLE / f"week={week}" / f"part-{number}.parquet"
        lake.write_parquet(path, rows)


def _weeks(events: pa.Table) -> list[Week]:
    known = events[c.KNOWN_TIME].cast(pa.int64()).to_numpy()
    numbers = np.unique((known - _MONDAY) // MICROS_PER_WEEK)
    return [Week.of(_MONDAY + int(number) * MICROS_PER_WEEK) for number in numbers]
