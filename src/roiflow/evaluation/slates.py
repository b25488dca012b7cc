"""Logged slates, and what a Plackett-Luce policy would have done and earned with them.

The policy fills as many positions as were logged. A click at position p is as likely as at
position 1 times a factor of p (examination hypothesis; Richardson, Dominowska & Ragno, 2007).
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import ContractError
from roiflow.evaluation.ope import importance_weights, slate_weights
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
class Expectation:
    """What a model expects of one kind of money on B logged slates; (B, S) micros each."""

    target: Floats
    """Of the policy's ad at the position."""
    logged: Floats
    """Of the logged ad at the position."""
    cascade_target: Floats
    """Mean of `cascade_logged` with the position redrawn under the logged ads above it."""
    cascade_logged: Floats
    """Q of the logged slate down to the position: its ad and all that is to come below."""


@dataclass(frozen=True)
class TargetOnLog:
    """A target policy on B logged slates."""

    weight: Floats  # (B, S) of each position by itself; 0 where absent
    slate_weight: Floats  # (B, S) reward-interaction; 0 where absent
    support: float
    """Share of the policy's first choice that lies on ads the log shows."""
    revenue: Expectation
    cost: Expectation


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
    policy's share of each position. Where propensities were not logged, weights are NaN.
    """
    columns = columns_of(sets.ad, slates.ad)
    examination = np.where(slates.present, factors_at(factors, slates.position), 0.0)
    at_impression = shares.impression * sets.bid.astype(np.float64)
    rewards = (
        _Reward(np.zeros(logits.shape, np.float64), sets.expected_revenue),
        _Reward(at_impression, sets.expected_cost - at_impression),
    )
    shares_of_slots = position_marginals(logits, columns.shape[1], draws, rng)
    chances = shares_of_slots[:, 0]
    revenue, cost = (
        _expectation(reward, shares_of_slots, columns, slates.present, examination)
        for reward in rewards
    )
    known = np.where(sets.ad >= 0, shown[np.maximum(sets.ad, 0)], False)
    return TargetOnLog(
        weight=_position_weights(slates, shares_of_slots, columns),
        slate_weight=_slate_weights(slates, logits, columns),
        support=float(np.sum(chances * known) / chances.shape[0]),
        revenue=revenue,
        cost=cost,
    )


def position_marginals(logits: Floats, slots: int, draws: int, rng: np.random.Generator) -> Floats:
    """P(candidate a stands at position k) of Plackett-Luce logits (B, K); (B, slots, K).

    The first position is exact; those below are means over `draws` sampled slates of the
    probability given the ads above, which has far less noise than counting the draws.
    """
    top = logits.max(axis=1, keepdims=True)
    chances = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = np.zeros((logits.shape[0], slots, logits.shape[1]))
    rows = np.arange(logits.shape[0])
    for _ in range(draws if slots > 1 else 1):
        choices, _ = sample(logits, slots, rng)
        left = chances.copy()
        for slot in range(slots):
            total[:, slot] += _shares(left)
            filled = choices[:, slot] >= 0
            left[rows[filled], choices[filled, slot]] = 0.0
    return total / (draws if slots > 1 else 1)


def _shares(values: Floats) -> Floats:
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _at(values: Floats, columns: Longs) -> Floats:
    """Entries (B, S) of values (B, S, K) at columns (B, S), 0 where the column is -1."""
    found = np.take_along_axis(values, np.maximum(columns, 0)[:, :, None], axis=2)[:, :, 0]
    return np.where(columns >= 0, found, 0.0)


def _position_weights(slates: Slates, marginals: Floats, columns: Longs) -> Floats:
    """Weights (B, S) of the item-position model (independent IPS; Li et al., 2018).

    The target's chance of the ad at the position, over the logged one. Logged propensities are
    given the ads above, which cannot stand there again: the target's chance is taken among the
    others too, so that weights have mean 1. What that moves is the share of the target's mass on
    the ads logged above, times how far those differ from the rest.
    """
    target = _at(marginals, columns)
    rows = np.arange(columns.shape[0])
    for slot in range(1, columns.shape[1]):
        above = np.zeros(columns.shape[0])
        for upper in range(slot):
            mass = marginals[rows, slot, np.maximum(columns[:, upper], 0)]
            above += np.where(columns[:, upper] >= 0, mass, 0.0)
        rest = 1.0 - above
        target[:, slot] = np.divide(
            target[:, slot], rest, out=np.zeros_like(rest), where=rest > 1e-9
        )
    return _by_propensity(slates, np.minimum(target, 1.0), importance_weights)


def _slate_weights(slates: Slates, logits: Floats, columns: Longs) -> Floats:
    return _by_propensity(slates, conditional_propensities(logits, columns), slate_weights)


def _by_propensity(
    slates: Slates, target: Floats, weights: Callable[[Floats, Floats], Floats]
) -> Floats:
    """0 where absent, NaN in slates without propensities."""
    result = np.full(target.shape, np.nan)
    logged = slates.logged
    if logged.any():
        filled = np.where(slates.present, target, 1.0)[logged]
        result[logged] = weights(filled, slates.propensity[logged])
    return np.where(slates.present, result, 0.0)


def _expectation(
    reward: _Reward, marginals: Floats, columns: Longs, present: Flags, examination: Floats
) -> Expectation:
    slots = columns.shape[1]
    q = np.stack(
        [reward.fixed + examination[:, k, None] * reward.examined for k in range(slots)], axis=1
    )
    q = np.where(present[:, :, None], q, 0.0)
    cascade_logged, cascade_target = _control_variate(
        reward, marginals[:, 0], columns, present, examination
    )
    return Expectation(
        target=np.sum(marginals * q, axis=2),
        logged=_at(q, columns),
        cascade_target=cascade_target,
        cascade_logged=cascade_logged,
    )


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
