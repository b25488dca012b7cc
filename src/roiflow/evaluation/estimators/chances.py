"""How likely a policy shows the ads of logged slates, whatever it shows beside them.

A weight is the target's chance over the log's, and both have to be of one kind: an ad's chance at a
position whatever stands above it (marginal), or given the ads above (conditional). A marginal over
a conditional is neither, and costs a policy against itself half of its effective sample.
"""

from dataclasses import dataclass, fields

import numpy as np

from roiflow.evaluation.estimators.weights import LARGEST_WEIGHT
from roiflow.features.table import Floats, Longs


@dataclass(frozen=True)
class Chances:
    """Of the ads of B logged slates of S positions; 0 where absent."""

    marginal: Floats
    """(B, S) P(the ad stands at this position)."""
    exposure: Floats
    """(B, S) sum over positions k of P(k is looked at) P(the ad stands at k)."""
    presence: Floats
    """(B, S) the same with what an impression is charged at k in the place of looks."""
    kind: Floats
    """(B, S) exposure of all ads of the ad's kind."""

    def take(self, rows: Longs | slice) -> "Chances":
        """The slates `rows`, in that order."""
        return Chances(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def mixed(stable: Chances, canary: Chances, share: Floats) -> Chances:
    """Of both policies together, the canary with `share` (B,) of the slates.

    Where both are alike, it is theirs to the last bit.
    """
    # Not (1 - share) x stable + share x canary, which rounds: a policy against itself would have
    # weights of 1 and a bit.
    return Chances(
        **{
            field.name: one + share[:, None] * (getattr(canary, field.name) - one)
            for field in fields(Chances)
            for one in [getattr(stable, field.name)]
        }
    )


def ratio(target: Floats, logged: Floats) -> Floats:
    """Weights (B, S) of chances (B, S): 0 where neither shows the ad, at most LARGEST_WEIGHT.

    An ad that was shown though it had no chance has the largest one, with which no estimate is
    conclusive.
    """
    with np.errstate(over="ignore"):
        weight = np.divide(target, logged, out=np.where(target > 0, np.inf, 0.0), where=logged > 0)
    return np.minimum(weight, LARGEST_WEIGHT)
