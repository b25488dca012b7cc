"""Self-normalised IPS: sum(w r) / sum(w)  (Swaminathan & Joachims, 2015)."""

import numpy as np

from roiflow.features.table import Floats


def snips(reward: Floats, weight: Floats) -> float:
    """sum(w r) / sum(w) at each position, summed over the slate (McInerney et al., 2020)."""
    # Normalised at each position, not over the slate: weights differ most between positions, and
    # one sum of all would let the lower ones' noise scale the first one's reward.
    return float(np.sum(np.sum(weight * reward, axis=0) / np.sum(weight, axis=0)))
