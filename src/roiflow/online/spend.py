"""What ads were charged in one hour of known_time, as the online store keeps it.

A row is an ad with its micros: 12 bytes in the store. Budgets hold for a day and are looked at
every hour (catalogue/eligibility.py), so a request adds up the closed hours of its day.
"""

import numpy as np

from roiflow.features.table import Ints, Longs

_STORED = np.dtype([("ad", "<i4"), ("micros", "<i8")])


def keys(hour: int) -> list[str]:
    """The closed hours of the day of an hour since the epoch."""
    return [f"spend:{past}" for past in range(hour // 24 * 24, hour)]


def read(value: bytes | None) -> Longs:
    """Rows (m, 2): ad and micros."""
    stored = np.frombuffer(value or b"", _STORED)
    return np.column_stack([stored["ad"].astype(np.int64), stored["micros"]])


def add(value: bytes | None, rows: Longs) -> bytes:
    """Value with further rows (m, 2) in it, one an ad."""
    every = np.concatenate([read(value), rows])
    ad, place = np.unique(every[:, 0], return_inverse=True)
    stored = np.zeros(ad.size, _STORED)
    stored["ad"] = ad
    np.add.at(stored["micros"], place, every[:, 1])
    return stored.tobytes()


def by_hour(hour: Longs, ad: Ints, cost: Longs) -> dict[str, Longs]:
    """Charges (n,) -> rows by key; what costs nothing is left out."""
    paid = np.flatnonzero(cost)
    rows = np.column_stack([ad[paid].astype(np.int64), cost[paid]])
    hours = hour[paid]
    return {f"spend:{one}": rows[hours == one] for one in np.unique(hours).tolist()}


def summed(values: list[Longs], ads: int) -> Longs:
    """Micros (ads,) of some hours' rows; an ad without a row has no budget to be held to."""
    spent = np.zeros(ads, np.int64)
    for rows in values:
        there = rows[rows[:, 0] < ads]
        np.add.at(spent, there[:, 0], there[:, 1])
    return spent
