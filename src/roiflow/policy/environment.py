"""How users respond to a slate, as the ranker expects it.

A user looks at position i with probability 1/log2(1 + i) (the discount of DCG, Jarvelin &
Kekalainen, 2002), and what is looked at is clicked, converts and costs as the ranker predicts for
position 1. The reward of a slot is therefore known in expectation, and training uses that
expectation instead of drawing clicks: same mean, less variance.
"""

import numpy as np

from roiflow.features.table import Floats, Longs


def discount(slots: int) -> Floats:
    """1/log2(1 + i) of positions 1 to `slots`; (slots,)."""
    weight: Floats = 1 / np.log2(np.arange(2, slots + 2))
    return weight


def slot_rewards(value: Floats, choices: Longs) -> Floats:
    """Expected reward of each slot, discount x value, in the unit of `value`.

    value (B, K), choices (B, ..., S) columns of value or -1 -> (B, ..., S), 0 where -1.
    """
    # One axis for each between request and slot, so that one slate or many of a request go the same
    # way.
    rows = np.arange(value.shape[0]).reshape(-1, *[1] * (choices.ndim - 1))
    chosen = np.where(choices >= 0, value[rows, np.maximum(choices, 0)], 0.0)
    return chosen * discount(choices.shape[-1])


def slate_rewards(value: Floats, choices: Longs) -> Floats:
    """Expected reward of each slate; (B, K), (B, ..., S) -> (B, ...)."""
    return slot_rewards(value, choices).sum(axis=-1)


def rewards_to_go(rewards: Floats) -> Floats:
    """Reward of a slot and all slots below it; (..., S) -> (..., S)."""
    return np.flip(np.cumsum(np.flip(rewards, axis=-1), axis=-1), axis=-1)
