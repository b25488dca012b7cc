"""What a closed loop came to: every policy's true value by week, and its regret against the oracle.

Values are the world's own expectations of a week's slates, in units of the currency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from roiflow.artefacts.decision import Rule, Verdict
from roiflow.artefacts.record import Artefact, Record
from roiflow.features.table import Floats

SERVED, ORACLE, RANDOM = "served", "oracle", "random"


@dataclass(frozen=True)
class Outcome(Record):
    """What the jobs of a week's own run came to."""

    verdict: Verdict
    version: int
    promoted: bool
    champion: str | None
    rule: Rule
    reason: str
    commit: str


@dataclass(frozen=True)
class WeekOutcome(Record):
    """One week: who served it, what each policy's slates were truly worth, what the gate said."""

    week: str
    served_by: str
    """Policy version: `logging`, or the first 12 digits of a package's digest."""
    truth: dict[str, dict[str, float]]
    """By policy: expected clicks, conversions, revenue, cost, value and roi of the whole week."""
    gate: Outcome
    seconds: dict[str, float]
    """By stage, by job and for the rest."""


@dataclass(frozen=True)
class LoopResult(Artefact):
    """The weeks of one loop so far."""

    nan: ClassVar[bool] = True  # the ROI of slates that cost nothing

    seed: int
    params: str
    """Digest of the parameters that every week shares."""
    weeks: tuple[WeekOutcome, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """Those that have a truth in some week, the oracle first, by their value in the last."""
        last = self.weeks[-1].truth
        return tuple(sorted(last, key=lambda name: -last[name]["value"]))


def served_weeks(weeks: Sequence[WeekOutcome]) -> list[WeekOutcome]:
    """All but the first: no run preceded it that could have left a policy to serve it."""
    return list(weeks[1:])


def column(weeks: Sequence[WeekOutcome], policy: str, name: str) -> Floats:
    """A figure of a policy by week (W,); NaN where it has none."""
    # A baseline has no truth in the first week, before which there is no run to train it in.
    return np.array([one.truth.get(policy, {}).get(name, np.nan) for one in weeks])


def regret(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """What the oracle's value exceeds the policy's by, each week (W,)."""
    return column(weeks, ORACLE, "value") - column(weeks, policy, "value")


def attainment(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """How far a policy's value is from random's (0) to the oracle's (1), each week (W,)."""
    low, high = column(weeks, RANDOM, "value"), column(weeks, ORACLE, "value")
    # Weeks differ in traffic and prices; between two policies that know nothing and everything,
    # they can be compared and averaged.
    return (column(weeks, policy, "value") - low) / (high - low)


def overall_roi(weeks: Sequence[WeekOutcome], policy: str) -> float:
    """(revenue - cost) / cost over all the weeks together."""
    # Sums first: a mean of weekly ratios would weigh a week without traffic like any other.
    revenue, cost = (column(weeks, policy, name).sum() for name in ("revenue", "cost"))
    return float((revenue - cost) / cost)
