"""What is in somebody's own data: read and checked as the stages do it, and kept nowhere.

The rows are those that `ingest` would write and the rules those of `validate`; what is added is
counting. Everything is of the clean rows, except the rows that were set aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data.rules import Flags, micros, text_keys
from roiflow.data.sources.protocol import Source, Tables
from roiflow.data.validate import Checked, Example, checks, named
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.features.table import Floats, Longs
from roiflow.labels.delays import Curves, hours_between
from roiflow.params import ValidateParams


class OwnData(Source, Protocol):
    """A source of somebody's own rows, who may want to know which weeks a table has."""

    def held(self, table: str) -> list[Week]:
        """The weeks of a table that have rows of their own, oldest first."""
        ...


def window_there(week: Week, whole: Sequence[Week], length: int) -> list[Week]:
    """The whole weeks that end with `week` without a gap, at most `length`, oldest first."""
    there: list[Week] = []
    for one in reversed(week.window(length)):
        if one not in whole:
            break
        there.insert(0, one)
    return there


@dataclass
class Looked:
    """Rows (validate.Rows) straight from a source, in memory."""

    source: OwnData
    as_of: int
    _pulled: dict[Week, Tables] = field(default_factory=dict)

    def read(self, table: str, week: Week) -> pa.Table:
        """See validate.Rows."""
        # A pull brings all tables of a week, and they are asked for one by one.
        if week not in self._pulled:
            self._pulled[week] = self.source.pull(week, self.as_of)
        return self._pulled[week][table]

    def column(self, table: str, week: Week, name: str) -> pa.ChunkedArray | None:
        """See Rows."""
        rows = self.read(table, week)
        return rows[name] if name in rows.column_names else None

    def place(self, table: str, week: Week, row: int | None = None) -> str:
        """See Rows."""
        return named(self.source.name, table, week, self.read(table, week).schema, row)


@dataclass(frozen=True)
class SetAside:
    """Rows of one partition that broke one rule."""

    table: str
    week: Week
    reason: str
    rows: int
    first: Example
    place: str
    """Of the first, as its owner calls it."""


@dataclass(frozen=True)
class Span:
    """Times in microseconds, first and last included."""

    first: int
    last: int


@dataclass(frozen=True)
class Part:
    """One partition."""

    table: str
    week: Week
    rows: int
    bad: int
    refused: bool
    """More rows are bad than params.yaml allows."""
    event: Span | None
    """None without a clean row."""
    known: Span | None

    @property
    def spans(self) -> "tuple[Span | None, Span | None]":
        """When its rows happened and became known."""
        return self.event, self.known


@dataclass(frozen=True)
class Join:
    """Rows that should find another one and do not."""

    what: str
    missing: int
    of: int
    means: str


@dataclass(frozen=True)
class Day:
    """A day of the week by the time of its impressions; what they brought, as far as known."""

    start: int
    impressions: int
    logged: int
    """Impressions with a propensity."""
    clicks: int
    conversions: int
    to_come: float


@dataclass(frozen=True)
class Amounts:
    """Counts and sums over clean rows of the week, and of the weeks before it."""

    impressions: int
    clicks: int
    conversions: int
    cost: float
    revenue: float
    earlier_impressions: int
    earlier_clicks: int
    earlier_conversions: int
    slates: int
    """Whole ones of the week: every position from 1 on is there."""
    slates_logged: int
    """Of these with a propensity everywhere."""
    mean_propensity: float
    """At position 1 of those; 0 without any."""
    least_propensity: float


@dataclass(frozen=True)
class Facts:
    """All that `roiflow check` says in numbers."""

    week: Week
    parts: list[Part]
    aside: list[SetAside]
    joins: list[Join]
    days: list[Day]
    amounts: Amounts

    @property
    def refused(self) -> list[Part]:
        """Partitions that `validate` would end the run for."""
        return [part for part in self.parts if part.refused]


