"""Off-policy evaluation: what a target policy would have earned, from another policy's log.

Each estimator is given as per-row terms whose mean is the estimate, so that sums over users, and
with them cluster-bootstrap intervals, come for free. Arrays are (n,) rows, or (n, S) slates of S
positions whose terms are summed over the slate.

Slates use the reward-interaction weight (RIPS; McInerney et al., 2020): the product of conditional
propensity ratios down to the position, right whenever a position's reward does not depend on what
is shown below it. `cascade_dr_terms` is doubly robust under the same assumption (Kiyohara et al.,
2022); the control variate is any function of the slate down to the position. The standard slate
estimator (the product over the whole slate for every position; Strehl et al., 2010) is
`slate_weights` with its last column for all positions: no assumption, more variance.
"""

from typing import Protocol

import numpy as np

from roiflow.artefacts.evaluation import Diagnostics
from roiflow.errors import PropensityError
from roiflow.features.table import Flags, Floats

LARGEST_WEIGHT = 1e9
"""A larger weight stays there. No answer with such a weight is conclusive (`doubts`), and sums of
weights, of their squares and of weighted micros stay numbers."""


def importance_weights(target: Floats, logged: Floats) -> Floats:
    """Target over logged propensity, in their shape, at most LARGEST_WEIGHT.

    Raises PropensityError where a logged propensity is outside (0, 1] or a target's outside [0, 1].
    """
    # Written so that NaN is bad, too: every comparison with it is false.
    bad = np.flatnonzero(~((logged > 0) & (logged <= 1)))
    if bad.size:
        raise PropensityError(
            f"logged propensity: {bad.size} of {logged.size} outside (0, 1]: "
            f"first is {logged.flat[bad[0]]!r} at flat row {bad[0]}"
        )
    # A target's is added up from quotients and may exceed 1 by rounding.
    bad = np.flatnonzero(~((target >= 0) & (target <= 1 + 1e-9)))
    if bad.size:
        raise PropensityError(
            f"target propensity: {bad.size} of {target.size} outside [0, 1]: "
            f"first is {target.flat[bad[0]]!r} at flat row {bad[0]}"
        )
    with np.errstate(over="ignore"):  # a propensity may be as small as numbers are
        ratios = np.asarray(target / logged, dtype=np.float64)
    return np.minimum(ratios, LARGEST_WEIGHT)


def slate_weights(target: Floats, logged: Floats) -> Floats:
    """Reward-interaction weights (n, S) from conditional propensities (n, S).

    Column k is the product of ratios over positions 1 to k (McInerney et al., 2020, eq. 6), at most
    LARGEST_WEIGHT.
    """
    ratios = importance_weights(target, logged)
    weights = np.empty_like(ratios)
    above = np.ones(ratios.shape[0])
    # Cut at every position and not at the end: a product of large ratios may be infinite half-way
    # down, and infinity times a later 0 is NaN.
    for position in range(ratios.shape[1]):
        above = np.minimum(above * ratios[:, position], LARGEST_WEIGHT)
        weights[:, position] = above
    return weights


def ips_terms(reward: Floats, weight: Floats) -> Floats:
    """Terms (n,) of IPS: weight x reward, summed over a slate (Horvitz & Thompson, 1952)."""
    return _over_slate(weight * reward)


def dm_terms(target_reward: Floats) -> Floats:
    """Terms (n,) of the direct method: the reward a model expects of the target policy."""
    return _over_slate(target_reward)


def dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> Floats:
    """Terms (n,) of doubly robust: q(target) + w (r - q(logged))  (Dudik et al., 2011)."""
    # Unbiased where either the weights or the model are right; the better the model, the smaller
    # what a large weight is multiplied with.
    return _over_slate(target_reward + weight * (reward - logged_reward))


def cascade_dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> Floats:
    """Terms (n,) of doubly robust over slates (n, S)  (Kiyohara et al., 2022, eq. 7).

    `logged_reward` column k is Q of the logged slate down to k; `target_reward` column k is the
    mean of that same Q when position k is redrawn from the target policy under the logged ads
    above it. Its weight is therefore the product over the positions above k.
    """
    # A position that is redrawn was reached with the ads above as logged: their ratios weigh it.
    above = np.column_stack([np.ones(weight.shape[0]), weight[:, :-1]])
    return _over_slate(weight * (reward - logged_reward) + above * target_reward)


