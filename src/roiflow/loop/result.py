"""What a closed loop came to: who served, what was tried and decided, and what it was truly worth.

Values are the world's own expectations of a week's slates, in units of the currency.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from roiflow.artefacts.decision import Rule, TrialDecision, Verdict
from roiflow.artefacts.record import Artefact, Record
from roiflow.features.table import Floats

SERVED, ORACLE, RANDOM, LOGGING = "served", "oracle", "random", "logging"

STABLE, CANARY = "stable", "canary"
"""Each arm of a week as if it alone had served."""

FIRST, NEWEST = "first", "newest"
"""The first champion for ever, and every week's newest package without a decision."""

GREEDY = ("logistic", "xgboost", "popularity")
"""Rankers alone, fitted anew every week."""


@dataclass(frozen=True)
class Outcome(Record):
    """What the jobs of a week's own run came to."""

    verdict: Verdict
    """Of the screen, on what the run made."""
    version: int
    promoted: bool
    champion: str | None
    challenger: str | None
    """On trial in the week after."""
    rule: Rule
    reason: str
    commit: str


@dataclass(frozen=True)
class ServedClicks(Record):
    """How well packages foresaw the clicks on what they showed: calibration error (ECE)."""

    settled: float | None
    """Of the slates from each package's second day on; None where there are none."""
    by_day: tuple[float, ...]
    """Of every day of the week; NaN without a slate."""


@dataclass(frozen=True)
class WeekOutcome(Record):
    """One week: who served it, what each policy was truly worth, what was tried and decided."""

    week: str
    served_by: str
    """Policy version of the stable arm: `logging`, or the first 12 digits of a package's digest."""
    truth: dict[str, dict[str, float]]
    """By policy: expected clicks, conversions, revenue, cost, value and roi of the whole week."""
    clicks: ServedClicks | None
    """None where no package of ours served."""
    trial: TrialDecision
    gate: Outcome
    seconds: dict[str, float]
    """By stage, by job and for the rest."""

    @property
    def by_evidence(self) -> bool:
        """Whether the week's canary was promoted by what both arms showed."""
        return self.gate.promoted and self.gate.rule == "evidence"

    @property
    def true_lift(self) -> float:
        """Of the canary over the stable arm, of its value; NaN without a canary."""
        if not {STABLE, CANARY} <= self.truth.keys():
            return float("nan")
        return self.truth[CANARY]["value"] / self.truth[STABLE]["value"] - 1.0


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
        """Those that have a truth in the last week, by their value there, the oracle first.

        Not the arms: who these are changes with the weeks.
        """
        last = self.weeks[-1].truth
        named = [name for name in last if name not in (STABLE, CANARY)]
        return tuple(sorted(named, key=lambda name: -last[name]["value"]))


def served_weeks(weeks: Sequence[WeekOutcome]) -> list[WeekOutcome]:
    """All but the first: no run preceded it that could have left a policy to serve it."""
    return list(weeks[1:])


def column(weeks: Sequence[WeekOutcome], policy: str, name: str) -> Floats:
    """A figure of a policy by week (W,); NaN where it has none."""
    # A baseline has no truth in the first week, before which there is no run to train it in.
    return np.array([one.truth.get(policy, {}).get(name, np.nan) for one in weeks])


def from_first_champion(weeks: Sequence[WeekOutcome]) -> list[WeekOutcome]:
    """The weeks from the first one on in which a champion of ours is there from its beginning."""
    found = next((at for at, one in enumerate(weeks) if one.served_by != LOGGING), len(weeks))
    return list(weeks[found:])


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


def overall_value(weeks: Sequence[WeekOutcome], policy: str) -> float:
    """Summed over the weeks, in units of the currency."""
    return float(column(weeks, policy, "value").sum())
