"""What is measured of a log, real or simulated: eight marginals, each a distribution or a curve.

Distributions are of logarithms. Where the units of two logs cannot match (the currency of prices
and revenues, how many items there are), values are taken relative to the log's own median, or as a
share.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from roiflow.calibration.logs import DAYS_PER_WEEK, LEAST_SHOWN, Log
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_SECOND
from roiflow.simulator.noise import Floats, Longs

SMALLEST_GAP = MICROS_PER_SECOND
"""Events of a user in the same second count as one second apart."""
LORENZ_POINTS = 1_000


@dataclass(frozen=True)
class Distribution:
    """Values (n,), ascending, and the weight of each; weights sum to 1."""

    value: Floats
    weight: Floats


@dataclass(frozen=True)
class Curve:
    """A positive number y (n,) at each x (n,)."""

    x: Longs
    y: Floats


Marginal = Distribution | Curve


def activity(log: Log) -> Distribution:
    """Log of a user's events in a week (in the whole log where it is shorter), where any."""
    period = min(log.days, DAYS_PER_WEEK) * MICROS_PER_DAY
    # Whole weeks only: a part of one would look like users who do little.
    whole = log.time < log.days * MICROS_PER_DAY // period * period
    cell = log.user[whole] * (log.days + 1) + log.time[whole] // period
    return _logs(np.unique(cell, return_counts=True)[1].astype(np.float64))


def gap(log: Log) -> Distribution:
    """Log of the seconds between a user's consecutive events."""
    order = np.lexsort((log.time, log.user))
    same = np.diff(log.user[order]) == 0
    between = np.diff(log.time[order])[same]
    return _logs(np.maximum(between, SMALLEST_GAP) / MICROS_PER_SECOND)


def popularity(log: Log) -> Distribution:
    """Share of the items, favourites first, weighted with their events: a Lorenz curve.

    Events are what users turn to of their own accord; what is shown to them is the policy's doing.
    """
    # At equal shares and not at each item, so that logs of different numbers of items compare.
    count = np.cumsum(np.append(0, np.sort(log.items)[::-1]))
    share = np.arange(1, LORENZ_POINTS + 1) / LORENZ_POINTS
    curve = np.interp(share * log.items.size, np.arange(count.size), count / count[-1])
    return Distribution(share, np.diff(curve, prepend=0.0))


def position(log: Log) -> Curve:
    """Click rate of positions 2, 3, ... over that of position 1."""
    shown, clicked = log.by_position
    below = 1 + np.flatnonzero(shown[1:] >= LEAST_SHOWN)
    return Curve(below + 1, clicked[below] * shown[0] / (shown[below] * clicked[0]))


def click(log: Log) -> Curve:
    """Clicks per impression in weeks 1, 2, ..., of those with impressions."""
    shown, clicked, _ = log.by_week
    return _share(clicked, shown)


def conversion(log: Log) -> Curve:
    """Conversions per click in weeks 1, 2, ..., of those with clicks."""
    _, clicked, converted = log.by_week
    return _share(converted, clicked)


def price(log: Log) -> Distribution:
    """Log of an item's price over the median price."""
    return _logs(log.price / np.median(log.price))


def revenue(log: Log) -> Distribution:
    """Log of a conversion's revenue over the median."""
    every = _logs(log.revenue, log.conversions.astype(np.float64))
    # The weighted median, as a row may stand for many conversions.
    median = every.value[np.searchsorted(np.cumsum(every.weight), 0.5)]
    return Distribution(every.value - median, every.weight)


MARGINALS: dict[str, Callable[[Log], Marginal]] = {
    "activity": activity,
    "gap": gap,
    "popularity": popularity,
    "position": position,
    "click": click,
    "conversion": conversion,
    "price": price,
    "revenue": revenue,
}


def measure(log: Log) -> dict[str, Marginal]:
    """Every marginal that the log holds."""
    return {name: of(log) for name, of in MARGINALS.items() if name not in log.lacks}


def _share(part: Longs, whole: Longs) -> Curve:
    held = np.flatnonzero(whole)
    return Curve(held + 1, part[held] / whole[held])


def _logs(values: Floats, weight: Floats | None = None) -> Distribution:
    order = np.argsort(values, kind="stable")
    weight = np.ones(values.size) if weight is None else weight
    return Distribution(np.log(values[order]), weight[order] / weight.sum())