def look(rows: Looked, weeks: Sequence[Week], params: ValidateParams) -> Facts:
    """The window of `weeks`, whose last is the one that is asked about.

    Raises SourceError, or ContractError where a column is missing or of another type.
    """
    parts: list[Part] = []
    aside: list[SetAside] = []
    clean: dict[tuple[str, Week], pa.Table] = {}
    orphans = 0
    for checked in checks(rows, weeks, rows.as_of, params):
        parts.append(_part(checked, params.max_quarantined_fraction))
        aside += _aside(checked, rows)
        clean[checked.table, checked.week] = checked.clean
        if checked.week == weeks[-1]:
            orphans += checked.orphans
    log = _Log.of([clean["impressions", week] for week in weeks])
    sold = _Sold.of(log, [clean["conversions", week] for week in weeks])
    return Facts(
        week=weeks[-1],
        parts=parts,
        aside=aside,
        joins=_joins(clean, weeks, orphans),
        days=_days(log, sold, weeks[-1], rows.as_of),
        amounts=_amounts(log, sold, clean, weeks),
    )


def _part(checked: Checked, max_fraction: float) -> Part:
    bad = checked.quarantined.num_rows
    return Part(
        checked.table,
        checked.week,
        checked.rows,
        bad,
        bad > max_fraction * checked.rows,
        _span(checked.clean[c.EVENT_TIME]),
        _span(checked.clean[c.KNOWN_TIME]),
    )


def _span(column: pa.ChunkedArray) -> Span | None:
    times = micros(column)
    return Span(int(times.min()), int(times.max())) if times.size else None


def _aside(checked: Checked, rows: Looked) -> list[SetAside]:
    table, week, counts = checked.table, checked.week, checked.reasons
    return [
        SetAside(table, week, reason, counts[reason], first, rows.place(table, week, first.row))
        for reason, first in checked.examples.items()
    ]


@dataclass(frozen=True)
class _Log:
    """Clean impressions of the window."""

    key: Longs  # (n,) of impression_id
    time: Longs  # (n,) event_time, microseconds
    clicked: Flags  # (n,)
    logged: Flags  # (n,) with a propensity

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> "_Log":
        return cls(
            np.concatenate([text_keys(table[c.IMPRESSION]) for table in tables]),
            np.concatenate([micros(table[c.EVENT_TIME]) for table in tables]),
            np.concatenate([table[c.CLICKED].to_numpy() for table in tables]),
            np.concatenate([table[c.PROPENSITY].is_valid().to_numpy() for table in tables]),
        )


@dataclass(frozen=True)
class _Sold:
    """Conversions of the window's impressions; returns are none."""

    shown: Longs  # (n,) rows of the log
    delay: Longs  # (n,) from the impression until it was known, hours

    @classmethod
    def of(cls, log: _Log, tables: Sequence[pa.Table]) -> "_Sold":
        sales = [table.filter(pc.greater_equal(table[c.REVENUE], 0)) for table in tables]
        key = np.concatenate([text_keys(table[c.IMPRESSION]) for table in sales])
        known = np.concatenate([micros(table[c.KNOWN_TIME]) for table in sales])
        # The place of the nearest key from above, then whether it is the same one: beyond the last
        # it is the last, which is then another.
        order = np.argsort(log.key)
        place = np.minimum(np.searchsorted(log.key[order], key), max(log.key.size - 1, 0))
        shown = order[place] if log.key.size else place
        found = log.key[shown] == key if log.key.size else np.zeros(key.size, bool)
        shown = shown[found]
        return cls(shown, hours_between(log.time[shown], known[found]))


def _days(log: _Log, sold: _Sold, week: Week, as_of: int) -> list[Day]:
    """Conversions are expected of clicks; of impressions where no click is logged."""
    age = hours_between(log.time, as_of)
    base = log.clicked if log.clicked.any() else np.ones(log.time.size, bool)
    to_come = np.zeros(log.time.size)
    to_come[base] = still_to_come(sold.delay, age[sold.shown], age[base])
    days = []
    for start in range(week.start, week.end, MICROS_PER_DAY):
        here = (log.time >= start) & (log.time < start + MICROS_PER_DAY)
        days.append(
            Day(
                start,
                int(here.sum()),
                int(log.logged[here].sum()),
                int(log.clicked[here].sum()),
                int(here[sold.shown].sum()),
                float(to_come[here].sum()),
            )
        )
    return days


