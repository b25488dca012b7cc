"""Value and return on investment of policies, from one log, with paired intervals.

Value is revenue minus lambda x cost, per 1,000 slates: what a policy is chosen by.
ROI = (revenue - cost) / cost and ROAS = revenue / cost. Numerator and denominator are estimated
from the same weights, and every policy and estimator from the same resampled users, so that the
lift of one over another has a paired interval. Lift is the relative change of value, and of
ROAS = 1 + ROI: it is positive exactly when ROI is higher, and stays defined where ROI crosses 0.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from roiflow.artefacts.evaluation import Estimate, RoiEstimate
from roiflow.evaluation.estimators.diagnostics import Limits, doubts
from roiflow.evaluation.statistics import cluster_sums, percentile_interval, resampled_totals
from roiflow.evaluation.terms import Terms
from roiflow.features.table import Floats

NO_PROPENSITIES = "no logged propensities"
MODEL_BASED = "model-based: no logged propensity went into it"
LOGGED = "logged"
SLATES = 1000.0
"""That value is counted of."""


def roi(revenue: Floats, cost: Floats) -> Floats:
    """(revenue - cost) / cost, NaN where cost is not positive; any equal shapes."""
    return np.divide(
        revenue - cost, cost, out=np.full(np.shape(cost), np.nan), where=np.asarray(cost) > 0
    )


def estimate_roi(
    user: NDArray[np.integer],
    base: Terms,
    terms: Mapping[str, Terms],
    *,
    resamples: int,
    confidence: float,
    limits: Limits,
    cost_weight: float,
    rng: np.random.Generator,
    slates: int | None = None,
) -> dict[str, RoiEstimate]:
    """Value, ROI and lifts over `base` by each of `terms`, and of the base under `logged`.

    `cost_weight` is lambda.

    `user` (n,) is the cluster of each row of the terms: of a slate, or, where the terms are of
    users, of all of a user's, which are `slates` together. All terms share the resampled users.
    """
    # All columns side by side, summed by user once: a resample is then one vector of counts times
    # one matrix, and every policy and estimator is resampled with the same users.
    named, count = {LOGGED: base, **terms}, slates or user.size
    edges = np.cumsum([0] + [each.columns.shape[1] for each in named.values()])
    sums = cluster_sums(user, np.hstack([each.columns for each in named.values()]))
    # Row 0 is the log as it is; the point estimate goes through the same code as the resamples.
    drawn = np.vstack([sums.sum(axis=0), resampled_totals(sums, resamples, rng)])
    money = {
        name: each.revenue_and_cost(drawn[:, start:stop])
        for (name, each), start, stop in zip(named.items(), edges[:-1], edges[1:], strict=True)
    }
    worth = {
        name: (revenue - cost_weight * cost) * (SLATES / count)
        for name, (revenue, cost) in money.items()
    }
    base_roi = roi(*money[LOGGED])
    estimates = {}
    for name, each in named.items():
        revenue, cost = money[name]
        values = roi(revenue, cost)
        # Of 1 + ROI, which is revenue over cost: the relative change of ROI itself changes its sign
        # where the base's is negative.
        lift = _relative(1 + values, 1 + base_roi)
        faults = _faults(each, limits)
        more = _relative(worth[name], worth[LOGGED])
        # A lift is no better known than what it is a lift over.
        of_base = [] if name == LOGGED else [f"base: {fault}" for fault in _faults(base, limits)]
        estimates[name] = RoiEstimate(
            value=_estimate(name, worth[name], confidence, faults, each),
            value_lift=_estimate(name, more, confidence, faults + of_base, each),
            roi=_estimate(name, values, confidence, faults, each),
            lift=_estimate(name, lift, confidence, faults + of_base, each),
            revenue_per_slate_micros=float(revenue[0]) / count,
            cost_per_slate_micros=float(cost[0]) / count,
            maturity=each.maturity,
        )
    return estimates


def _relative(values: Floats, base: Floats) -> Floats:
    """Relative change of values (n,) over a base (n,); NaN where that is not positive."""
    return np.divide(values, base, out=np.full(values.shape, np.nan), where=base > 0) - 1


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
