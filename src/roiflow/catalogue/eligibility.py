"""Which ads may be shown at a time: the one function of service, simulator and replay.

An ad may be shown from its start to its end, and in an hour that it enters with money left. A
budget holds for a day (UTC): with pacing no more of it may be spent than the day's traffic up to
the end of the hour stands for. What was spent is looked at every hour, as recorded up to the hour's
start, so that whoever has the record finds again what was eligible at any request.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

UNLIMITED = 0
"""In place of a daily budget: none. No advertiser can name it, see `updates.faults`."""


@dataclass(frozen=True)
class Terms:
    """When ads (A,) may be shown and what they may spend."""

    start: Longs  # microseconds, UTC
    end: Longs  # the first microsecond in which it may not
    budget: Longs  # micros a day; UNLIMITED


@dataclass(frozen=True)
class Pacing:
    """The part of a day's budget that may be spent by the end of each hour."""

    shares: Floats  # (24,)

    @classmethod
    def none(cls) -> "Pacing":
        """All of it in any hour."""
        return cls(np.ones(24))

    @classmethod
    def of(cls, traffic: Floats) -> "Pacing":
        """In step with the traffic (24,) by hour of the day; where there is none, `none`."""
        if not traffic.sum():
            return cls.none()
        return cls(np.cumsum(traffic) / traffic.sum())


def eligible(terms: Terms, spent: Floats | Longs, at: int | Longs, pacing: Pacing) -> Flags:
    """Which ads may be shown at a time (A,), or at times (B,) of one hour (B, A).

    `spent` (A,) is the day's spend in micros as recorded before the hour of `at`. Fewer may be left
    than a slate has slots, and none: nothing that has ended or spent its share comes back for it.
    """
    time = np.asarray(at)[..., None]
    hour = int(time.flat[0]) // MICROS_PER_HOUR % 24 if time.size else 0
    there: Flags = (terms.start <= time) & (time < terms.end)
    limited = terms.budget != UNLIMITED
    return there & (~limited | (spent < terms.budget * pacing.shares[hour]))


def spent_before(
    ad: NDArray[np.int32], time: Longs, cost: Longs, at: int, ads: int
) -> NDArray[np.int64]:
    """Micros (ads,) that `cost` (n,) of `ad` (n,) at `time` (n,) comes to as `eligible` takes it.

    From the start of the day of `at` up to the start of its hour.
    """
    day = at // MICROS_PER_DAY * MICROS_PER_DAY
    inside = (time >= day) & (time < at // MICROS_PER_HOUR * MICROS_PER_HOUR)
    spent = np.zeros(ads, np.int64)
    np.add.at(spent, ad[inside], cost[inside])
    return spent
