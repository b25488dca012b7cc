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


@dataclass(frozen=True, eq=False)
class Effects:
    """What a scenario does to the world in one week; the defaults do nothing."""

    turn: float = 0.0  # radians by which interests have turned since the first week
    traffic: Floats = field(default_factory=lambda: np.ones(7))  # factor on visits by weekday
    conversion: Floats = field(default_factory=lambda: np.zeros(7))  # log odds added by weekday
    price: float = 1.0  # factor on prices
    budget: float = 1.0  # factor on daily budgets
    stopped: tuple[int, int] | None = None
    """(advertiser number in order of first appearance in Ads, microseconds): its ads end then."""
    bots: float = 0.0
    """Share of users that are bots: they visit 10 times as often, click nearly all, buy nothing."""
    outage: tuple[int, int, int] | None = None
    """Events of [start, end) become known only at the third time, all microseconds."""


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