def still_to_come(delay: Longs, shown: Longs, age: Longs) -> Floats:
    """Conversions that each of n impressions (or clicks) may still bring.

    From delays (m,) of conversions and ages (m,) of their impressions, and the ages (n,) asked for;
    all in hours. All convert alike, at the rate conversions / (sum of what is known by each age).
    """
    one = np.zeros(delay.size, np.int32)
    # Asked for within an hour, it counts as over: no age may be as short as a delay that was seen.
    curves = Curves.of(delay, np.maximum(shown, delay + 1), one, one, (1, 1), 0.0)
    asked = np.zeros(age.size, np.int32)
    known = curves.known(asked, asked, age)
    total = float(known.sum())
    return (1.0 - known) * (delay.size / total if total else 0.0)


def _amounts(
    log: _Log,
    sold: _Sold,
    clean: dict[tuple[str, Week], pa.Table],
    weeks: Sequence[Week],
) -> Amounts:
    shown, converted = clean["impressions", weeks[-1]], clean["conversions", weeks[-1]]
    own = np.zeros(log.key.size, bool)
    # The log goes by week, and the one that is asked about is the last.
    own[log.key.size - shown.num_rows :] = True
    slates, logged, first = _slates(shown)
    return Amounts(
        impressions=int(own.sum()),
        clicks=int(log.clicked[own].sum()),
        conversions=int(own[sold.shown].sum()),
        # As floating point, which a sum of any week's micros stays within.
        cost=float(shown[c.COST].to_numpy().sum(dtype=np.float64)),
        revenue=float(converted[c.REVENUE].to_numpy().sum(dtype=np.float64)),
        earlier_impressions=int((~own).sum()),
        earlier_clicks=int(log.clicked[~own].sum()),
        earlier_conversions=int((~own)[sold.shown].sum()),
        slates=slates,
        slates_logged=logged,
        mean_propensity=float(first.mean()) if first.size else 0.0,
        least_propensity=float(pc.min(shown[c.PROPENSITY]).as_py() or 0.0),
    )


def _slates(shown: pa.Table) -> tuple[int, int, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Whole slates, those of them with all propensities, and these ones' at position 1."""
    position = shown[c.POSITION].to_numpy()
    propensity = pc.fill_null(shown[c.PROPENSITY], np.nan).to_numpy()
    request, at = np.unique(text_keys(shown[c.REQUEST]), return_inverse=True)
    size, last = np.bincount(at), np.zeros(request.size, np.int64)
    np.maximum.at(last, at, position)
    # No two rows share a position, so a slate of as many rows as its lowest position lacks none
    # above it.
    whole = size == last
    logged = whole & (np.bincount(at, weights=np.isnan(propensity)) == 0)
    top = (position == 1) & logged[at] if request.size else np.zeros(0, bool)
    return int(whole.sum()), int(logged.sum()), propensity[top]


def _joins(
    clean: dict[tuple[str, Week], pa.Table], weeks: Sequence[Week], orphans: int
) -> list[Join]:
    week = weeks[-1]
    shown, behaved = clean["impressions", week], clean["behaviours", week]
    users = clean["users", week][c.USER].combine_chunks()
    ads = clean["ads", week][c.AD].combine_chunks()

    def missing(rows: pa.Table, name: str, known: pa.Array) -> int:
        return rows.num_rows - int(pc.sum(pc.is_in(rows[name], value_set=known)).as_py() or 0)

    never = ads.filter(pc.invert(pc.is_in(ads, value_set=shown[c.AD].combine_chunks())))
    return [
        Join(
            "impressions whose user is not in users",
            missing(shown, c.USER, users),
            shown.num_rows,
            "they have no profile: is users a whole snapshot?",
        ),
        Join(
            "impressions whose ad is not in the week's ads",
            missing(shown, c.AD, ads),
            shown.num_rows,
            "only in those of the week before; in neither, they are set aside",
        ),
        Join(
            "behaviours whose user is not in users",
            missing(behaved, c.USER, users),
            behaved.num_rows,
            "as above",
        ),
        Join(
            "behaviours whose ad is not in ads",
            missing(behaved, c.AD, ads),
            behaved.num_rows,
            "they count for the user and the category, not for an ad",
        ),
        Join(
            "conversions without an impression of the window",
            orphans,
            clean["conversions", week].num_rows,
            "they are no label: their impression is older, was set aside, or has another id",
        ),
        Join(
            "ads that were not shown",
            len(never),
            len(ads),
            "they may be served, by what is known of their category and campaign",
        ),
    ]