def ips(reward: Floats, weight: Floats) -> float:
    """Inverse propensity scoring, mean of w r."""
    return float(np.mean(ips_terms(reward, weight)))


def snips(reward: Floats, weight: Floats) -> float:
    """Self-normalised IPS, sum(w r) / sum(w) at each position, summed over the slate.

    Swaminathan & Joachims (2015); per position as in McInerney et al. (2020).
    """
    # Normalised at each position, not over the slate: weights differ most between positions, and
    # one sum of all would let the lower ones' noise scale the first one's reward.
    return float(np.sum(np.sum(weight * reward, axis=0) / np.sum(weight, axis=0)))


def dm(target_reward: Floats) -> float:
    """Direct method, mean of q under the target policy."""
    return float(np.mean(dm_terms(target_reward)))


def dr(reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats) -> float:
    """Doubly robust."""
    return float(np.mean(dr_terms(reward, weight, logged_reward, target_reward)))


def cascade_dr(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> float:
    """Doubly robust over slates."""
    return float(np.mean(cascade_dr_terms(reward, weight, logged_reward, target_reward)))


def _over_slate(terms: Floats) -> Floats:
    return terms if terms.ndim == 1 else terms.sum(axis=1)


def effective_sample_size(weight: Floats) -> float:
    """(sum w)^2 / sum w^2 of weights (n,)  (Kish, 1965); 0 where all are 0."""
    squares = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / squares if squares > 0 else 0.0


def diagnose(weight: Floats, support: float, present: Flags | None = None) -> Diagnostics:
    """Of weights (n,) or (n, S); rows of a position where `present` is False are left out."""
    matrix = weight if weight.ndim == 2 else weight[:, None]
    mask = np.ones(matrix.shape, dtype=bool) if present is None else present.reshape(matrix.shape)
    columns = [matrix[mask[:, k], k] for k in range(matrix.shape[1]) if mask[:, k].any()]
    if not columns:
        return Diagnostics(matrix.shape[0], 0.0, 0.0, 0.0, support)
    # Each figure is of the worst position: a mean over positions would hide the last ones, where
    # weights are largest, behind the first.
    means = [float(column.mean()) for column in columns]
    return Diagnostics(
        rows=matrix.shape[0],
        effective_sample_size=min(effective_sample_size(column) for column in columns),
        max_weight=max(float(column.max()) for column in columns),
        mean_weight=max(means, key=lambda mean: abs(mean - 1.0)),
        support=support,
    )


class Limits(Protocol):
    """The limits of params.yaml under which an answer is inconclusive."""

    @property
    def min_effective_sample_size(self) -> float: ...  # noqa: D102
    @property
    def max_weight(self) -> float: ...  # noqa: D102
    @property
    def mean_weight_tolerance(self) -> float: ...  # noqa: D102
    @property
    def min_support(self) -> float: ...  # noqa: D102
    @property
    def min_maturity(self) -> float: ...  # noqa: D102


def doubts(found: Diagnostics, limits: Limits) -> list[str]:
    """Each limit that is broken, in words; empty where the answer can be trusted."""
    faults = []
    if found.effective_sample_size < limits.min_effective_sample_size:
        faults.append(
            f"effective sample size {found.effective_sample_size:.1f} "
            f"under {limits.min_effective_sample_size:g}"
        )
    if found.max_weight > limits.max_weight:
        faults.append(f"largest weight {found.max_weight:.1f} over {limits.max_weight:g}")
    if abs(found.mean_weight - 1.0) > limits.mean_weight_tolerance:
        faults.append(
            f"mean weight {found.mean_weight:.3f} not within {limits.mean_weight_tolerance:g} of 1"
        )
    if found.support < limits.min_support:
        faults.append(f"support {found.support:.3f} under {limits.min_support:g}")
    return faults
