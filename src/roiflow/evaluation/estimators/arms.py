"""The difference of two arms, where one of them is no policy that could be replayed.

Each arm's mean weighs its slates by one over its share at the time (Hajek, 1971), so that an arm
that started small is not compared with other hours than its own. Users are the clusters.
"""

import numpy as np

from roiflow.evaluation.estimators.moments import Moments, moments
from roiflow.evaluation.slates import Slates
from roiflow.features.table import Flags, Floats


def difference_of_arms(slates: Slates, share: Floats, canary: Flags, earlier: Floats) -> Moments:
    """Revenue and cost a slate of the stable arm, and how much more the canary has; micros (4,).

    `earlier` (B,) is what each slate's user brought before: what an arm's users had more of it is
    taken off at its regression.
    """
    money = np.column_stack([slates.revenue.sum(axis=1), slates.cost.sum(axis=1)])
    stable, lifted = (
        _relative(mine, chance) for mine, chance in ((~canary, 1 - share), (canary, share))
    )
    means = [np.average(money, axis=0, weights=weight) for weight in (stable, lifted)]
    # As deviations from the arm's own mean, a ratio of sums is a mean to first order.
    terms = [
        weight[:, None] * (money - mean)
        for weight, mean in zip((stable, lifted), means, strict=True)
    ]
    known = earlier - earlier.mean()
    controls = np.column_stack([stable * known, lifted * known])
    found = moments(slates.user, np.hstack([terms[0], terms[1] - terms[0]]), controls)
    return Moments(
        np.concatenate([means[0], means[1] - means[0]]) + found.mean, found.covariance, found.users
    )


def _relative(mine: Flags, chance: Floats) -> Floats:
    """Weights (B,) of an arm's slates, of mean 1."""
    weight = np.where(mine, 1.0 / chance, 0.0)
    return weight / weight.mean()
