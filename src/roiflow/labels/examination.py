"""How much less a lower position is looked at: P(looked at k) / P(looked at 1).

A click at position k is as likely as at position 1 times a factor of k (examination hypothesis;
Richardson, Dominowska & Ragno, 2007). The factor multiplies the click's probability, in training,
evaluation and serving alike, and is left out where an ad's own worth is asked for.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Floats, Ints, Singles


@dataclass(frozen=True)
class Examination:
    """Factors by position, of which the first is 1."""

    factor: Floats  # (positions,) of position 1, 2, ...

    def at(self, position: Ints) -> Singles:
        """Factors in the shape of `position`, 1-based; beyond the last known one it is that."""
        place = np.clip(position, 1, self.factor.size) - 1
        return self.factor[place].astype(np.float32)
