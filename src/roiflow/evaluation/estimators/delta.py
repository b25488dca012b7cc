"""Challenger minus champion from the slates of both, each slate read once for both policies.

Delta is the mean of one term a slate, the difference of two balanced doubly robust terms: where
both policies would do alike it is 0, whatever came of the slate. Where the champion is no package
that could be replayed, it is the difference of the arms instead (estimators.arms). Where clicks
depend on the clicks above (estimators.click_model), the terms are those of the cascade.

What has mean 0 by construction is taken off at its regression (control variates; Glynn & Szechtman,
2002): the models' own errors, the weights' distance from 1, and what the users of an arm brought in
earlier weeks (CUPED; Deng et al., 2013). The user is what is drawn: sums over users, and their
covariance, give all errors (Davison & Hinkley, 1997, section 3.8; the delta method for ratios).
"""

from dataclasses import dataclass

import numpy as np

from roiflow.artefacts.evaluation import (
    ArmEstimate,
    Finding,
    Interval,
    TrialEstimate,
    TrialEstimator,
)
from roiflow.evaluation.estimators.arms import difference_of_arms
from roiflow.evaluation.estimators.balanced import Balanced, balanced_dr
from roiflow.evaluation.estimators.balanced_cascade import balanced_cascade_dr, mixed_down_to
from roiflow.evaluation.estimators.chances import mixed
from roiflow.evaluation.estimators.click_model import below_a_click
from roiflow.evaluation.estimators.diagnostics import Weighed
from roiflow.evaluation.estimators.findings import TrialLimits, of_estimates, of_replay, of_slates
from roiflow.evaluation.estimators.moments import Moments, moments
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.features.table import Flags, Floats

