"""What happened in the ad world, as the tables of the data contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.compiled import compiled
from roiflow.data.schemas import ADS, BEHAVIOURS, CONVERSIONS, IMPRESSIONS, TIME, USERS
from roiflow.data.weeks import Week
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.population import Ints, Names, WorldRequests
from roiflow.simulator.response import Outcome
from roiflow.simulator.world import World

Bytes = NDArray[np.uint8]
NUMBER_DIGITS = 10


@dataclass(frozen=True)
class By:
    """Who filled slates (B,)."""

    arms: tuple[tuple[str, str], ...]
    """Arm and policy version."""
    number: Ints  # (B,) into `arms`

    @classmethod
    def one(cls, arm: str, policy_version: str, requests: int) -> "By":
        """All of them by the same."""
        return cls(((arm, policy_version),), np.zeros(requests, np.int32))


@dataclass(frozen=True)
class Shown:
    """Slates (B, S) that were shown, and what came of them."""

    requests: WorldRequests
    slates: Ints
    propensity: Floats
    outcome: Outcome
    by: By


def joined(parts: Sequence[Shown]) -> Shown:
    """Chunks in time order as one. Raises ValueError where there is none."""
    outcomes = [part.outcome for part in parts]
    # Conversions are numbered by cell and returns by conversion, both from 0 in every chunk.
    cells = np.cumsum([0, *(part.slates.size for part in parts)])
    sold = np.cumsum([0, *(one.converted.size for one in outcomes)])
    converted = [one.converted + at for one, at in zip(outcomes, cells, strict=False)]
    returned = [one.returned + at for one, at in zip(outcomes, sold, strict=False)]
    return Shown(
        _concatenated([part.requests for part in parts]),
        np.concatenate([part.slates for part in parts]),
        np.concatenate([part.propensity for part in parts]),
        replace(
            _concatenated(outcomes),
            converted=np.concatenate(converted),
            returned=np.concatenate(returned),
        ),
        # A chooser has the same arms all week.
        By(parts[0].by.arms, np.concatenate([part.by.number for part in parts])),
    )


Arrays = TypeVar("Arrays", WorldRequests, Outcome)


def _concatenated(parts: Sequence[Arrays]) -> Arrays:
    names = [field.name for field in fields(parts[0])]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return type(parts[0])(*columns)


class WorldTables:
    """Tables of one week of one world.

    Columns of names are plain strings, or where `compact` dictionary-encoded, which is what Parquet
    writes fastest.
    """

    def __init__(self, world: World, week: Week, *, compact: bool = False) -> None:
        self._world, self._week, self._compact = world, week, compact
        self._catalogue = world.ads(week)

    def of(self, shown: Shown) -> dict[str, pa.Table]:
        """Impressions and conversions."""
        return {
            "impressions": self.impressions(shown),
            "conversions": self.conversions(shown),
        }

    def impressions(self, shown: Shown) -> pa.Table:
        """One row per ad shown, in the order of requests and positions."""
        requests, ad = shown.requests, shown.slates.ravel()
        count, slots = shown.slates.shape
        every = np.repeat(np.arange(count, dtype=np.int32), slots)
        time = requests.event_time[every]
        arms, versions = zip(*shown.by.arms, strict=True)
        by = shown.by.number[every]
        return self._table(
            {
                c.EVENT_TIME: time,
                c.KNOWN_TIME: self._world.known_time(requests.event_time)[every],
                c.REQUEST: request_ids(self._week, requests.number, slots),
                c.IMPRESSION: impression_ids(self._week, requests.number, slots),
                c.USER: self._names(self._users, requests.user_index[every]),
                c.AD: self._names(self._ads, ad),
                c.POSITION: np.tile(np.arange(1, slots + 1, dtype=np.int32), count),
                c.SLATE_SIZE: np.full(ad.size, slots, dtype=np.int32),
                c.PLACEMENT: self._names(people.PLACEMENTS, requests.placement_index[every]),
                c.DEVICE: self._names(people.DEVICES, requests.device_index[every]),
                c.BID: self._catalogue.bid[ad],
                c.COST: shown.outcome.cost.ravel(),
                c.PROPENSITY: shown.propensity.ravel(),
                c.POLICY_VERSION: self._names(versions, by),
                c.ARM: self._names(arms, by),
                c.CLICKED: shown.outcome.clicked.ravel(),
                c.CLICK_KNOWN_TIME: pa.nulls(ad.size, TIME),
            },
            IMPRESSIONS,
        )

    def conversions(self, shown: Shown) -> pa.Table:
        """One row per conversion, in the order of the impressions, then one per return."""
        outcome, slots = shown.outcome, shown.slates.shape[1]
        row = outcome.converted // slots
        time = shown.requests.event_time[row] + outcome.delay
        back = outcome.returned
        time = np.concatenate([time, time[back] + outcome.kept])
        cell = np.concatenate([outcome.converted, outcome.converted[back]])
        return self._table(
            {
                c.EVENT_TIME: time,
                c.KNOWN_TIME: self._world.known_time(time),
                c.IMPRESSION: _cell_ids(self._week, shown.requests.number, cell, slots),
                c.REVENUE: np.concatenate([outcome.revenue, -outcome.revenue[back]]),
            },
            CONVERSIONS,
        )

    def behaviours(self, part: slice = slice(None)) -> pa.Table:
        """Behaviours that happened in the week, or some of them."""
        rows = self._world.behaviours(self._week).take(part)
        return self._table(
            {
                c.EVENT_TIME: rows.event_time,
                c.KNOWN_TIME: self._world.known_time(rows.event_time),
                c.USER: self._names(self._users, rows.user),
                c.AD: self._names(self._ads, rows.ad),
                c.CATEGORY: self._names(
                    self._world.population.categories, self._catalogue.category[rows.ad]
                ),
                c.ACTION: self._names(people.ACTIONS, rows.action),
                c.DWELL_MS: rows.dwell_ms,
            },
            BEHAVIOURS,
        )

    def ads(self) -> pa.Table:
        """The week's catalogue: the ads that may be shown in it, known when they come.

        An ad is booked with its end, so that an end in the week is known with the ad.
        """
        ads, week = self._catalogue, self._week
        here = np.flatnonzero((ads.first < week.end) & (week.start < ads.last))
        start = np.maximum(ads.first[here], week.start)
        here, start = here[np.argsort(start, kind="stable")], np.sort(start)
        budget, end = ads.budget[here], ads.last[here]
        return _table(
            {
                c.EVENT_TIME: start,
                c.KNOWN_TIME: start,
                c.AD: ads.ids[here],
                c.CAMPAIGN: ads.campaign[here],
                c.ADVERTISER: ads.advertiser[here],
                c.CATEGORY: self._world.population.categories[ads.category[here]],
                c.BRAND: ads.brand[here],
                c.AD_TYPE: np.array(people.AD_TYPES)[ads.ad_type[here]],
                c.PRICE: ads.price[here],
                c.BID: ads.bid[here],
                c.DAILY_BUDGET: pa.array(budget, mask=budget == 0),
                c.CREATED_AT: ads.created_at[here],
                c.ENDS_AT: pa.array(end, mask=end >= week.end).cast(TIME),
            },
            ADS,
        )

    def users(self) -> pa.Table:
        """Users who are there in the week, with their profile."""
        here, profile = self._world.population.users(self._week)
        start = np.full(here.size, self._week.start)
        schema = USERS
        for name in profile:
            schema = schema.append(pa.field(name, pa.string(), False))
        known = {c.EVENT_TIME: start, c.KNOWN_TIME: start, c.USER: self._world.user_ids[here]}
        return _table(known | profile, schema)

    @cached_property
    def _users(self) -> pa.Array:
        return pa.array(self._world.user_ids)

    @cached_property
    def _ads(self) -> pa.Array:
        return pa.array(self._catalogue.ids)

    def _names(self, values: pa.Array | Sequence[str] | Names, rows: Ints) -> pa.Array:
        if not isinstance(values, pa.Array):
            values = pa.array(values)
        if self._compact:
            # The rows are the indices already: no string is made.
            return pa.DictionaryArray.from_arrays(pa.array(rows), values)
        return values.take(pa.array(rows))

    def _table(self, values: Mapping[str, object], schema: pa.Schema) -> pa.Table:
        return _table(values, schema)


def request_ids(week: Week, numbers: Longs, slots: int) -> pa.Array:
    """`2026-W04-0000000012` and so on, each `slots` times (n * slots,)."""
    return _ids(week, numbers, np.arange(numbers.size * slots), slots, position=False)


def impression_ids(week: Week, numbers: Longs, slots: int) -> pa.Array:
    """`2026-W04-0000000012-1` and so on, position by position (n * slots,)."""
    return _cell_ids(week, numbers, np.arange(numbers.size * slots), slots)


def _cell_ids(week: Week, numbers: Longs, cells: Longs, slots: int) -> pa.Array:
    """Impression ids of cells (m,) of slates (n, slots)."""
    return _ids(week, numbers, cells, slots, position=True)


def _ids(week: Week, numbers: Longs, cells: Longs, slots: int, *, position: bool) -> pa.Array:
    head = np.frombuffer(f"{week}-".encode(), dtype=np.uint8)
    tail = len(str(slots)) if position else 0
    characters = _write_ids(head, numbers, cells, slots, NUMBER_DIGITS, tail)
    count, width = characters.shape
    # All ids of a call are of one width, so the offsets follow and Arrow takes the characters as
    # they are.
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(characters)]
    return pa.Array.from_buffers(pa.string(), count, buffers)


@compiled(nogil=True)
def _write_ids(
    head: Bytes, numbers: Longs, cells: Longs, slots: int, digits: int, tail: int
) -> Bytes:
    """ASCII characters (m, width) of the ids, without a Python object each."""
    width = head.size + digits + (tail + 1 if tail else 0)
    out = np.empty((cells.size, width), np.uint8)
    for row in range(cells.size):
        for at in range(head.size):
            out[row, at] = head[at]
        rest = numbers[cells[row] // slots]
        for at in range(head.size + digits - 1, head.size - 1, -1):
            out[row, at] = 48 + rest % 10
            rest //= 10
        if tail:
            out[row, head.size + digits] = 45
            rest = cells[row] % slots + 1
            for at in range(width - 1, width - 1 - tail, -1):
                out[row, at] = 48 + rest % 10
                rest //= 10
    return out


def _table(values: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    """Columns in the schema's order; names may be dictionary-encoded, numbers are of its types."""
    arrays, kept = [], []
    rows = max(len(value) for value in values.values())  # type: ignore[arg-type]
    for field in schema:
        column = values[field.name]
        if isinstance(column, np.ndarray):
            column = pa.array(column)
            if field.type == TIME:
                column = column.cast(pa.int64()).view(TIME)
        if len(column) != rows:  # type: ignore[arg-type]
            raise ValueError(field.name)
        arrays.append(column)
        # The schema's name and nullability, with the type as it is: a dictionary stays one.
        kept.append(field.with_type(column.type))  # type: ignore[attr-defined]
    return pa.table(arrays, schema=pa.schema(kept))
