"""Switch-DR: doubly robust where the weight is small, the model alone where it is large.

q(target) + w 1(w <= limit) (r - q(logged))  (Wang, Agarwal & Dudik, 2017).
"""

import numpy as np

from roiflow.evaluation.estimators.dr import dr_terms
from roiflow.features.table import Floats


def switched(weight: Floats, limit: float) -> Floats:
    """The weight, or 0 where it is over the limit."""
    return np.where(weight <= limit, weight, 0.0)


def switch_dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats, limit: float
) -> Floats:
    """Terms (n,)."""
    return dr_terms(reward, switched(weight, limit), logged_reward, target_reward)
