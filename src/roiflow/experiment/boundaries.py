"""Looks at a trial as often as one likes: the normal mixture's boundary, interval and p-value.

Howard, Ramdas, McAuliffe & Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence
sequences": a sum of terms whose variances add to v crosses the boundary at any v at all with
probability alpha at most. The variance here is an estimate, from users as clusters, and the sum's
terms are many: the guarantee is the asymptotic one (Waudby-Smith et al., 2024), from some hundreds
of users on.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()


def best_rho(v: float, alpha: float, sides: int = 2) -> float:
    """The mixture's variance with which the boundary is (nearly) narrowest at `v` (eq. 26)."""
    alpha = alpha if sides == 2 else 2.0 * alpha
    return v / (2.0 * math.log(1.0 / alpha) + math.log(1.0 + 2.0 * math.log(1.0 / alpha)))


def bound(v: float, alpha: float, rho: float, sides: int = 2) -> float:
    """How far from 0 a sum of variance `v` may be (eq. 14; one-sided: where its martingale ends).

    One-sided there is no closed form; bisection to the last digits.
    """
    two_sided = math.sqrt((v + rho) * (math.log1p(v / rho) - 2.0 * math.log(alpha)))
    if sides == 2:
        return two_sided
    low, high = 0.0, two_sided
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        inside = log_mixture(middle, v, rho, 1) < -math.log(alpha)
        low, high = (middle, high) if inside else (low, middle)
    return high


def log_mixture(total: float, v: float, rho: float, sides: int = 2) -> float:
    """Log of the mixture martingale of a sum `total` of variance `v`.

    Ville's inequality: it ever exceeds log(1 / alpha) with probability alpha at most.
    """
    two_sided = 0.5 * (math.log(rho / (v + rho)) + total * total / (v + rho))
    if sides == 2:
        return two_sided
    # Mixed over effects over 0 alone; erfc, because far below 0 a distribution function is 0.
    return two_sided + math.log(max(math.erfc(-total / math.sqrt(2.0 * (v + rho))), 1e-300))


@dataclass(frozen=True)
class Boundary:
    """The looks of one trial: all of them share one alpha and one mixture."""

    alpha: float
    rho: float
    """Of sums in the unit in which they come."""

    @classmethod
    def tuned(cls, alpha: float, requests: float, error: float) -> "Boundary":
        """Narrowest once the mean of `requests` terms has the standard error `error`."""
        return cls(alpha, best_rho((requests * error) ** 2, alpha))

    def half_width(self, requests: float, error: float) -> float:
        """Of the always-valid interval of a mean of `requests` terms with such a standard error."""
        return bound((requests * error) ** 2, self.alpha, self.rho) / requests

    def p_value(self, requests: float, mean: float, error: float, null: float) -> float:
        """Always valid, of a true mean of `null` or less."""
        if error <= 0.0:
            return 0.0 if mean > null else 1.0
        total, v = requests * (mean - null), (requests * error) ** 2
        return min(1.0, math.exp(-log_mixture(total, v, self.rho, 1)))


def tail(z: float) -> float:
    """P(Z > z) of the standard normal law, exact far out."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def quantile(confidence: float) -> float:
    """z with P(Z <= z) = confidence."""
    return _NORMAL.inv_cdf(confidence)
