"""A week on trial: which package stood beside which, for which share of users, and its looks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.artefacts.record import Artefact, Record


@dataclass(frozen=True)
class Phase(Record):
    """The canary's share of the users from a time on."""

    since: int
    """Micros UTC."""
    share: float
    """0: the trial was stopped; 1: the challenger serves everybody."""
    why: str


@dataclass(frozen=True)
class Look(Record):
    """What was known of challenger minus champion at a time; micros a request."""

    at: int
    """Micros UTC."""
    requests: int
    delta: float
    error: float
    """Standard error of `delta`, users as clusters."""
    low: float
    """`low` to `high` holds the truth at all looks together (experiment.boundaries)."""
    high: float
    champion: float
    """Value of the champion."""


@dataclass(frozen=True)
class Spent(Record):
    """A decision that was taken, as the year's error budget counts it."""

    week: str
    challenger: str
    """Digest."""
    p: float
    """Of its value being under the margin; 1 where nothing was tested (a rule, a person)."""
    promoted: bool


@dataclass(frozen=True)
class Budget(Record):
    """The year's error budget before a decision, and the level that it leaves to it."""

    year: int
    """Of ISO weeks: 52 or 53 of them."""
    rule: str
    controls: str
    """What is at most `budget`, in words."""
    budget: float
    decisions: int
    """Of the year so far."""
    promotions: int
    spent: float
    left: float
    level: float
    """What the p-value of this decision may be at most."""


@dataclass(frozen=True)
class Trial(Artefact):
    """One week of a challenger beside what serves; written by whoever serves."""

    week: str
    challenger: str
    """Digest of its package."""
    champion: str | None
    """Digest; None where what served has no package (the platform's own logging policy)."""
    salt: str
    """Precedes the user id in the edge's hash."""
    phases: tuple[Phase, ...]
    """In the order of time; before the first one the share is 0."""
    looks: tuple[Look, ...]

    def share_at(self, times: NDArray[np.int64]) -> NDArray[np.float64]:
        """The canary's share of the users at times (n,) in micros UTC."""
        since = np.array([phase.since for phase in self.phases], np.int64)
        shares = np.array([0.0, *(phase.share for phase in self.phases)])
        found: NDArray[np.float64] = shares[np.searchsorted(since, times, side="right")]
        return found

    def started(self) -> int | None:
        """When the canary first had users, micros UTC; None where it never had."""
        return next((phase.since for phase in self.phases if phase.share > 0), None)
