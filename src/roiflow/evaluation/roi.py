"""Return on investment of policies, from one log, with paired intervals.

ROI = (revenue - cost) / cost and ROAS = revenue / cost. Numerator and denominator are estimated
from the same weights, and every policy and estimator from the same resampled users, so that the
lift of one over another has a paired interval. Lift is the relative change of ROAS = 1 + ROI: it
is positive exactly when ROI is higher, and stays defined where ROI crosses 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.artefacts.evaluation import Diagnostics, Estimate, RoiEstimate
from roiflow.evaluation.estimators.balanced import balanced_dr
from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.evaluation.ope import (
    Limits,
    cascade_dr_terms,
    diagnose,
    dm_terms,
    doubts,
    ips_terms,
    slate_weights,
)
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.statistics import cluster_sums, percentile_interval, resampled_totals
from roiflow.evaluation.target import TargetOnLog
from roiflow.features.table import Floats

NO_PROPENSITIES = "no logged propensities"
MODEL_BASED = "model-based: no logged propensity went into it"
LOGGED = "logged"


def roi(revenue: Floats, cost: Floats) -> Floats:
    """(revenue - cost) / cost, NaN where cost is not positive; any equal shapes."""
    return np.divide(
        revenue - cost, cost, out=np.full(np.shape(cost), np.nan), where=np.asarray(cost) > 0
    )


@dataclass(frozen=True)
class Terms:
    """Columns (n, m) of n slates, to be summed; `normalised` says how the sums are read.

    Plain: revenue, cost. Self-normalised, over S positions: revenue x weight, cost x weight,
    weight, slates that have the position.
    """

    columns: Floats
    normalised: bool
    model_based: bool
    diagnostics: Diagnostics | None
    maturity: float | None

    def revenue_and_cost(self, totals: Floats) -> tuple[Floats, Floats]:
        """Totals (..., m) -> revenue (...) and cost (...) of all slates, micros."""
        if not self.normalised:
            return totals[..., 0], totals[..., 1]
        # A position that no drawn slate has adds nothing. One that has slates and no weight left
        # has no estimate: NaN, which takes the whole interval away, where 0 would be a loss that
        # nobody saw.
        revenue, cost, weight, present = np.split(totals, 4, axis=-1)
        scale = np.divide(present, weight, out=np.where(present > 0, np.nan, 0.0), where=weight > 0)
        return np.sum(revenue * scale, axis=-1), np.sum(cost * scale, axis=-1)


def logged_terms(slates: Slates) -> Terms:
    """What the logging policy earned: on-policy."""
    columns = np.column_stack([slates.revenue.sum(axis=1), slates.cost.sum(axis=1)])
    return Terms(columns, False, False, None, slates.maturity())


def target_terms(slates: Slates, target: TargetOnLog, logged: Chances) -> dict[str, Terms]:
    """Terms of the target policy by each estimator; the direct method alone without propensities.

    `logged` are the chances of what filled the slates. `ips` and `snips` weigh each position by
    itself and `dr` pools them by how much they are looked at: right where a position's reward
    depends on its own ad only, as in the position-based click model that `dm` assumes too. `rips`
    and `cascade_dr` weigh the slate down to the position: right also where the ads above matter, at
    the price of far larger weights.
    """
    revenue, cost = target.revenue, target.cost
    direct = Terms(
        np.column_stack([dm_terms(revenue.target), dm_terms(cost.target)]), False, True, None, None
    )
    # All or nothing: estimators on the slates that have propensities, beside a direct method on all
    # of them, would be about two different sets of users.
    if not slates.logged.all():
        return {"dm": direct}
    weight = ratio(target.chances.marginal, logged.marginal)
    slate_weight = np.where(slates.present, slate_weights(target.propensity, slates.propensity), 0)
    balanced = balanced_dr(slates, target, logged)
    by_position, by_looks, by_slate = (
        diagnose(each, float(target.support.mean()), slates.present)
        for each in (weight, balanced.weight, slate_weight)
    )
    ripe, slate_ripe = slates.maturity(weight), slates.maturity(slate_weight)

    def both(columns: Sequence[Floats], found: Diagnostics, known: float | None) -> Terms:
        return Terms(np.column_stack(columns), False, False, found, known)

    money = slates.revenue, slates.cost
    return {
        "ips": both([ips_terms(one, weight) for one in money], by_position, ripe),
        "snips": Terms(
            np.hstack([weight * slates.revenue, weight * slates.cost, weight, slates.present]),
            True,
            False,
            by_position,
            ripe,
        ),
        "dr": both([balanced.revenue, balanced.cost], by_looks, slates.maturity(balanced.weight)),
        "dm": direct,
        "rips": both([ips_terms(one, slate_weight) for one in money], by_slate, slate_ripe),
        "cascade_dr": both(
            [
                cascade_dr_terms(one, slate_weight, model.cascade_logged, model.cascade_target)
                for one, model in zip(money, (revenue, cost), strict=True)
            ],
            by_slate,
            slate_ripe,
        ),
    }


def estimate_roi(
    user: NDArray[np.integer],
    base: Terms,
    terms: Mapping[str, Terms],
    *,
    resamples: int,
    confidence: float,
    limits: Limits,
    rng: np.random.Generator,
) -> dict[str, RoiEstimate]:
    """ROI and lift over `base` by each of `terms`, and of the base itself under `logged`.

    `user` (n,) is the cluster of each slate. All terms share the resampled users.
    """
    # All columns side by side, summed by user once: a resample is then one vector of counts times
    # one matrix, and every policy and estimator is resampled with the same users.
    named = {LOGGED: base, **terms}
    edges = np.cumsum([0] + [each.columns.shape[1] for each in named.values()])
    sums = cluster_sums(user, np.hstack([each.columns for each in named.values()]))
    # Row 0 is the log as it is; the point estimate goes through the same code as the resamples.
    drawn = np.vstack([sums.sum(axis=0), resampled_totals(sums, resamples, rng)])
    money = {
        name: each.revenue_and_cost(drawn[:, start:stop])
        for (name, each), start, stop in zip(named.items(), edges[:-1], edges[1:], strict=True)
    }
    base_roi = roi(*money[LOGGED])
    estimates = {}
    for name, each in named.items():
        revenue, cost = money[name]
        values = roi(revenue, cost)
        # Of 1 + ROI, which is revenue over cost: the relative change of ROI itself changes its sign
        # where the base's is negative.
        lift = np.divide(
            1 + values,
            1 + base_roi,
            out=np.full(values.shape, np.nan),
            where=1 + base_roi > 0,
        )
        faults = _faults(each, limits)
        # A lift is no better known than what it is a lift over.
        of_base = [] if name == LOGGED else [f"base: {fault}" for fault in _faults(base, limits)]
        estimates[name] = RoiEstimate(
            roi=_estimate(name, values, confidence, faults, each),
            lift=_estimate(name, lift - 1, confidence, faults + of_base, each),
            revenue_per_slate_micros=float(revenue[0]) / user.size,
            cost_per_slate_micros=float(cost[0]) / user.size,
            maturity=each.maturity,
        )
    return estimates


def _faults(terms: Terms, limits: Limits) -> list[str]:
    if terms.model_based:
        return [MODEL_BASED]
    faults = doubts(terms.diagnostics, limits) if terms.diagnostics else []
    if terms.maturity is not None and terms.maturity < limits.min_maturity:
        faults.append(f"maturity {terms.maturity:.3f} under {limits.min_maturity:g}")
    return faults


def _estimate(
    name: str, values: Floats, confidence: float, faults: list[str], terms: Terms
) -> Estimate:
    """From the statistic (1 + resamples,) whose first entry is of the log itself."""
    point = float(values[0])
    # The interval is of the resamples alone; their mean is not the estimate, which is that of the
    # log itself.
    low, high = percentile_interval(values[1:], confidence)
    defined = bool(np.isfinite(point))
    bounded = bool(np.isfinite(low))
    if not defined:
        faults = [*faults, "revenue or cost is not positive: the ratio is undefined"]
    elif not bounded:
        faults = [*faults, "undefined in some resamples: too few slates with a cost"]
    return Estimate(
        name=name,
        value=point if defined else None,
        low=low if defined and bounded else None,
        high=high if defined and bounded else None,
        verdict="inconclusive" if faults else "conclusive",
        reason="; ".join(faults),
        model_based=terms.model_based,
        diagnostics=terms.diagnostics,
    )
