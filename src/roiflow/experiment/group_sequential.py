"""Planned looks: narrower than what is valid always, where it is known how many there will be.

Each look may spend a part of alpha (Lan & DeMets, 1983), by the spending function of Hwang, Shih &
DeCani (1990). What is left of the law of the score after each look is carried on by numerical
integration (Armitage, McPherson & Rowe, 1969). Looks are taken to bring equal information.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from roiflow.experiment.boundaries import quantile

Floats = NDArray[np.float64]

_POINTS, _FAR = 1201, 8.0
"""Of Simpson's rule, and standard deviations beyond which there is nothing left to lose."""


def spent(time: float, alpha: float, shape: float) -> float:
    """Of alpha by a share `time` of the information; under 0 a `shape` saves it for the end."""
    if shape == 0.0:
        return alpha * time
    return alpha * math.expm1(-shape * time) / math.expm1(-shape)


@cache
def critical_values(looks: int, alpha: float, shape: float) -> tuple[float, ...]:
    """One-sided Z at each look: P(Z is over its value at any of them) = alpha."""
    times = [(look + 1) / looks for look in range(looks)]
    each = np.diff([0.0, *(spent(time, alpha, shape) for time in times)])
    found = [quantile(1.0 - each[0])]
    grid, density = _first(times[0], found[0])
    for look in range(1, looks):
        step = times[look] - times[look - 1]
        bound = _crossing(grid, density, step, float(each[look]))
        found.append(bound / math.sqrt(times[look]))
        grid, density = _next(grid, density, step, bound)
    return tuple(found)


def _first(time: float, z: float) -> tuple[Floats, Floats]:
    """Grid and weighted density of the score at the first look, where it has not crossed."""
    grid = _grid(z * math.sqrt(time))
    return grid, _simpson(grid) * np.exp(-0.5 * grid**2 / time) / math.sqrt(2 * math.pi * time)


def _next(grid: Floats, density: Floats, step: float, bound: float) -> tuple[Floats, Floats]:
    """The same a look later."""
    after = _grid(bound)
    apart = after[:, None] - grid
    moved = np.exp(-0.5 * apart**2 / step) / math.sqrt(2 * math.pi * step) @ density
    return after, _simpson(after) * moved


def _crossing(grid: Floats, density: Floats, step: float, mass: float) -> float:
    """The score over which `mass` of the paths that went on comes next."""
    low, high = -_FAR, _FAR
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        over = sum(
            0.5 * math.erfc(one / math.sqrt(2.0 * step)) * weight
            for one, weight in zip((middle - grid).tolist(), density.tolist(), strict=True)
        )
        low, high = (middle, high) if over > mass else (low, middle)
    return high


def _grid(bound: float) -> Floats:
    # The score's variance is 1 at the last look, and less before.
    return np.linspace(-_FAR, bound, _POINTS)


def _simpson(grid: Floats) -> Floats:
    weights = np.ones(_POINTS)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    found: Floats = weights * (grid[1] - grid[0]) / 3.0
    return found
