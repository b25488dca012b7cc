"""How long conversions and returns take to become known: shares known by an age, by category.

Only what is known already can be counted, so short delays are seen too often. Each delay is
right-truncated by the age of what it follows; the reverse-time product-limit estimate is right
under that (Lagakos, Barraj & De Gruttola, 1988). Different from it, hazards of a category are drawn
towards those of all, and those of a segment towards its category's, so that a few conversions do
not make a curve of their own. It says nothing of delays beyond the longest age: those are taken not
to happen.

Delays and ages are counted in hours of the clock: what happened in one hour and became known in
another has their difference. Sources hand events on at whole hours, and a delay in elapsed time
would be cut there by half an hour on average.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.table import Floats, Ints, Longs


def hours_between(start: Longs, end: Longs | int) -> Longs:
    """Hours of the clock (n,) from times (n,) to others, microseconds; at least 0."""
    hours: Longs = np.maximum(end // MICROS_PER_HOUR - start // MICROS_PER_HOUR, 0)
    return hours


@dataclass(frozen=True)
class Curves:
    """P(a delay is under h hours) by category and segment, for h from 0 on; 1 from the last one.

    Cells without a delay of their own share their category's curve, categories without one that of
    all, which is the first.
    """

    cell: Ints  # (categories, segments) number of the curve
    share: Floats  # (curves, hours) ascending in a row

    @classmethod
    def of(
        cls,
        delay: Longs,
        age: Longs,
        category: Ints,
        segment: Ints,
        sizes: tuple[int, int],
        prior: float,
    ) -> "Curves":
        """Delays (n,) under ages (n,), hours, of what is known, in cells of `sizes`.

        `prior` delays, as the curve above has them, draw each curve towards it. What was known at
        an age of h was known with a delay under h. Nothing known: nothing is to come.
        """
        hours = int(delay.max(initial=-1)) + 1
        own, by_category = np.unique(category, return_inverse=True)
        everyone = np.zeros(delay.size, np.int64)
        top = _hazards(delay, age, everyone, 1, hours, np.zeros((1, hours)), 0.0)
        middle = _hazards(delay, age, by_category, own.size, hours, top, prior)
        numbers = np.zeros(sizes, np.int32)
        numbers[own] = 1 + np.arange(own.size)[:, None]
        if sizes[1] == 1:
            return cls(numbers, _shares(np.concatenate([top, middle])))
        number = category.astype(np.int64) * sizes[1] + segment
        cells, by_cell = np.unique(number, return_inverse=True)
        parent = middle[np.searchsorted(own, cells // sizes[1])]
        low = _hazards(delay, age, by_cell, cells.size, hours, parent, prior)
        numbers.ravel()[cells] = 1 + own.size + np.arange(cells.size)
        return cls(numbers, _shares(np.concatenate([top, middle, low])))

    @property
    def hours(self) -> int:
        """From this age on everything is known."""
        return self.share.shape[1] - 1

    def known(self, category: Ints, segment: Ints, age: Longs) -> Floats:
        """Share (n,) that is known by ages (n,) in hours."""
        found: Floats = self.share[self.cell[category, segment], np.clip(age, 0, self.hours)]
        return found

    def mean(self, category: Ints, segment: Ints) -> Floats:
        """Mean delay (n,), hours of the clock."""
        found: Floats = self._means()[self.cell[category, segment]]
        return found

    @property
    def mean_of_all(self) -> float:
        """Mean delay of all, hours of the clock."""
        return float(self._means()[0])

    def _means(self) -> Floats:
        # The mean of a count from 0 on is the sum of the chances that it goes on.
        means: Floats = (1.0 - self.share[:, 1:]).sum(axis=1)
        return means


def _hazards(
    delay: Longs,
    age: Longs,
    group: Longs,
    groups: int,
    hours: int,
    parent: Floats,
    prior: float,
) -> Floats:
    """P(delay = h | delay <= h) by group (groups, hours); `parent` has its row or rows."""

    def counted(value: Longs) -> Floats:
        flat = np.bincount(group * (hours + 1) + value, minlength=groups * (hours + 1))
        return flat.reshape(groups, hours + 1)[:, :hours].astype(np.float64)

    took = counted(delay)
    # At risk of h: those that took no longer, less those too young to be seen with it. As no delay
    # reaches its age, the second are among the first.
    at_risk = np.cumsum(took, axis=1) - np.cumsum(counted(np.minimum(age, hours)), axis=1)
    total = at_risk + prior
    # Where nothing is at risk nothing was seen: nobody took so long.
    return np.divide(took + prior * parent, total, out=np.zeros_like(total), where=total > 0)


def _shares(hazards: Floats) -> Floats:
    """P(delay < h) (curves, hours + 1): the product of 1 - hazard over all longer delays."""
    # From the back; the shortest delay's own hazard leads to P(delay < shortest), which is 0.
    shares = np.ones((hazards.shape[0], hazards.shape[1] + 1))
    shares[:, :-1] = np.cumprod((1.0 - hazards)[:, ::-1], axis=1)[:, ::-1]
    return shares
