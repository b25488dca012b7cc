"""New rows of the contract's tables as changes of the online store's values.

A click or conversion counts for the user, ad and placement of its impression, at the later of both
known times. Whichever comes first is kept until the other is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features import kernels
from roiflow.features.counted import behaviour_kinds, counts_in_time, outcome_kinds
from roiflow.features.history import sort_rows
from roiflow.features.kernels import Kinds
from roiflow.features.plan import Plan
from roiflow.features.table import Ints, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.online import item_rows, spend
from roiflow.online.layout import NewRows

Value = bytes | None

_IMPRESSION = np.dtype(
    [
        ("known_time", "<i8"),
        ("ad", "<i4"),
        ("placement", "<i4"),
        ("click_cost", "<i8"),
        ("conversion_cost", "<i8"),
    ]
)
_WAITING = np.dtype([("known_time", "<i8"), ("revenue", "<i8"), ("kind", "<i8")])


def impression_heads(
    known_time: Longs,
    ad: Ints,
    placement: Ints,
    click_cost: Longs | int = 0,
    conversion_cost: Longs | int = 0,
) -> pa.BinaryArray:
    """The fixed part (n,) of impressions' values; the user id follows it.

    Without costs, as in a snapshot, later outcomes count and are charged to no budget.
    """
    heads = np.zeros(known_time.size, _IMPRESSION)
    heads["known_time"], heads["ad"], heads["placement"] = known_time, ad, placement
    heads["click_cost"], heads["conversion_cost"] = click_cost, conversion_cost
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_IMPRESSION.itemsize), heads.size, [None, pa.py_buffer(heads.tobytes())]
    )
    return fixed.cast(pa.binary())


@dataclass(frozen=True)
class Shown:
    """Impressions (n,) to which outcomes may belong."""

    user_ids: list[str]
    known_time: Longs
    ad: Ints
    placement: Ints
    cost: Longs  # micros at once, at the click, at each conversion
    click_cost: Longs
    conversion_cost: Longs

    def values(self) -> list[bytes]:
        """As the store keeps them, to be found by a later click or conversion."""
        heads = impression_heads(
            self.known_time, self.ad, self.placement, self.click_cost, self.conversion_cost
        ).to_pylist()
        return [head + name.encode() for head, name in zip(heads, self.user_ids, strict=True)]

    def cost_of(self, row: Longs, kind: Kinds) -> Longs:
        """Micros (m,) that outcomes of impressions `row` (m,) cost, by the bid of back then."""
        bought = np.where(kind == kernels.CONVERSION, self.conversion_cost[row], 0)
        return np.where(kind == kernels.CLICK, self.click_cost[row], bought)

    def with_stored(self, values: Sequence[bytes], sizes: Mapping[str, int]) -> "Shown":
        """Followed by impressions that the store has kept; ads and placements beyond `sizes` are 0.

        A newer run's snapshot may have been loaded for an older model.
        """
        width = _IMPRESSION.itemsize
        heads = np.frombuffer(b"".join(value[:width] for value in values), _IMPRESSION)
        return Shown(
            [*self.user_ids, *(value[width:].decode() for value in values)],
            np.concatenate([self.known_time, heads["known_time"]]),
            np.concatenate([self.ad, _within(heads["ad"], sizes["ad"])]),
            np.concatenate([self.placement, _within(heads["placement"], sizes["placement"])]),
            np.concatenate([self.cost, np.zeros(heads.size, np.int64)]),
            np.concatenate([self.click_cost, heads["click_cost"]]),
            np.concatenate([self.conversion_cost, heads["conversion_cost"]]),
        )


@dataclass(frozen=True)
class Outcomes:
    """Clicks, conversions and returns (n,)."""

    ids: list[str]  # of their impressions
    known_time: Longs
    revenue: Longs
    kind: Kinds


@dataclass(frozen=True)
class Changes:
    """What a batch changes, by user, by hour and day, and by impression."""

    user_ids: list[str]
    user: Ints  # (B,)
    profiled: Longs  # rows of users with a new profile
    profile: Ints  # (len(profiled), P)
    rows: NewRows
    hours: dict[str, Longs]
    days: dict[str, Longs]
    spent: dict[str, Longs]
    impressions: dict[str, bytes]
    waiting: dict[str, bytes]
    known: int  # the newest known_time, -1 without rows


@dataclass(frozen=True)
class Batch:
    """New rows of impressions, clicks, conversions, behaviours and users."""

    plan: Plan
    vocabulary: Vocabulary
    impression_ids: list[str]
    shown: Shown
    clicked: Kinds
    outcomes: Outcomes
    behaved: "_Table"
    users: "_Table"

    @classmethod
    def of(cls, plan: Plan, vocabulary: Vocabulary, tables: Mapping[str, pa.Table]) -> "Batch":
        """Tables of the contract; any may be absent."""
        shown, behaved, users = (
            _Table(tables.get(name)) for name in ("impressions", "behaviours", "users")
        )
        return cls(
            plan,
            vocabulary,
            shown.strings(c.IMPRESSION),
            Shown(
                shown.strings(c.USER),
                shown.numbers(c.KNOWN_TIME),
                shown.index(vocabulary, "ad", c.AD),
                shown.index(vocabulary, "placement", c.PLACEMENT),
                *shown.costs(),
            ),
            shown.clicked_at_once(),
            _outcomes(shown, _Table(tables.get("clicks")), _Table(tables.get("conversions"))),
            behaved,
            users,
        )

    @cached_property
    def _missing(self) -> list[str]:
        """Impressions of outcomes that are not in the batch."""
        here = set(self.impression_ids)
        return [name for name in dict.fromkeys(self.outcomes.ids) if name not in here]

    @cached_property
    def keys(self) -> list[str]:
        """What must be known of the store."""
        return [
            *(f"impression:{name}" for name in self._missing),
            *(f"waiting:{name}" for name in (*self._missing, *self.impression_ids)),
        ]

    def changes(self, found: Mapping[str, Value]) -> Changes:
        """`found` are the store's values of `keys`."""
        # An outcome needs its impression for user, ad and placement. Those of this batch are here,
        # older ones in the store, and for the rest the outcome waits under its impression's id: a
        # click may overtake its slate, for they come through different partitions.
        stored = {name: value for name in self._missing if (value := found[f"impression:{name}"])}
        shown = self.shown.with_stored(list(stored.values()), self.plan.sizes)
        row_of = {name: row for row, name in enumerate((*self.impression_ids, *stored))}
        outcomes = self._with_waiting(found)
        row = np.fromiter(
            (row_of.get(name, -1) for name in outcomes.ids), np.int64, len(outcomes.ids)
        )
        # Known once both are: before its impression nobody could tell whose click it was.
        known = np.maximum(outcomes.known_time, shown.known_time[row] if shown.user_ids else -1)
        there = np.flatnonzero(row >= 0)
        counted = there[
            counts_in_time(outcomes.kind[there], known[there], shown.known_time[row[there]])
        ]
        return self._changes(
            shown,
            row[counted],
            known[counted],
            outcomes.kind[counted],
            outcomes.revenue[counted],
            self._waiting(found, outcomes, np.flatnonzero(row < 0)),
        )

    def _with_waiting(self, found: Mapping[str, Value]) -> Outcomes:
        """The batch's outcomes and those that waited for its impressions."""
        own, names, parts = self.outcomes, [*self.outcomes.ids], []
        for name in self.impression_ids:
            rows = np.frombuffer(found[f"waiting:{name}"] or b"", _WAITING)
            if rows.size:
                names += [name] * rows.size
                parts.append(rows)
        rows = np.concatenate([np.empty(0, _WAITING), *parts])
        return Outcomes(
            names,
            np.concatenate([own.known_time, rows["known_time"]]),
            np.concatenate([own.revenue, rows["revenue"]]),
            np.concatenate([own.kind, rows["kind"].astype(np.uint8)]),
        )

    def _waiting(
        self, found: Mapping[str, Value], outcomes: Outcomes, alone: Longs
    ) -> dict[str, bytes]:
        """Outcomes without an impression, kept; those of the batch's impressions, done."""
        # Emptied and not deleted: a commit has only SET, and empty values expire like all others.
        waiting = {
            key: b"" for key in (f"waiting:{name}" for name in self.impression_ids) if found[key]
        }
        rows = np.zeros(1, _WAITING)
        for at in alone.tolist():
            key = f"waiting:{outcomes.ids[at]}"
            rows["known_time"], rows["revenue"] = outcomes.known_time[at], outcomes.revenue[at]
            rows["kind"] = outcomes.kind[at]
            waiting[key] = waiting.get(key, found[key] or b"") + rows.tobytes()
        return waiting

    def _changes(
        self,
        shown: Shown,
        row: Longs,
        known: Longs,
        kind: Kinds,
        revenue: Longs,
        waiting: dict[str, bytes],
    ) -> Changes:
        plan, vocabulary, behaved, users = self.plan, self.vocabulary, self.behaved, self.users
        mine = len(self.impression_ids)
        behaved_known = behaved.numbers(c.KNOWN_TIME)
        behaved_ad = behaved.index(vocabulary, "ad", c.AD)
        behaved_category = behaved.index(vocabulary, "category", c.CATEGORY)
        behaved_action = behaved.index(vocabulary, "action", c.ACTION)
        user_ids = users.strings(c.USER)
        # Users are numbered by their first appearance and not by the vocabulary, which does not
        # know those who are new and are all 0 in it: each keeps the rows that are theirs.
        codes = _Codes()
        shown_code = codes.of(shown.user_ids)[np.concatenate([np.arange(mine), row])]
        behaved_code, users_code = codes.of(behaved.strings(c.USER)), codes.of(user_ids)
        ad = np.concatenate([shown.ad[:mine], shown.ad[row]])
        placement = np.concatenate([shown.placement[:mine], shown.placement[row]])
        item_known = np.concatenate([shown.known_time[:mine], known])
        item_kind = np.concatenate([self.clicked, kind])
        cost = np.concatenate([shown.cost[:mine], shown.cost_of(row, kind)])
        hours, days = item_rows.by_hour_and_day(
            (item_known // MICROS_PER_HOUR).astype(np.int32),
            item_rows.counted(
                ad, placement, item_kind, np.concatenate([np.zeros(mine, np.int64), revenue])
            ),
        )
        every_known = np.concatenate([item_known, behaved_known])
        lookup = vocabulary.lookup("user")
        names = list(codes.code_of)
        return Changes(
            user_ids=names,
            user=np.fromiter((lookup.get(name, 0) for name in names), np.int32, len(names)),
            profiled=users_code.astype(np.int64),
            profile=np.column_stack(
                [
                    np.empty((len(user_ids), 0), np.int32),
                    *(users.index(vocabulary, f"profile:{n}", n) for n in plan.profile_names),
                ]
            ).astype(np.int32),
            rows=_new_rows(
                len(names),
                (
                    behaved_code,
                    behaved_known,
                    behaved.numbers(c.EVENT_TIME),
                    behaved_ad,
                    behaved_category,
                    behaved_action,
                ),
                (
                    np.concatenate([shown_code, behaved_code]),
                    every_known,
                    np.concatenate([ad, behaved_ad]),
                    np.concatenate([plan.attributes[ad, kernels.CATEGORY], behaved_category]),
                    np.concatenate([item_kind, behaviour_kinds(vocabulary, behaved_action)]),
                ),
            ),
            hours=hours,
            days=days,
            spent=spend.by_hour(item_known // MICROS_PER_HOUR, ad, cost),
            impressions={
                f"impression:{name}": value
                for name, value in zip(self.impression_ids, self.shown.values(), strict=True)
            },
            waiting=waiting,
            known=int(
                max(
                    times.max(initial=-1)
                    for times in (
                        every_known,
                        self.outcomes.known_time,
                        users.numbers(c.KNOWN_TIME),
                    )
                )
            ),
        )


def _within(indices: Ints, size: int) -> Ints:
    return np.where(indices < size, indices, 0).astype(np.int32)


class _Codes:
    """Numbers of user ids in the order of their first appearance."""

    def __init__(self) -> None:
        self.code_of: dict[str, int] = {}

    def of(self, names: Sequence[str]) -> Ints:
        """Names (n,) -> numbers (n,)."""
        codes = self.code_of
        return np.fromiter(
            (codes.setdefault(name, len(codes)) for name in names), np.int32, len(names)
        )


def _outcomes(shown: "_Table", clicks: "_Table", conversions: "_Table") -> Outcomes:
    """Clicks with a time of their own, further clicks, and conversions."""
    apart, click_known = shown.clicks_apart()
    revenue = conversions.numbers(c.REVENUE)
    known = [click_known, clicks.numbers(c.KNOWN_TIME), conversions.numbers(c.KNOWN_TIME)]
    clicked = known[0].size + known[1].size
    return Outcomes(
        [*apart, *clicks.strings(c.IMPRESSION), *conversions.strings(c.IMPRESSION)],
        np.concatenate(known),
        np.concatenate([np.zeros(clicked, np.int64), revenue]),
        np.concatenate([np.full(clicked, kernels.CLICK, np.uint8), outcome_kinds(revenue)]),
    )


def _new_rows(users: int, behaved: tuple[Any, ...], counted: tuple[Any, ...]) -> NewRows:
    code, known, event_time, ad, category, action = behaved
    order, offsets = sort_rows(code, users, known, event_time, ad, action, category)
    by_user, counted_offsets = sort_rows(counted[0], users, counted[1])
    day = (counted[1] // MICROS_PER_DAY).astype(np.int32)
    return NewRows(
        offsets,
        ad[order],
        category[order],
        action[order],
        event_time[order],
        counted_offsets,
        day[by_user],
        *(values[by_user] for values in counted[2:]),
    )


@dataclass(frozen=True)
class _Table:
    """A table of new rows, or none."""

    table: pa.Table | None

    def _column(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array([], pa.string()) if self.table is None else self.table[name]

    def strings(self, name: str) -> list[str]:
        return self._column(name).to_pylist()

    def index(self, vocabulary: Vocabulary, kind: str, name: str) -> Ints:
        return vocabulary.index(kind, self._column(name))

    def numbers(self, name: str) -> Longs:
        """Times in microseconds, money in micros, flags as 0 and 1."""
        if self.table is None:
            return np.empty(0, np.int64)
        column = self.table[name]
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        return np.asarray(column.cast(pa.int64()))

    def costs(self) -> tuple[Longs, Longs, Longs]:
        """Micros (n,) of impressions: at once, at the click, at each conversion.

        Where the table says what it came to in the end, all of it is due with a click that has a
        time of its own, else at once.
        """
        cost = self.numbers(c.COST)
        if self.table is not None and c.CLICK_COST in self.table.column_names:
            return cost, self.numbers(c.CLICK_COST), self.numbers(c.CONVERSION_COST)
        later = np.zeros(cost.size, np.bool_)
        if self.table is not None and c.CLICK_KNOWN_TIME in self.table.column_names:
            later = self.table[c.CLICK_KNOWN_TIME].is_valid().to_numpy()
        return np.where(later, 0, cost), np.where(later, cost, 0), np.zeros(cost.size, np.int64)

    def clicked_at_once(self) -> Kinds:
        """Kinds (n,) of impressions: a click with a time of its own is another row."""
        flags = self.numbers(c.CLICKED).astype(np.uint8)
        if self.table is not None and c.CLICK_KNOWN_TIME in self.table.column_names:
            flags[self.table[c.CLICK_KNOWN_TIME].is_valid().to_numpy()] = 0
        return flags

    def clicks_apart(self) -> tuple[list[str], Longs]:
        """Impressions whose click has a time of its own, and those times."""
        if self.table is None or c.CLICK_KNOWN_TIME not in self.table.column_names:
            return [], np.empty(0, np.int64)
        rows = self.table.filter(self.table[c.CLICK_KNOWN_TIME].is_valid())
        return rows[c.IMPRESSION].to_pylist(), np.asarray(rows[c.CLICK_KNOWN_TIME].cast(pa.int64()))
