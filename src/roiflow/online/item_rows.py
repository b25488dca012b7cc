"""What each ad had in one hour or day of known_time, as the online store keeps it.

A row is an ad in a placement with its impressions, clicks, conversions and revenue (micros): 28
bytes in the store, six 64-bit columns in memory.
"""

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features import kernels
from roiflow.features.kernels import LARGEST_SUM, Kinds, low_hour
from roiflow.features.table import Floats, Ints, Longs

_COLUMNS = ("ad", "placement", "impressions", "clicks", "conversions", "revenue")
_STORED = np.dtype([(name, "<i4") for name in _COLUMNS[:-1]] + [("revenue", "<i8")])

Period = tuple[str, int, int]
"""Key in the store, first hour since the epoch, number of hours."""


def periods(hour: int, max_days: int) -> list[Period]:
    """The closed periods that windows at a time in `hour` are made of."""
    # Days, and for today, which has no day yet, its hours: a month is 28 values and not 672.
    today = hour // 24
    days = [(f"day:{day}", 24 * day, 24) for day in range(today - max_days, today)]
    return [*days, *((f"hour:{past}", past, 1) for past in range(24 * today, hour))]


def windows(days: Longs, hour: int, start: int) -> NDArray[np.bool_]:
    """Which windows (w,) of a request in `hour` add up the period that begins at `start`."""
    return np.array([start >= low_hour(hour, length) for length in days.tolist()], np.bool_)


def read(value: bytes | None) -> Longs:
    """Rows (m, 6)."""
    stored = np.frombuffer(value or b"", _STORED)
    return np.column_stack([stored[name].astype(np.int64) for name in _COLUMNS])


def write(rows: Longs) -> bytes:
    """Rows (m, 6) -> value."""
    stored = np.empty(rows.shape[0], _STORED)
    for column, name in enumerate(_COLUMNS):
        stored[name] = rows[:, column]
    return stored.tobytes()


def add(value: bytes | None, rows: Longs) -> bytes:
    """Value with further rows (m, 6) in it."""
    every = np.concatenate([read(value), rows])
    return write(summed(np.zeros(every.shape[0], np.int32), every)[1])


def summed(period: Ints, rows: Longs) -> tuple[Ints, Longs]:
    """Rows (m, 6) with equal period, ad and placement as one; ordered by these."""
    if not period.size:
        return period, rows
    # One number for the three keys, so that one column is sorted and compared. What is in order
    # already, as one period's rows are, is not sorted again.
    widths = rows[:, :2].max(axis=0) + 1
    code = (period * widths[0] + rows[:, 0]) * widths[1] + rows[:, 1]
    if (code[1:] <= code[:-1]).any():
        order = np.argsort(code, kind="stable")
        code, period, rows = code[order], period[order], rows[order]
    first = np.flatnonzero(np.concatenate([[True], code[1:] != code[:-1]]))
    total = np.add.reduceat(rows, first, axis=0)
    total[:, :2] = rows[first, :2]
    # Money may leave 64 bits; a sum in floating point, exact enough to tell, says where it did.
    total[:, 5] = _bounded(total[:, 5], np.add.reduceat(rows[:, 5].astype(np.float64), first))
    return period[first], total


def _bounded(exact: Longs, rough: Floats) -> Longs:
    """Sums (m,) of money, of which some may have wrapped; those beyond LARGEST_SUM stay there."""
    beyond = np.where(rough > 0, LARGEST_SUM, -LARGEST_SUM)
    return np.where(np.abs(rough) < LARGEST_SUM, exact, beyond)


def counted(ad: Ints, placement: Ints, kind: Kinds, revenue: Longs) -> Longs:
    """Counted rows (m,) -> rows (m, 6)."""
    rows = np.empty((ad.size, 6), np.int64)
    rows[:, 0], rows[:, 1], rows[:, 5] = ad, placement, revenue
    rows[:, 2] = kind <= kernels.CLICKED_IMPRESSION
    rows[:, 3] = (kind == kernels.CLICKED_IMPRESSION) | (kind == kernels.CLICK)
    rows[:, 4] = kind == kernels.CONVERSION
    return rows


class ItemCounter:
    """Adds up counted rows by hour, ad and placement as they come."""

    def __init__(self, ads: int, placements: int) -> None:
        self._widths = ads, placements
        self._slots = np.full(1 << 12, -1, np.int32)
        self._codes = np.empty(0, np.int64)
        self._counts = np.empty((0, kernels.ITEM_COUNTS), np.int64)
        self._used = 0

    def add(
        self, known_time: Longs, ad: Ints, placement: Ints, kind: Kinds, revenue: Longs
    ) -> None:
        """Counted rows (m,)."""
        # A hash table, because an hour's rows of one ad come a few at a time out of many users'
        # ranges: to keep the rows and sort them at the end would hold the whole window in memory.
        self._make_room(self._used + ad.size)
        code = known_time // MICROS_PER_HOUR
        code = (code * self._widths[0] + ad) * self._widths[1] + placement
        self._used = kernels.item_upsert(
            code, kind, revenue, self._slots, self._codes, self._counts, self._used
        )

    def _make_room(self, rows: int) -> None:
        if rows > self._codes.size:
            more = max(rows, self._codes.size * 5 // 4) - self._codes.size
            fresh = np.empty((more, kernels.ITEM_COUNTS), np.int64)
            self._codes = np.concatenate([self._codes, np.empty(more, np.int64)])
            self._counts = np.concatenate([self._counts, fresh])
        if 4 * rows > 3 * self._slots.size:
            self._slots = np.full(2 * self._slots.size, -1, np.int32)
            while 4 * rows > 3 * self._slots.size:
                self._slots = np.full(2 * self._slots.size, -1, np.int32)
            kernels.item_seat(self._codes, self._used, self._slots)

    def rows(self) -> tuple[Ints, Longs]:
        """Hours (m,) and rows (m, 6), ordered by hour, ad and placement."""
        order = np.argsort(self._codes[: self._used])
        code, (ads, placements) = self._codes[order], self._widths
        rows = np.empty((order.size, 6), np.int64)
        rows[:, 0], rows[:, 1] = code // placements % ads, code % placements
        rows[:, 2:] = self._counts[order]
        return (code // placements // ads).astype(np.int32), rows


def by_hour_and_day(hour: Ints, rows: Longs) -> tuple[dict[str, Longs], dict[str, Longs]]:
    """Rows (m, 6) of hours (m,) -> rows by hour key and by day key."""
    return (_by("hour", hour, rows), _by("day", hour // 24, rows))


def _by(name: str, period: Ints, rows: Longs) -> dict[str, Longs]:
    period, rows = summed(period, rows)
    names, starts = np.unique(period, return_index=True)
    parts = np.split(rows, starts[1:]) if names.size else []
    return {f"{name}:{n}": part for n, part in zip(names.tolist(), parts, strict=True)}
