"""Trials as tests need them: one that passes, of which each test changes one thing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.evaluation import ArmEstimate, Diagnostics, Interval, TrialEstimate
from roiflow.artefacts.trial import Budget, Phase, Trial
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.evaluation.canary import decided
from roiflow.evaluation.trial import Case, judge
from roiflow.experiment.assignment import salt_of
from roiflow.params import load_params

WEEK = Week.parse("2026-W05")
CHALLENGER, CHAMPION = "c" * 64, "a" * 64

TRIAL = Trial(
    week=str(WEEK),
    challenger=CHALLENGER,
    champion=CHAMPION,
    salt=salt_of(str(WEEK)),
    phases=(
        Phase(WEEK.start, 0.05, "start"),
        Phase(WEEK.start + MICROS_PER_DAY, 0.5, "ramp"),
    ),
    looks=(),
)

BUDGET = Budget(
    year=2026,
    rule="adaptive_spending",
    controls="P(any false promotion in the year)",
    budget=0.1,
    decisions=3,
    promotions=2,
    spent=0.035,
    left=0.065,
    level=0.0139,
)


def interval(value: float, error: float) -> Interval:
    """Of 95 %."""
    return Interval(value, error, value - 1.96 * error, value + 1.96 * error)


def arm(value: float, users: int = 900) -> ArmEstimate:
    """One arm of 18,000 requests."""
    return ArmEstimate(
        requests=9000,
        users=users,
        value=interval(value, 0.02 * abs(value)),
        revenue=2.0 * value,
        cost=value,
        roi=interval(1.0, 0.05),
        diagnostics=Diagnostics(18000, 12000.0, 2.0, 1.0, 1.0),
        maturity=0.9,
    )


def estimate(lift: float = 0.02, error: float = 0.018, **changed: Any) -> TrialEstimate:
    """A week of a champion that is worth 1,000 micros a request."""
    found = TrialEstimate(
        estimator="balanced_dr",
        requests=18000,
        users=1800,
        cost_weight=1.0,
        champion=arm(1000.0),
        challenger=arm(1000.0 * (1.0 + lift)),
        delta=interval(1000.0 * lift, 1000.0 * error),
        lift=interval(lift, error),
        roi_lift=interval(0.0, 0.01),
        findings=(),
        verdict="conclusive",
    )
    return replace(found, **changed)


def case(**changed: Any) -> Case:
    """A refresh that passes."""
    found = Case(
        trial=TRIAL,
        challenger=CHALLENGER,
        champion=CHAMPION,
        refresh=True,
        split=(),
        estimates=(estimate(),),
        click_ece=0.01,
        max_ece=0.05,
        budget=BUDGET,
    )
    return replace(found, **changed)


def tried(lift: float = 0.02, error: float = 0.018, **changed: Any) -> TrialDecision:
    """What becomes of a refresh with such a lift, by the limits of params.yaml."""
    found = case(estimates=(estimate(lift, error),), **changed)
    params = load_params(Path(__file__).parents[1] / "params.yaml").canary
    return decided(found, "refresh", judge(found, params))
