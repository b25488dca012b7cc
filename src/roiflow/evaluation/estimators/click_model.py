"""Which click model a log is of, and so which estimator decides.

Position-based: a position is looked at as often whatever stands above it. Cascade: who has clicked
above goes on less (Craswell, Zoeter, Taylor & Ramsey, 2008). How much positions are looked at at
all is learnt by swaps (labels.examination), which tell nothing of this: both models give an ad and
the one above it the same clicks in either order. So what is asked is how many clicks there are
right below a click, against what the model expects there, over the same below none:

    R = (clicks below a click / expected there) / (clicks below none / expected there)

1 where the position alone counts, and more where users are less alike than the model knows; a
cascade has less. Doubly robust estimates by the slate are right for both, so that a wrong answer
for the cascade costs width alone: the position-based model has to be refuted.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.evaluation.slates import Slates
from roiflow.evaluation.statistics import cluster_sums
from roiflow.evaluation.target import TargetOnLog

REFUTED = 1.5
"""Standard errors that log R has to be under 0."""


@dataclass(frozen=True)
class BelowAClick:
    """R and the standard error of its logarithm; users are the clusters."""

    ratio: float
    error: float

    @property
    def cascade(self) -> bool:
        """Whether the position-based model is refuted; False where there is too little to tell."""
        return bool(self.error > 0 and np.log(self.ratio) < -REFUTED * self.error)


UNKNOWN = BelowAClick(1.0, 0.0)


def below_a_click(slates: Slates, target: TargetOnLog) -> BelowAClick:
    """From clicks (B, S) and what a package expects of the ads that were shown."""
    # Who clicked above: the position right above, which every position below the first one has.
    above, here = slates.clicked[:, :-1], slates.clicked[:, 1:]
    seen = slates.present[:, 1:] & slates.present[:, :-1]
    expected = np.where(seen, (target.looks * target.click)[:, 1:], 0.0)
    cells = [
        np.sum(values, axis=1, where=where & seen)
        for where in (above, ~above)
        for values in (here.astype(np.float64), expected)
    ]
    sums = cluster_sums(slates.user, np.column_stack(cells))
    total = sums.sum(axis=0)
    if not (total > 0).all():
        return UNKNOWN
    sign = np.array([1.0, -1.0, -1.0, 1.0])
    influence = sums @ (sign / total)
    return BelowAClick(float(np.exp(sign @ np.log(total))), float(np.sqrt(np.sum(influence**2))))
