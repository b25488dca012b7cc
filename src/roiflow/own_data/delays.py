"""How long conversions take to become known, and how many of the last days' are still to come.

Only what is known already can be counted, so short delays are seen too often. Each conversion's
delay is right-truncated by the age of its impression; the reverse-time product-limit estimate is
right under that (Lagakos, Barraj & De Gruttola, 1988). It says nothing of delays beyond the
longest age: those are taken not to happen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]


@dataclass(frozen=True)
class Delays:
    """P(delay <= t) at times where it steps up; 1 from the last one on."""

    time: Longs  # (m,) microseconds, ascending
    share: Floats  # (m,)

    @classmethod
    def of(cls, delay: Longs, age: Longs) -> "Delays":
        """Delays (n,) of conversions that are known, ages (n,) of their impressions; 0 <= d <= a.

        F(t) is the product over delays d above t of 1 - k(d) / n(d): k conversions took d, and n
        took no longer although they could have been seen with d.
        """
        time, steps = np.unique(delay, return_counts=True)
        # Delays of at most d, less those whose impression is younger than d: as no delay is longer
        # than its age, the second are among the first.
        at_risk = np.searchsorted(np.sort(delay), time, "right") - np.searchsorted(
            np.sort(age), time, "left"
        )
        factor = 1.0 - steps / np.maximum(at_risk, steps)
        # The shortest delay's factor is 0: nothing is known sooner.
        # From the back, since F is the product of the factors of all longer delays.
        share = np.append(np.cumprod(factor[:0:-1])[::-1], 1.0) if time.size else np.zeros(0)
        return cls(time, share)

    def known(self, age: Longs) -> Floats:
        """Share (n,) of the conversions of impressions of an age that is known by then."""
        if not self.time.size:
            return np.ones(age.shape)
        place = np.searchsorted(self.time, age, "right")
        # An age below the shortest delay has place 0, and nothing known.
        return np.append(0.0, self.share)[place]


def still_to_come(delays: Delays, conversions: int, age: Longs) -> Floats:
    """Conversions that each of n impressions (or clicks) may still bring; ages (n,).

    All convert alike: at the rate conversions / (sum of what is known by each age).
    """
    known = delays.known(age)
    total = float(known.sum())
    return (1.0 - known) * (conversions / total if total else 0.0)
