"""What a Plackett-Luce policy would have done and earned on logged slates.

The policy fills as many positions as were logged; a position is looked at as labels have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from zipfile import BadZipFile

import numpy as np

from roiflow.compiled import compiled
from roiflow.data.split import TEST
from roiflow.errors import ArtefactError
from roiflow.evaluation.estimators.chances import Chances
from roiflow.evaluation.slates import Slates
from roiflow.features.table import AD_ATTRIBUTES, Features, Flags, Floats, Ints, Longs
from roiflow.files import write_file
from roiflow.labels.examination import Examination, logged_charges, swaps
from roiflow.labels.model import Labels
from roiflow.policy import plackett_luce
from roiflow.policy.candidate_sets import CandidateSets, columns_of
from roiflow.policy.plackett_luce import conditional_propensities
from roiflow.ranking.value import CostShares

EXACT = 3
"""Positions whose shares are sums over all that may stand above; the cost is K to their number."""


CATEGORY = AD_ATTRIBUTES.index("category")


@dataclass(frozen=True)
class LoggedWeek:
    """What the log of a week tells, whichever policy is asked about."""

    examination: Examination
    """How much a position is looked at."""
    charged: Examination
    """How much of what an impression is charged is due at a position: all of it, or as looks."""
    shown: Flags
    """(ads,) which ads the log shows."""
    kind: Ints
    """(ads,) what an ad is like: MIPS takes ads of one kind for the same."""

    @classmethod
    def of(cls, features: Features, labels: Labels) -> "LoggedWeek":
        """The test week."""
        rows = features.rows(TEST)
        shown = np.zeros(features.attributes.shape[0], dtype=bool)
        shown[features.impressions.ad[rows]] = True
        kind = np.asarray(features.attributes[:, CATEGORY])
        return cls(labels.examination, _charged(features, rows), shown, kind)

    @classmethod
    def served(cls, examination: Examination, kind: Ints) -> "LoggedWeek":
        """A week that is being served: every ad may be shown, and impressions are paid in full."""
        return cls(examination, Examination(np.ones(1)), np.ones(kind.size, dtype=bool), kind)


def _charged(features: Features, rows: Longs) -> Examination:
    """What is charged for an impression that brings no click, by position, relative to the first.

    By swaps, as looks are; all of it where that is within three standard errors.
    """
    found = swaps(*logged_charges(features, rows))
    paid = np.nan_to_num(found.factor, nan=1.0)
    whole = np.nan_to_num(paid + 3.0 * found.error, nan=np.inf) >= 1.0
    return Examination(np.where(whole, 1.0, paid))


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
    """A policy on B logged slates: all that its estimates are made of, whoever logged them."""

    place: ClassVar[Path] = Path("data/evaluation/target.npz")

    row: Longs
    """(B,) row of the impression at the top: which slates these are."""
    propensity: Floats
    """(B, S) of the logged ad given the logged ads above it; 1 where absent."""
    looks: Floats
    """(B, S) P(the position is looked at), relative to the first; 0 where absent."""
    due: Floats
    """(B, S) how much of what an impression is charged is due at the position; 0 where absent."""
    chances: Chances
    """(B, S) of the logged ads, whatever stands above them."""
    support: Floats
    """(B,) share of the policy's first choice that lies on ads the log shows."""
    ads: Longs
    """(B,) how many ads the log of the week shows."""
    drawn: Ints
    """(B, S) ads of one slate drawn from the policy, -1 where it leaves a slot empty."""
    revenue: Expectation
    cost: Expectation
    charge: Floats
    """(B, S) of `cost.logged`: micros that are due at the impression."""
    click: Floats
    """(B, S) P(click | looked at) of the logged ad, as the models have it."""

    def take(self, rows: Longs | slice) -> "TargetOnLog":
        """The slates `rows`, in that order."""
        return _target({name: values[rows] for name, values in _arrays(self).items()})

    def write(self, path: Path) -> None:
        """One .npz file; equal values give equal bytes."""
        with write_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **_arrays(self))

    def only(self, row: Longs) -> "TargetOnLog":
        """Of the slates of these rows (n,), in their order; each has to be there."""
        order = np.argsort(self.row)
        at = order[np.searchsorted(self.row, row, sorter=order).clip(max=self.row.size - 1)]
        return _target({name: array[at] for name, array in _arrays(self).items()})

    @classmethod
    def read(cls, path: Path) -> "TargetOnLog":
        """Raises ArtefactError, naming the file, where it is not as `write` leaves it."""
        try:
            with np.load(path) as arrays:
                return _target({name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise ArtefactError(
                f"{path}: not a policy on logged slates ({error}): evaluate again"
            ) from None


def _arrays(target: TargetOnLog) -> dict[str, Any]:
    """Every array by name; those of an expectation as revenue.target and so on."""
    flat: dict[str, Any] = {}
    for field in fields(target):
        value = getattr(target, field.name)
        if is_dataclass(value):
            flat |= {f"{field.name}.{name}": array for name, array in vars(value).items()}
        else:
            flat[field.name] = value
    return flat


def _target(arrays: dict[str, Any]) -> TargetOnLog:
    def part(kind: type[Any], name: str) -> Any:
        return kind(**{field.name: arrays[f"{name}.{field.name}"] for field in fields(kind)})

    plain = {name: array for name, array in arrays.items() if "." not in name}
    return TargetOnLog(
        **plain,
        chances=part(Chances, "chances"),
        revenue=part(Expectation, "revenue"),
        cost=part(Expectation, "cost"),
    )


def in_order(parts: Sequence[TargetOnLog], at: Longs) -> TargetOnLog:
    """Parts as one, where their rows (B,) belong at the places `at` (B,)."""
    back = np.argsort(at)
    flat = [_arrays(part) for part in parts]
    return _target({name: np.concatenate([one[name] for one in flat])[back] for name in flat[0]})


@dataclass(frozen=True)
class _Reward:
    """Reward of candidate a at a position: due[position] x fixed[a] + looks[position] x seen[a]."""

    fixed: Floats  # (B, K)
    seen: Floats  # (B, K)
    due: Floats  # (B, S)
    looks: Floats  # (B, S)

    def at(self, slot: int) -> Floats:
        """Of every candidate at one position (B, K)."""
        return self.due[:, slot, None] * self.fixed + self.looks[:, slot, None] * self.seen


class Noise(Protocol):
    """Where Gumbel noise comes from; a numpy generator is one."""

    def gumbel(self, *, size: tuple[int, ...]) -> Floats:
        """The next numbers (B, K) of the requests' candidates."""
        ...


def target_on_log(
    slates: Slates,
    sets: CandidateSets,
    logits: Floats,
    shares: CostShares,
    week: LoggedWeek,
    draws: int,
    rng: Noise,
) -> TargetOnLog:
    """Weights and model expectations of the policy `logits` (B, K) on the logged slates.

    `draws` slates a request are sampled for the policy's share of positions below the third. Where
    propensities were not logged, weights are NaN.
    """
    # An ad that the policy would not have considered (column -1) has no chance. What that leaves
    # unknown is told by `support`.
    columns = columns_of(sets.ad, slates.ad)
    looks, due = (
        np.where(slates.present, factor.at(slates.position), 0.0).astype(np.float64)
        for factor in (week.examination, week.charged)
    )
    # A bid's share that is paid at the impression may be due whether anybody looks or not; all
    # other money follows clicks, which shrink with the position.
    at_impression = shares.impression * sets.bid.astype(np.float64)
    nothing = np.zeros(logits.shape, np.float64)
    rewards = (
        _Reward(nothing, sets.expected_revenue, due, looks),
        _Reward(at_impression, sets.expected_cost - at_impression, due, looks),
    )
    marginals = position_marginals(logits, columns.shape[1], draws, rng)
    revenue, cost = (_expectation(reward, marginals, columns, slates.present) for reward in rewards)
    known = np.where(sets.ad >= 0, week.shown[np.maximum(sets.ad, 0)], False)
    drawn = plackett_luce.best(logits + rng.gumbel(size=logits.shape), columns.shape[1])
    propensity = conditional_propensities(logits, columns)
    return TargetOnLog(
        row=slates.row,
        propensity=np.where(slates.present, propensity, 1.0),
        looks=looks,
        due=due,
        chances=_chances(marginals, columns, looks, due, _same_kind(slates, sets, week)),
        support=np.sum(marginals[:, 0] * known, axis=1),
        ads=np.full(slates.row.size, np.count_nonzero(week.shown)),
        drawn=np.where(
            drawn >= 0, np.take_along_axis(sets.ad, np.maximum(drawn, 0), axis=1), np.int32(-1)
        ),
        revenue=revenue,
        cost=cost,
        charge=due * _of_logged(at_impression, columns),
        click=_of_logged(sets.click, columns),
    )


def _same_kind(slates: Slates, sets: CandidateSets, week: LoggedWeek) -> Flags:
    """(B, S, K): which candidates are of the kind of a logged ad."""
    logged = week.kind[np.maximum(slates.ad, 0)]
    candidate = np.where(sets.ad >= 0, week.kind[np.maximum(sets.ad, 0)], -1)
    same: Flags = slates.present[:, :, None] & (logged[:, :, None] == candidate[:, None, :])
    return same


def _chances(
    marginals: Floats, columns: Longs, looks: Floats, due: Floats, same_kind: Flags
) -> Chances:
    """Of marginals (B, S, K), the ads at columns (B, S)."""
    exposure = np.einsum("bs,bsk->bk", looks, marginals)
    presence = np.einsum("bs,bsk->bk", due, marginals)
    return Chances(
        marginal=np.where(due > 0, _at(marginals, columns), 0.0),
        exposure=np.where(due > 0, _of_logged(exposure, columns), 0.0),
        presence=np.where(due > 0, _of_logged(presence, columns), 0.0),
        kind=np.einsum("bk,bsk->bs", exposure, same_kind),
    )


def _of_logged(values: Floats, columns: Longs) -> Floats:
    """Entries (B, S) of values (B, K) at columns (B, S), 0 where the column is -1."""
    found = np.take_along_axis(values, np.maximum(columns, 0), axis=1)
    return np.where(columns >= 0, found, 0.0)


def position_marginals(logits: Floats, slots: int, draws: int, rng: Noise) -> Floats:
    """P(candidate a stands at position k) of Plackett-Luce logits (B, K); (B, slots, K).

    The first three positions are exact. Those below are means over `draws` sampled slates of the
    probability given the ads above, which has far less noise than counting the draws.
    """
    # Odds relative to the best candidate: the largest is 1, so that none overflows, and a request
    # without any candidate has odds of 0 instead of NaN.
    top = logits.max(axis=1, keepdims=True)
    chances = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    marginals = np.zeros((logits.shape[0], slots, logits.shape[1]))
    marginals[:, 0] = _shares(chances)
    if slots > 1:
        _below(chances, marginals[:, 1:EXACT])
    rows = np.arange(logits.shape[0])
    for _ in range(draws if slots > EXACT else 0):
        above = plackett_luce.best(logits + rng.gumbel(size=logits.shape), slots - 1)
        left = chances.copy()
        for slot in range(1, slots):
            filled = above[:, slot - 1] >= 0
            left[rows[filled], above[filled, slot - 1]] = 0.0
            if slot >= EXACT:
                marginals[:, slot] += _shares(left)
    marginals[:, EXACT:] /= draws
    return marginals


@compiled(nogil=True)
def _below(chances: Floats, out: Floats) -> None:
    """Second and, where `out` (B, 1 or 2, K) has it, third position of odds (B, K).

    Sums over the ad above, or over both: a weight divides by a propensity as small as a thousandth,
    so that what 32 draws left in a marginal moved a week's lift by a quarter of itself.
    """
    candidates = chances.shape[1]
    for row in range(chances.shape[0]):
        left = chances[row].copy()  # what stands above has odds 0 in it
        total = left.sum()
        for first in range(candidates):
            taken = left[first]
            left[first] = 0.0
            after = _rest(left, total, taken)
            if taken > 0 and after > 0:
                _add(out[row, 0], taken / total / after, left)
                for second in range(candidates if out.shape[1] > 1 else 0):
                    also = left[second]
                    left[second] = 0.0
                    rest = _rest(left, after, also)
                    if also > 0 and rest > 0:
                        _add(out[row, 1], taken / total * also / after / rest, left)
                    left[second] = also
            left[first] = taken


@compiled(nogil=True)
def _add(out: Floats, scale: float, values: Floats) -> None:
    for at in range(values.size):
        out[at] += scale * values[at]


@compiled(nogil=True)
def _rest(left: Floats, total: float, taken: float) -> float:
    """Sum of `left` (K,), that is `total` without `taken`, added up anew where that cancels."""
    rest = total - taken
    return rest if rest > 1e-6 * total else left.sum()


def _shares(values: Floats) -> Floats:
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _at(values: Floats, columns: Longs) -> Floats:
    """Entries (B, S) of values (B, S, K) at columns (B, S), 0 where the column is -1."""
    found = np.take_along_axis(values, np.maximum(columns, 0)[:, :, None], axis=2)[:, :, 0]
    return np.where(columns >= 0, found, 0.0)


def _expectation(reward: _Reward, marginals: Floats, columns: Longs, present: Flags) -> Expectation:
    slots = columns.shape[1]
    q = np.stack([reward.at(slot) for slot in range(slots)], axis=1)
    q = np.where(present[:, :, None], q, 0.0)
    cascade_logged, cascade_target = _control_variate(reward, marginals[:, 0], columns, present)
    return Expectation(
        target=np.sum(marginals * q, axis=2),
        logged=_at(q, columns),
        cascade_target=cascade_target,
        cascade_logged=cascade_logged,
    )


def _control_variate(
    reward: _Reward, chances: Floats, columns: Longs, present: Flags
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
        # Where the position takes nearly all the mass, what is below has no distribution left that
        # numbers could tell: 0 then, which any control variate may be.
        usable = rest > 1e-9 * total
        below = reward.due[:, slot + 1 :].sum(axis=1, keepdims=True)
        looks_below = reward.looks[:, slot + 1 :].sum(axis=1, keepdims=True)
        gain = left * (reward.fixed * below + reward.seen * looks_below)
        future = np.divide(
            gain.sum(axis=1, keepdims=True) - gain, rest, out=np.zeros_like(left), where=usable
        )
        q = np.where(present[:, slot, None], reward.at(slot) + future, 0.0)
        column = np.maximum(columns[:, slot, None], 0)
        found = columns[:, slot, None] >= 0
        logged[:, slot] = np.where(found, np.take_along_axis(q, column, 1), 0.0)[:, 0]
        redrawn[:, slot] = np.sum(probability * q, axis=1)
        np.put_along_axis(
            left, column, np.where(found, 0.0, np.take_along_axis(left, column, 1)), 1
        )
    return logged, redrawn
