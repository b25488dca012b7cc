"""Plackett-Luce slates: slots are filled one by one, without replacement, by a softmax.

P(slate) = prod_s exp(logit[c_s]) / sum over the candidates not yet chosen of exp(logit)
(Plackett, 1975; Luce, 1959). Sampling is the Gumbel top-k trick (Kool, van Hoof & Welling, 2019).

Denominators are accumulated from the last slot to the first, by additions in log space only, so
nothing cancels: a candidate whose softmax probability rounds to 1 leaves the others exact.

A candidate that cannot be shown has logit -inf. A slot that no candidate is left for holds the
choice -1, with propensity 1; a choice that is -1 while candidates are left, that cannot be shown
or that repeats an earlier one has propensity 0. So propensities always sum to 1 over slates.
"""

import numpy as np

from roiflow.errors import PropensityError
from roiflow.features.table import Floats, Longs


def _check(logits: Floats) -> None:
    bad = np.isnan(logits) | np.isposinf(logits)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise PropensityError(
            f"logits: {int(bad.sum())} of {logits.size} are not below infinity: "
            f"first is row {row}, candidate {column}, value {logits[row, column]}"
        )


def _repeats(choices: Longs) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """(B, S): True where an earlier slot holds the same candidate."""
    earlier = np.tri(choices.shape[1], k=-1, dtype=bool)
    return np.any((choices[:, :, None] == choices[:, None, :]) & earlier, axis=2)


def log_conditional_propensities(logits: Floats, choices: Longs) -> Floats:
    """log P(choice of slot s | choices of the slots above), -inf where it is impossible.

    logits (B, K), choices (B, S) columns of logits or -1 -> (B, S).
    Raises PropensityError where a logit is NaN or +inf.
    """
    _check(logits)
    rows = np.arange(choices.shape[0])[:, None]
    # Everything that was not chosen is summed once, below the last slot; going up, each slot adds
    # its own choice. Going down would subtract, and what is left after a choice of probability
    # nearly 1 would be noise.
    real = (choices >= 0) & ~_repeats(choices)
    chosen = np.where(real, logits[rows, np.maximum(choices, 0)], -np.inf)
    rest = np.array(logits, np.float64)
    rest[np.broadcast_to(rows, choices.shape)[real], choices[real]] = -np.inf
    remaining = np.empty((choices.shape[0], choices.shape[1] + 1))
    # Less the largest, so that exp cannot overflow; where nothing is left less 0, as -inf less -inf
    # is NaN.
    top = np.max(rest, axis=1, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        remaining[:, -1] = np.log(np.exp(rest - shift[:, None]).sum(axis=1)) + shift
    for slot in range(choices.shape[1] - 1, -1, -1):
        remaining[:, slot] = np.logaddexp(chosen[:, slot], remaining[:, slot + 1])
    left = remaining[:, :-1]
    # Where no candidate is left an empty slot is certain, and any other choice still impossible.
    exhausted = np.isneginf(left)
    log_propensity = chosen - np.where(exhausted, 0.0, left)
    return np.where(exhausted & (choices < 0), 0.0, log_propensity)


def conditional_propensities(logits: Floats, choices: Longs) -> Floats:
    """P(choice of slot s | choices of the slots above); (B, K), (B, S) -> (B, S) in [0, 1]."""
    propensity: Floats = np.exp(log_conditional_propensities(logits, choices))
    return propensity


def log_likelihood(logits: Floats, choices: Longs) -> Floats:
    """log P(slate); (B, K), (B, S) -> (B,)."""
    return log_conditional_propensities(logits, choices).sum(axis=1)


def sample(logits: Floats, slots: int, rng: np.random.Generator) -> tuple[Longs, Floats]:
    """Slates and their conditional propensities; (B, K) -> choices (B, slots), (B, slots).

    Raises PropensityError where a logit is NaN or +inf.
    """
    return choose(logits, slots, rng.gumbel(size=logits.shape))


def choose(logits: Floats, slots: int, noise: Floats) -> tuple[Longs, Floats]:
    """As `sample`, by standard Gumbel noise (B, K) that was drawn elsewhere."""
    choices = best(logits + noise, slots)
    return choices, conditional_propensities(logits, choices)


def greedy(logits: Floats, slots: int) -> tuple[Longs, Floats]:
    """The most probable slates and their conditional propensities; (B, K) -> (B, slots) twice."""
    choices = best(logits, slots)
    return choices, conditional_propensities(logits, choices)


def best(keys: Floats, slots: int) -> Longs:
    """Columns (B, slots) of the largest keys (B, K), best first; -1 where only -inf is left.

    A tie goes to the earlier candidate.
    """
    choices = np.full((keys.shape[0], slots), -1, np.int64)
    rows, left = np.arange(keys.shape[0]), np.array(keys)
    # One pass a slot: a slate has a few slots and tens of candidates, so sorting them all would
    # order mostly what nobody sees.
    for slot in range(min(slots, keys.shape[1])):
        column = left.argmax(axis=1)
        choices[:, slot] = np.where(left[rows, column] > -np.inf, column, -1)
        left[rows, column] = -np.inf
    return choices
