"""Importance weights from propensities, and what they may be cut to."""

import numpy as np

from roiflow.errors import PropensityError
from roiflow.features.table import Floats

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


def clipped(weight: Floats, limit: float) -> Floats:
    """min(w, limit)  (Ionides, 2008)."""
    return np.minimum(weight, limit)


def over_slate(terms: Floats) -> Floats:
    """Terms (n,), or (n, S) summed over the slate."""
    return terms if terms.ndim == 1 else terms.sum(axis=1)
