"""Direct method: mean of q of the slate that the target shows, each ad at its position's looks."""

import numpy as np

from roiflow.evaluation.estimators.weights import over_slate
from roiflow.features.table import Floats


def dm_terms(target_reward: Floats) -> Floats:
    """The reward a model expects of the target policy; (n,)."""
    return over_slate(target_reward)


def dm(target_reward: Floats) -> float:
    """Mean of q under the target policy."""
    return float(np.mean(dm_terms(target_reward)))
