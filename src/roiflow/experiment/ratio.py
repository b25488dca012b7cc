"""Sample-ratio mismatch: whether the arms hold as many users as the hash gives them.

Where they do not, something between the hash and the log loses users of one arm, and no estimate
is of the same people any more (Fabijan et al., 2019). Users and not requests are counted: a user's
requests come together, and an arm that is liked more has more of them.
"""

import math

import numpy as np
from numpy.typing import NDArray

from roiflow.experiment.boundaries import tail
from roiflow.experiment.discoveries import benjamini_hochberg


def mismatch(canary: int, users: int, share: float) -> float:
    """Two-sided p-value of `canary` of `users` users where each is in it with chance `share`.

    The normal law with continuity correction; exact for small numbers it is not, but `ratio_level`
    is far below what it is off by.
    """
    if not 0.0 < share < 1.0 or users == 0:
        expected = share * users
        return 1.0 if canary == round(expected) else 0.0
    deviation = math.sqrt(users * share * (1.0 - share))
    z = max(0.0, abs(canary - users * share) - 0.5) / deviation
    return min(1.0, 2.0 * tail(z))


def of_phases(
    user: NDArray[np.integer], canary: NDArray[np.bool_], share: NDArray[np.float64]
) -> float:
    """The smallest adjusted p-value of any phase (Simes, 1986); requests (n,) by their share."""
    found = []
    for one in [one for one in np.unique(share).tolist() if 0.0 < one < 1.0]:
        at = share == one
        users, first = np.unique(user[at], return_index=True)
        found.append(mismatch(int(canary[at][first].sum()), users.size, one))
    return float(benjamini_hochberg(np.array(found)).min(initial=1.0))
