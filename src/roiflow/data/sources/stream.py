"""What the stream's consumer took, from the lake; ads and users in the files' layout.

Ads change by what the stream says of them, on top of the newest snapshot among the files.

A week is complete once the lake has an event of a later one: everything is put there in the order
in which it became known.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa

from roiflow import columns as c
from roiflow.data import event_lake, lake, schemas
from roiflow.data.event_lake import Part
from roiflow.data.events import (
    BEHAVIOUR,
    CLICK,
    CONVERSION,
    EVENTS,
    KIND,
    between,
    conform,
    of_kind,
    shown,
    with_outcomes,
)
from roiflow.data.sources import fingerprint
from roiflow.data.sources.files import Files
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week, span
from roiflow.errors import UnknownWeek

OUTCOME = (KIND, c.IMPRESSION, c.KNOWN_TIME)


Changed = Callable[[pa.Table, pa.Table, Week], pa.Table]
"""A snapshot of `ads` and changes known by a week's end -> the week's `ads`."""


class Stream:
    """<lake>/stream/events, and the tables `ads` and `users` of `folder` as Files reads them."""

    name = "stream"

    def __init__(self, lake: Path, folder: str, changed: Changed) -> None:
        self._lake, self._files, self._changed = lake, Files(folder), changed

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull.

        An impression is clicked, and has its cost, as its clicks and conversions known before
        `as_of` say; those of the week before count where they overtook it.
        """
        parts = event_lake.parts(self._lake)
        self._require(week, parts)
        own = [part.read() for part in parts if part.week == week]
        events = between(_joined(own), week.start, min(week.end, as_of))
        outcomes = between(_outcomes(parts, week.plus(-1), as_of), 0, as_of)
        return {
            "impressions": with_outcomes(
                shown(events), of_kind(outcomes, CLICK), of_kind(outcomes, CONVERSION)
            ),
            "behaviours": conform(of_kind(events, BEHAVIOUR), schemas.BEHAVIOURS),
            "conversions": conform(of_kind(events, CONVERSION), schemas.CONVERSIONS),
            "ads": self._changed(
                self._files.read("ads", week, as_of), _changes(parts, week, as_of), week
            ),
            "users": self._files.read("users", week, as_of),
        }

    def weeks(self) -> list[Week]:
        """See Source.weeks: the complete ones that have their ads and users."""
        found = {part.week for part in event_lake.parts(self._lake)}
        return self._files.described(span(min(found), max(found).plus(-1)) if found else [])

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state: what was taken until then and in the week before, and the folder."""
        events = fingerprint.of_partitions(self._lake / event_lake.SOURCE, weeks, 1)
        return f"{events} {self._files.state_of(schemas.SNAPSHOTS, weeks)}"

    def _require(self, week: Week, parts: Sequence[Part]) -> None:
        weeks = sorted({part.week for part in parts})
        if weeks and weeks[0] <= week < weeks[-1]:
            return
        held = ", ".join(map(str, weeks[:-1])) or "none"
        place = self._lake / event_lake.SOURCE / event_lake.TABLE
        raise UnknownWeek(
            f"{place}: week {week} is not complete, or before the first event; complete: {held}"
        )


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([EVENTS.empty_table(), *tables])


def _changes(parts: Sequence[Part], week: Week, as_of: int) -> pa.Table:
    """Every change of the catalogue that was known by the end of a week."""
    tables = [part.changes() for part in parts if part.week <= week]
    found = pa.concat_tables([schemas.CHANGES.empty_table(), *tables])
    return between(found, 0, min(week.end, as_of))


def _outcomes(parts: Sequence[Part], first: Week, as_of: int) -> pa.Table:
    """Clicks and conversions known in a week or later, of the weeks that begin before `as_of`."""
    schema = pa.schema([EVENTS.field(name) for name in OUTCOME])
    # These columns alone: an outcome may come weeks after its impression, and reading those weeks
    # whole would cost as much as pulling them.
    tables = [
        lake.read_parquet(part.path, OUTCOME)
        for part in parts
        if part.week >= first and part.week.start < as_of
    ]
    return pa.concat_tables([schema.empty_table(), *tables])
