"""Which ads could be shown at the requests of the log, found again from the log itself.

What an ad had spent of its day's budget is the sum of its impressions' costs up to the hour's
start, and what it may spend by then is the pacing's: the same function of both that serving asks
(catalogue/eligibility.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from roiflow.catalogue.eligibility import UNLIMITED, Pacing, Terms, eligible
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.features.rows import Rows
from roiflow.features.table import Flags, Ints, Longs

HOURS = 7 * 24
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Spend:
    """What ads were charged, hour by hour."""

    code: Longs  # (m,) hour since the epoch times ads plus ad, ascending
    cost: Longs  # (m,) micros, over 0
    ads: int

    @classmethod
    def of(cls, parts: "Iterable[Spend]", ads: int) -> "Spend":
        """Several as one."""
        some = [cls(np.zeros(0, np.int64), np.zeros(0, np.int64), ads), *parts]
        codes, cost = (
            np.concatenate([getattr(one, name) for one in some]) for name in ("code", "cost")
        )
        code, place = np.unique(codes, return_inverse=True)
        total = np.zeros(code.size, np.int64)
        np.add.at(total, place, cost)
        return cls(code, total, ads)

    @classmethod
    def of_rows(cls, rows: Rows, ads: int) -> "Spend":
        """Of some impressions; ads out of vocabulary share a row and have none."""
        paid = (rows.cost > 0) & (rows.ad > 0)
        code = rows.event_time[paid] // MICROS_PER_HOUR * ads + rows.ad[paid]
        return cls.of([cls(code, rows.cost[paid], ads)], ads)

    def by_hour(self, week: Week) -> Longs:
        """Micros (HOURS, ads) spent in each hour of a week."""
        first = week.start // MICROS_PER_HOUR
        start, end = np.searchsorted(
            self.code, [first * self.ads, (first + HOURS) * self.ads]
        ).tolist()
        spent = np.zeros(HOURS * self.ads, np.int64)
        spent[self.code[start:end] - first * self.ads] = self.cost[start:end]
        return spent.reshape(HOURS, self.ads)


def solvent(week: Week, ad: Ints, budget: Longs, spend: Spend, pacing: Pacing) -> Flags:
    """Which ads (a,) enter each hour of a week with money left (HOURS, a)."""
    limited = budget != UNLIMITED
    if not limited.any():
        return np.ones((1, ad.size), np.bool_)
    always = Terms(np.zeros(ad.size, np.int64), np.full(ad.size, NEVER), budget)
    days = spend.by_hour(week).reshape(7, 24, -1)[:, :, ad]
    before = (np.cumsum(days, axis=1) - days).reshape(HOURS, -1)
    starts = week.start + MICROS_PER_HOUR * np.arange(HOURS)
    return np.stack(
        [
            eligible(always, spent, at, pacing)
            for spent, at in zip(before, starts.tolist(), strict=True)
        ]
    )


def shown_hours(asked: Longs, ads: int, week: Week, ad: Ints) -> tuple[Longs, Longs]:
    """Hours of the week and columns of `ad` (a,) in which an ad was shown (m,).

    `asked` holds hours since the epoch times ads plus ad, sorted.
    """
    first = week.start // MICROS_PER_HOUR
    start, end = np.searchsorted(asked, [first * ads, (first + HOURS) * ads])
    hour, shown = np.divmod(asked[start:end], ads)
    column = np.full(ads, -1, np.int64)
    column[ad] = np.arange(ad.size)
    column[0] = -1
    there = column[shown] >= 0
    return (hour - first)[there], column[shown[there]]
