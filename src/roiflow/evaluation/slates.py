"""Logged slates, and what a Plackett-Luce policy would have done and earned with them.

The policy fills as many positions as were logged. A click at position p is as likely as at
position 1 times a factor of p (examination hypothesis; Richardson, Dominowska & Ragno, 2007).
"""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import ContractError
from roiflow.evaluation.ope import slate_weights
from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.policy.candidate_sets import CandidateSets, columns_of
from roiflow.policy.plackett_luce import conditional_propensities, sample
from roiflow.ranking.value import CostShares

T = TypeVar("T", bound=np.generic)

PRIOR_CLICKS = 10.0
"""Pseudo-clicks that draw a position's factor towards 1."""


@dataclass(frozen=True)
class Slates:
    """B logged slates of up to S positions; where `present` is False the rest holds no meaning."""

    row: Longs  # (B,) row of the impression at the top
    user: Ints  # (B,)
    ad: Ints  # (B, S) -1 where absent
    position: Ints  # (B, S) 1-based, as logged; 1 where absent
    present: Flags  # (B, S)
    clicked: Flags  # (B, S)
    revenue: Floats  # (B, S) micros, 0 where absent
    cost: Floats  # (B, S) micros, 0 where absent
    propensity: Floats  # (B, S) given the ads above; NaN where not logged, 1 where absent

    def take(self, rows: Longs) -> "Slates":
        """The slates `rows`, in that order."""
        return Slates(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def logged(self) -> Flags:
        """(B,): True where every propensity of the slate was logged."""
        logged: Flags = np.all(~np.isnan(self.propensity), axis=1)
        return logged


def logged_slates(features: Features, rows: Longs, slots: int) -> Slates:
    """The slates of impression `rows`, cut to the first `slots` positions.

    A slate with a gap above a position (a quarantined impression) is left out, because what stood
    above it is not known; a lone impression of a one-ad slate stays, wherever it stood. Raises
    ContractError where no slate is left.
    """
    log = features.impressions
    rows = rows[np.lexsort((log.position[rows], log.request[rows]))]
    request = log.request[rows]
    if rows.size == 0:
        raise ContractError("no impression to evaluate on")
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]])
    sizes = np.diff(np.r_[starts, rows.size])
    rank = np.arange(rows.size) - np.repeat(starts, sizes)
    alone = (sizes == 1) & (log.slate_size[rows[starts]] == 1)
    whole = np.logical_and.reduceat(log.position[rows] == rank + 1, starts) | alone
    if not whole.any():
        raise ContractError(f"none of {starts.size} slates is logged from position 1 without a gap")
    number = np.cumsum(whole) - 1
    keep = np.repeat(whole, sizes) & (rank < slots)
    slate = np.repeat(number, sizes)[keep]
    place, kept = rank[keep], rows[keep]
    shape = (int(whole.sum()), slots)

    def spread(values: NDArray[T], fill: float) -> NDArray[T]:
        matrix: NDArray[T] = np.full(shape, fill, dtype=values.dtype)
        matrix[slate, place] = values
        return matrix

    top = rows[starts[whole]]
    return Slates(
        row=top,
        user=np.asarray(log.user[top]),
        ad=spread(log.ad[kept], -1),
        position=spread(log.position[kept], 1),
        present=spread(np.ones(kept.size, dtype=bool), False),
        clicked=spread(log.clicked[kept], False),
        revenue=spread(log.revenue[kept].astype(np.float64), 0.0),
        cost=spread(log.cost[kept].astype(np.float64), 0.0),
        propensity=spread(log.propensity[kept], 1.0),
    )


def position_factors(position: Ints, clicked: Flags, predicted: Floats) -> Floats:
    """Clicks at position p over clicks expected at position 1, factors[p]; factors[1] is 1.

    All (n,); `predicted` is the click probability at position 1. Index 0 is unused and 1.
    """
    size = int(position.max(initial=1)) + 1
    clicks = np.bincount(position, weights=clicked, minlength=size) + PRIOR_CLICKS
    expected = np.bincount(position, weights=predicted, minlength=size) + PRIOR_CLICKS
    factors: Floats = clicks / expected
    factors = factors / factors[1]
    factors[0] = 1.0
    return factors


def factors_at(factors: Floats, position: Ints) -> Floats:
    """Factors in the shape of `position`; a position beyond those known has the last one's."""
    return factors[np.minimum(position, factors.size - 1)]


@dataclass(frozen=True)
class TargetOnLog:
    """A target policy on B logged slates."""

    weight: Floats  # (B, S) reward-interaction weights; 0 where absent
    support: float
    """Share of the policy's first choice that lies on ads the log shows."""
    revenue: Floats  # (B,) micros, the model's expectation of the policy's own slates
    cost: Floats  # (B,) micros
    logged_revenue: Floats  # (B, S) micros, Q of the logged slate down to the position
    logged_cost: Floats  # (B, S)
    target_revenue: Floats  # (B, S) micros, mean of that Q with the position redrawn
    target_cost: Floats  # (B, S)