STABLE = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
CANARY = np.array([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
"""A policy's revenue and cost as sums of the four means: stable revenue and cost, and how much more
the canary has of each."""


@dataclass(frozen=True)
class ArmsOnLog:
    """B slates of a trial and what both policies would have done on each."""

    slates: Slates
    share: Floats  # (B,) of users in the canary arm when the slate was asked for
    canary: Flags  # (B,) which arm filled it
    champion: TargetOnLog | None  # None: what serves cannot be replayed
    challenger: TargetOnLog

    def take(self, rows: Flags) -> "ArmsOnLog":
        """The slates where `rows` (B,) is True."""
        at = np.flatnonzero(rows)
        return ArmsOnLog(
            self.slates.take(at),
            self.share[at],
            self.canary[at],
            None if self.champion is None else self.champion.take(at),
            self.challenger.take(at),
        )


@dataclass(frozen=True)
class _Reading:
    """The four means and what the weights of each policy look like."""

    estimator: TrialEstimator
    moments: Moments
    weights: tuple[Floats, Floats] | None = None  # (B, S) of champion and challenger


def evidence(
    arms: ArmsOnLog, limits: TrialLimits, cost_weight: float, earlier: Floats | None = None
) -> TrialEstimate:
    """Of the slates that either arm might have filled; findings say why not to trust it.

    `earlier` (B,) is what each slate's user brought in earlier weeks, in any unit, known before the
    trial. Bad input raises nothing: it is found, and without a slate of each arm all figures are 0.
    """
    found = of_slates(arms.slates, arms.share, arms.canary)
    either = (arms.share > 0) & (arms.share < 1)
    before = np.zeros(arms.share.size) if earlier is None else earlier
    trial, before = arms.take(either), before[either]
    found += _of_replays(trial, limits)
    if any(one.kind in ("arm", "shares") for one in found):
        nothing = Moments(np.zeros(4), np.zeros((4, 4)), 0)
        return _estimate(trial, _Reading("arms", nothing), found, limits, cost_weight)
    if trial.champion is None:
        of_arms = difference_of_arms(trial.slates, trial.share, trial.canary, before)
        return _estimate(trial, _Reading("arms", of_arms), found, limits, cost_weight)
    return _estimate(trial, _balanced(trial, trial.champion, before), found, limits, cost_weight)


def _of_replays(trial: ArmsOnLog, limits: TrialLimits) -> list[Finding]:
    found = []
    if trial.champion is not None:
        found += of_replay(trial.slates, ~trial.canary, trial.champion, "champion", limits)
    return found + of_replay(trial.slates, trial.canary, trial.challenger, "challenger", limits)


def _balanced(trial: ArmsOnLog, champion: TargetOnLog, earlier: Floats) -> _Reading:
    challenger, slates = trial.challenger, trial.slates
    if below_a_click(slates, challenger).cascade:
        name: TrialEstimator = "cascade_dr"
        down = mixed_down_to(champion, challenger, trial.share)
        old, new = (balanced_cascade_dr(slates, one, down) for one in (champion, challenger))
    else:
        name, both = "balanced_dr", mixed(champion.chances, challenger.chances, trial.share)
        old, new = (balanced_dr(slates, one, both) for one in (champion, challenger))
    terms = np.column_stack([old.revenue, old.cost, new.revenue - old.revenue, new.cost - old.cost])
    found = moments(slates.user, terms, _controls(trial, old, new, earlier))
    return _Reading(name, found, (old.weight, new.weight))


def _controls(trial: ArmsOnLog, old: Balanced, new: Balanced, earlier: Floats) -> Floats:
    """(B, c) columns of mean 0: of the models, of the weights, of who was in which arm."""
    share = trial.share
    # Of mean 0 given the share, and no larger where it is small: weighed by the variance.
    drawn = (trial.canary - share) * (earlier - earlier.mean())
    return np.column_stack([old.model_error, new.model_error, old.excess, new.excess, drawn])


def _estimate(
    trial: ArmsOnLog,
    reading: _Reading,
    found: list[Finding],
    limits: TrialLimits,
    cost_weight: float,
) -> TrialEstimate:
    got, slates = reading.moments, trial.slates
    champion, challenger = (
        _arm(trial, of, reading, limits, cost_weight) for of in (_CHAMPION, _CHALLENGER)
    )
    delta = got.interval(_value(CANARY - STABLE, cost_weight), limits.confidence)
    found = found + of_estimates(champion, challenger, slates.maturity(), limits)
    if trial.champion is not None and got.users and delta.value == delta.error == 0.0:
        text = "champion and challenger do alike on every slate"
        found.append(Finding("identical", slates.row.size, None, text))
    return TrialEstimate(
        estimator=reading.estimator,
        requests=slates.row.size,
        users=got.users,
        cost_weight=cost_weight,
        champion=champion,
        challenger=challenger,
        delta=delta,
        lift=_lift(got, cost_weight, limits.confidence),
        roi_lift=_roi_lift(got, limits.confidence),
        findings=tuple(found),
        verdict="inconclusive" if found else "conclusive",
    )


@dataclass(frozen=True)
class _Of:
    """Which policy a figure is of."""

    made_of: Floats  # (2, 4) of the four means
    number: int  # among the weights
    canary: bool


_CHAMPION, _CHALLENGER = _Of(STABLE, 0, False), _Of(CANARY, 1, True)


def _arm(
    trial: ArmsOnLog, of: _Of, reading: _Reading, limits: TrialLimits, cost_weight: float
) -> ArmEstimate:
    got, slates, mine = reading.moments, trial.slates, trial.canary == of.canary
    revenue, cost = (of.made_of @ got.mean).tolist()
    policy = trial.challenger if of.canary else trial.champion
    weight: Floats = mine[:, None].astype(np.float64)
    diagnostics = None
    if reading.weights and policy is not None:
        weight = reading.weights[of.number]
        support = float(policy.support.mean())
        if reading.estimator == "cascade_dr":
            present = slates.present.astype(np.float64)
            found = Weighed.of(weight, present, limits.max_weight)
        else:
            found = Weighed.pooled(weight, policy.looks, limits.max_weight)
        diagnostics = found.diagnostics(weight.shape[0], support)
    return ArmEstimate(
        requests=int(mine.sum()),
        users=int(np.unique(slates.user[mine]).size),
        value=got.interval(_value(of.made_of, cost_weight), limits.confidence),
        revenue=revenue,
        cost=cost,
        roi=_roi(got, of.made_of, limits.confidence),
        diagnostics=diagnostics,
        maturity=slates.maturity(weight),
    )


def _value(made_of: Floats, cost_weight: float) -> Floats:
    """Revenue minus lambda x cost, of the four means (4,)."""
    return made_of[0] - cost_weight * made_of[1]


def _roi(got: Moments, made_of: Floats, confidence: float) -> Interval | None:
    revenue, cost = (made_of @ got.mean).tolist()
    if cost <= 0:
        return None
    slope = (made_of[0] - revenue / cost * made_of[1]) / cost
    return got.interval(slope, confidence, revenue / cost - 1.0)


def _lift(got: Moments, cost_weight: float, confidence: float) -> Interval | None:
    base, more = (_value(each, cost_weight) for each in (STABLE, CANARY - STABLE))
    value, delta = float(base @ got.mean), float(more @ got.mean)
    if value <= 0:
        return None
    return got.interval((more - delta / value * base) / value, confidence, delta / value)


def _roi_lift(got: Moments, confidence: float) -> Interval | None:
    """Interval of the logarithm, taken back: a ratio of ratios is skewed."""
    old, new = STABLE @ got.mean, CANARY @ got.mean
    if min(*old, *new) <= 0:
        return None
    slope = CANARY[0] / new[0] - CANARY[1] / new[1] - STABLE[0] / old[0] + STABLE[1] / old[1]
    ratio = float(new[0] / new[1] / (old[0] / old[1]))
    log = got.interval(slope, confidence, float(np.log(ratio)))
    low, high = np.expm1([log.low, log.high]).tolist()
    return Interval(ratio - 1.0, ratio * log.error, low, high)
