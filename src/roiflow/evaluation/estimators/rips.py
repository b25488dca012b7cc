"""Reward-interaction IPS (RIPS; McInerney et al., 2020): the product of conditional ratios down to
the position.

Right whenever a position's reward does not depend on what is shown below it, at the price of far
larger weights. The product over the whole slate for every position (Strehl et al., 2010), which
assumes nothing, is its last column.
"""

import numpy as np

from roiflow.evaluation.estimators.weights import LARGEST_WEIGHT, importance_weights
from roiflow.features.table import Floats


def slate_weights(target: Floats, logged: Floats) -> Floats:
    """Weights (n, S) from conditional propensities (n, S), at most LARGEST_WEIGHT.

    Column k is the product of ratios over positions 1 to k (eq. 6).
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
