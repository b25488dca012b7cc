"""What each ad had in one hour or day of known_time, as the online store keeps it.

A row is an ad in a placement with its impressions, clicks, conversions and revenue (micros): 28
bytes in the store, six 64-bit columns in memory.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features import kernels
from roiflow.features.kernels import low_hour
from roiflow.features.spec import FINE_HOURS
from roiflow.features.table import Ints, Longs

_COLUMNS = ("ad", "placement", "impressions", "clicks", "conversions", "revenue")
_STORED = np.dtype([(name, "<i4") for name in _COLUMNS[:-1]] + [("revenue", "<i8")])

Period = tuple[str, int, int]
"""Key in the store, first hour since the epoch, number of hours."""


def periods(hour: int, max_days: int) -> list[Period]:
    """The closed periods that windows at a time in `hour` are made of."""
    today = hour // 24
    first = min(hour - FINE_HOURS, 24 * today)
    days = [(f"day:{day}", 24 * day, 24) for day in range(today - max_days, today)]
    return [*days, *((f"hour:{past}", past, 1) for past in range(first, hour))]


def windows(lengths: Longs, hour: int, start: int, hours: int) -> NDArray[np.bool_]:
    """Which windows (w,) of a request in `hour` add up the period that begins at `start`.

    Windows of at most a day are made of hours; longer ones of days, and of the hours of today.
    """
    inside = np.array([start >= low_hour(hour, length) for length in lengths.tolist()], np.bool_)
    fine = lengths <= FINE_HOURS
    if hours == 24:
        return inside & ~fine
    return inside & (fine | (start >= hour // 24 * 24))


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
    return write(_summed(np.concatenate([read(value), rows])))


def _summed(rows: Longs) -> Longs:
    """Rows with equal ad and placement as one."""
    code = (rows[:, 0] << 32) | rows[:, 1]
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    summed = rows[first].copy()
    summed[:, 2:] = 0
    np.add.at(summed[:, 2:], place, rows[:, 2:])
    return summed


def by_period(
    length: int, hour: Longs, ad: Ints, placement: Ints, kind: Any, revenue: Longs
) -> Mapping[int, Longs]:
    """Counted rows (m,) -> rows (m', 6) of each period of `length` hours, by its number."""
    rows = np.zeros((ad.size, 6), np.int64)
    rows[:, 0], rows[:, 1], rows[:, 5] = ad, placement, revenue
    rows[:, 2] = kind <= kernels.CLICKED_IMPRESSION
    rows[:, 3] = (kind == kernels.CLICKED_IMPRESSION) | (kind == kernels.CLICK)
    rows[:, 4] = kind == kernels.CONVERSION
    period = hour // length
    order = np.argsort(period, kind="stable")
    names, starts = np.unique(period[order], return_index=True)
    parts = np.split(rows[order], starts[1:]) if names.size else []
    return {int(name): _summed(part) for name, part in zip(names, parts, strict=True)}


def by_hour_and_day(
    known_time: Longs, ad: Ints, placement: Ints, kind: Any, revenue: Longs
) -> tuple[dict[str, Longs], dict[str, Longs]]:
    """Counted rows (m,) -> rows by hour key and by day key."""
    hour = known_time // MICROS_PER_HOUR
    hours, days = (by_period(length, hour, ad, placement, kind, revenue) for length in (1, 24))
    return (
        {f"hour:{number}": rows for number, rows in hours.items()},
        {f"day:{number}": rows for number, rows in days.items()},
    )
