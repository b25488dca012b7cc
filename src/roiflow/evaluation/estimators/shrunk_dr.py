"""Doubly robust with optimistic shrinkage of its weights (Su, Dimakopoulou, Krishnamurthy & Dudik,
2020): w becomes lambda w / (w^2 + lambda), which no weight leaves over sqrt(lambda) / 2.
"""

import numpy as np

from roiflow.evaluation.estimators.dr import dr_terms
from roiflow.features.table import Floats


def shrunk(weight: Floats, strength: float) -> Floats:
    """lambda w / (w^2 + lambda); 0 is the direct method, infinity doubly robust."""
    if strength == np.inf:
        return weight
    over = weight**2 + strength
    return np.divide(strength * weight, over, out=np.zeros_like(weight), where=over > 0)


def shrunk_dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats, strength: float
) -> Floats:
    """Terms (n,)."""
    return dr_terms(reward, shrunk(weight, strength), logged_reward, target_reward)
