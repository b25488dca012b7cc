"""Doubly robust over slates where the ads above matter (Kiyohara et al., 2022, eq. 7)."""

import numpy as np

from roiflow.evaluation.estimators.weights import over_slate
from roiflow.features.table import Floats


def cascade_dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> Floats:
    """Terms (n,) from the weights of RIPS (n, S).

    `logged_reward` column k is Q of the logged slate down to k; `target_reward` column k is the
    mean of that same Q when position k is redrawn from the target policy under the logged ads
    above it. Its weight is therefore the product over the positions above k.
    """
    # A position that is redrawn was reached with the ads above as logged: their ratios weigh it.
    above = np.column_stack([np.ones(weight.shape[0]), weight[:, :-1]])
    return over_slate(weight * (reward - logged_reward) + above * target_reward)


def cascade_dr(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> float:
    """Mean of the terms."""
    return float(np.mean(cascade_dr_terms(reward, weight, logged_reward, target_reward)))
