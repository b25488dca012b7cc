"""What a hypothesis about a fault is tried on, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Longs
from roiflow.online.given import Inputs, hashes, pack
from roiflow.parity.findings import Sampled
from roiflow.parity.replay import (
    Content,
    Replayed,
    Setting,
    Slates,
    as_served,
    engine,
    given,
    stored,
    taken,
)

BACK_FILL = "back-fill"
DROPPED_HOUR = "dropped hour"
TIME_ZONE = "time-zone shift"
VOCABULARY = "vocabulary shift"
STATISTICS = "statistics"
UNEXPLAINED = "unexplained"

ENOUGH = 0.95
"""A hypothesis is believed if it explains this share of the slates that differ."""

FIRST = 16
"""On so many of them it must hold before it is tried on the others."""

CLOSE = 1e-4
"""Relative difference up to which a recomputed value is the served one."""


@dataclass(frozen=True)
class Explanation:
    """A fault that would have given what was served."""

    name: str
    explains: float
    """Share of the slates that differ, of those it was tried on."""
    size: str


@dataclass(frozen=True)
class Case:
    """Slates on which hypotheses are tried."""

    replayed: Replayed
    different: Sampled
    former: Content
    rows: Longs  # slates that differ
    others: Longs  # slates that do not

    @property
    def setting(self) -> Setting:
        """Package and snapshot."""
        return self.replayed.setting

    @property
    def content(self) -> Content:
        """The lake's rows."""
        return self.replayed.content

    def slates(self, rows: Longs) -> Slates:
        """Some of the replay's slates."""
        return taken(self.replayed.slates, rows)

    def explained(self, make: Callable[[Slates], Inputs]) -> float:
        """The share of differing slates that a hypothesis gives; 0 where it spoils others."""
        if _equal(make, self.slates(self.rows[:FIRST])) < ENOUGH / 2:
            return 0.0
        if self.others.size and _equal(make, self.slates(self.others)) < ENOUGH:
            return 0.0
        return _equal(make, self.slates(self.rows))

    def without(self, content: Content, setting: Setting) -> float:
        """The share that other rows of the lake explain."""
        counted, events = engine(setting, content), stored(content.events, setting)
        return self.explained(
            lambda slates: given(setting, counted, events, slates, as_served(slates))
        )


def _equal(make: Callable[[Slates], Inputs], slates: Slates) -> float:
    found = np.array(hashes(pack(make(slates))), object)
    return float(np.mean(found == slates.hash))
