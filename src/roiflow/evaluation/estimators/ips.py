"""Inverse propensity scoring: mean of w r  (Horvitz & Thompson, 1952).

Over slates each position is weighed by itself (independent IPS; Li et al., 2018), which is right
where a position's reward depends on its own ad only.
"""

import numpy as np

from roiflow.evaluation.estimators.weights import over_slate
from roiflow.features.table import Floats


def ips_terms(reward: Floats, weight: Floats) -> Floats:
    """Weight x reward, summed over a slate; (n,)."""
    return over_slate(weight * reward)


def ips(reward: Floats, weight: Floats) -> float:
    """Mean of w r."""
    return float(np.mean(ips_terms(reward, weight)))