@dataclass(frozen=True)
class _Reward:
    """Reward of candidate a at a position with factor f: fixed[a] + f x examined[a]; (B, K)."""

    fixed: Floats
    examined: Floats


def target_on_log(
    slates: Slates,
    sets: CandidateSets,
    logits: Floats,
    shares: CostShares,
    *,
    factors: Floats,
    shown: Flags,
    draws: int,
    rng: np.random.Generator,
) -> TargetOnLog:
    """Weights and model expectations of the policy `logits` (B, K) on the logged slates.

    `shown` (ads,) says which ads the log shows; `draws` slates a request are sampled for the
    model's expectation. Where propensities were not logged, weights are NaN.
    """
    columns = columns_of(sets.ad, slates.ad)
    examination = np.where(slates.present, factors_at(factors, slates.position), 0.0)
    revenue = _Reward(np.zeros(logits.shape, np.float64), sets.expected_revenue)
    at_impression = shares.impression * sets.bid.astype(np.float64)
    cost = _Reward(at_impression, sets.expected_cost - at_impression)
    top = logits.max(axis=1, keepdims=True)
    chances = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    chances = chances / np.maximum(chances.sum(axis=1, keepdims=True), 1e-300)
    own_revenue, own_cost = _own_slates(
        (revenue, cost), logits, slates.present, examination, draws=draws, rng=rng
    )
    known = np.where(sets.ad >= 0, shown[np.maximum(sets.ad, 0)], False)
    logged_revenue, target_revenue = _control_variate(
        revenue, chances, columns, slates.present, examination
    )
    logged_cost, target_cost = _control_variate(cost, chances, columns, slates.present, examination)
    return TargetOnLog(
        weight=_weights(slates, logits, columns),
        support=float(np.sum(chances * known) / chances.shape[0]),
        revenue=own_revenue,
        cost=own_cost,
        logged_revenue=logged_revenue,
        logged_cost=logged_cost,
        target_revenue=target_revenue,
        target_cost=target_cost,
    )


def _weights(slates: Slates, logits: Floats, columns: Longs) -> Floats:
    target = np.where(slates.present, conditional_propensities(logits, columns), 1.0)
    weight = np.full(target.shape, np.nan)
    logged = slates.logged
    if logged.any():
        weight[logged] = slate_weights(target[logged], slates.propensity[logged])
    return np.where(slates.present, weight, 0.0)


def _own_slates(
    rewards: tuple[_Reward, _Reward],
    logits: Floats,
    present: Flags,
    examination: Floats,
    *,
    draws: int,
    rng: np.random.Generator,
) -> Floats:
    """Expected rewards (2, B) of slates drawn from the policy."""
    total = np.zeros((2, logits.shape[0]))
    for _ in range(draws):
        choices, _ = sample(logits, present.shape[1], rng)
        filled = present & (choices >= 0)
        column = np.maximum(choices, 0)
        for number, reward in enumerate(rewards):
            fixed = np.take_along_axis(reward.fixed, column, 1)
            earned = fixed + examination * np.take_along_axis(reward.examined, column, 1)
            total[number] += np.where(filled, earned, 0.0).sum(axis=1)
    return total / draws


def _control_variate(
    reward: _Reward, chances: Floats, columns: Longs, present: Flags, examination: Floats
) -> tuple[Floats, Floats]:
    """Q of the logged slate down to each position, and its mean with that position redrawn.

    Q(a_1..a_k) is the reward of a_k at k, plus that of the positions below as if each were drawn
    from the policy with only a_1..a_k taken away: closed form in O(S K) where the exact future
    would need every continuation. Doubly robust stays unbiased with any Q.
    """
    slots = columns.shape[1]
    logged, redrawn = np.zeros(columns.shape), np.zeros(columns.shape)
    left = chances.copy()
    for slot in range(slots):
        total = left.sum(axis=1, keepdims=True)
        probability = np.divide(left, total, out=np.zeros_like(left), where=total > 0)
        rest = total - left
        usable = rest > 1e-9 * total
        below = present[:, slot + 1 :].sum(axis=1, keepdims=True)
        examined_below = examination[:, slot + 1 :].sum(axis=1, keepdims=True)
        gain = left * (reward.fixed * below + reward.examined * examined_below)
        future = np.divide(
            gain.sum(axis=1, keepdims=True) - gain, rest, out=np.zeros_like(left), where=usable
        )
        q = reward.fixed + examination[:, slot, None] * reward.examined + future
        q = np.where(present[:, slot, None], q, 0.0)
        column = np.maximum(columns[:, slot, None], 0)
        found = columns[:, slot, None] >= 0
        logged[:, slot] = np.where(found, np.take_along_axis(q, column, 1), 0.0)[:, 0]
        redrawn[:, slot] = np.sum(probability * q, axis=1)
        np.put_along_axis(
            left, column, np.where(found, 0.0, np.take_along_axis(left, column, 1)), 1
        )
    return logged, redrawn
