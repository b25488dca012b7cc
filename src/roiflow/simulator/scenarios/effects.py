"""What a scenario can do: change the world of a week, or the log of it on its way to the platform.

A change of the world (Effects) reaches what happens, and so the truth. A fault of the log (arrive)
reaches only what the platform is told: the truth of the week stays as it was.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Effects:
    """What a scenario does to the world in one week; the defaults do nothing."""

    turn: float = 0.0  # radians by which interests have turned since the first week
    traffic: Floats = field(default_factory=lambda: np.ones(7))  # factor on visits by weekday
    conversion: Floats = field(default_factory=lambda: np.zeros(7))  # log odds added by weekday
    price: float = 1.0  # factor on prices
    budget: float = 1.0  # factor on daily budgets
    stopped: tuple[int, int] | None = None
    """(advertiser's rank by the ads it then has, most first, microseconds): its ads end then."""
    bots: float = 0.0
    """Share of users that are bots: they visit 10 times as often, click nearly all, buy nothing."""
    outage: tuple[int, int, int] | None = None
    """Events of [start, end) become known only at the third time, all microseconds."""


def ends(effects: Effects, advertiser: NDArray[np.generic], first: Longs, last: Longs) -> Longs:
    """When ads (A,) that may be shown in [first, last) end where an advertiser stops, microseconds.

    Ads that come later are of no weight in the rank, so that it is the same in all weeks.
    """
    if effects.stopped is None:
        return last
    rank, at = effects.stopped
    known, number = np.unique(advertiser, return_inverse=True)
    # Stable, so that of advertisers with equally many ads the first by name stops, in every week.
    held = np.bincount(number, weights=(first <= at) & (at < last))
    stopped = np.argsort(-held, kind="stable")[rank % known.size]
    return np.where(number == stopped, np.minimum(last, at), last)


class Scenario(Protocol):
    """A named course of the world; what a scenario does not override does nothing."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """What it does to the world in `week`."""
        del params, week
        return Effects()

    def arrive(self, params: SimulatorParams, week: Week, tables: Tables) -> Tables:
        """The log of `week`, its rows known in it, as it reaches the platform."""
        del params, week
        return tables


def shock_week(params: SimulatorParams) -> Week:
    """The week in which a scenario's sudden change comes."""
    return Week.parse(params.shock_week)
