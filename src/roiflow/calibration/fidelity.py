"""How like a real log the world is: a distance in [0, 1] per marginal, and their mean.

- Distributions (activity, gap, popularity, price, revenue): the two-sample Kolmogorov-Smirnov
  statistic, sup |F - G| over the weighted empirical distribution functions (Smirnov, 1939). For
  popularity it is the largest vertical distance between two Lorenz curves (Lorenz, 1905).
- Curves (position, click, conversion): mean |simulated - real| / real over the points that both
  have, and at most 1.

The world is served by its logging policy from its first week on. Its log is cut to as many days
and positions as the real one has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from roiflow.calibration.logs import DAYS_PER_WEEK, Log, of_tables
from roiflow.calibration.marginals import Curve, Distribution, Marginal, measure
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.noise import Floats
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.run import DELAYED, Progress, nothing, run_week
from roiflow.simulator.world import World


@dataclass(frozen=True)
class Fidelity:
    """Distances of a simulated log from a real one."""

    log: str
    real: Mapping[str, Marginal]
    simulated: Mapping[str, Marginal]
    distance: Mapping[str, float]  # of the marginals that the real log holds
    lacks: Mapping[str, str]  # the others, with the reason

    @property
    def overall(self) -> float:
        """Mean of the distances."""
        return float(np.mean(list(self.distance.values())))


def kolmogorov_smirnov(one: Distribution, other: Distribution) -> float:
    """sup |F - G| of two weighted samples, in [0, 1]."""
    # Both functions are steps, so the largest distance is at a step of one of them.
    at = np.concatenate([one.value, other.value])
    return float(np.abs(_share_below(one, at) - _share_below(other, at)).max())


def _share_below(sample: Distribution, at: Floats) -> Floats:
    """Weight of the values up to and including each of `at` (n,)."""
    cumulated = np.append(0.0, np.cumsum(sample.weight))
    shares: Floats = cumulated[np.searchsorted(sample.value, at, side="right")]
    return shares


def relative_difference(simulated: Curve, real: Curve) -> float:
    """Mean |simulated - real| / real over the points that both have, at most 1; 1 where none."""
    _, ours, theirs = np.intersect1d(simulated.x, real.x, return_indices=True)
    if not ours.size:
        return 1.0
    expected = real.y[theirs]
    difference = np.abs(simulated.y[ours] - expected)
    # Both sides of a `where` are computed: a tiny number stands in for 0, where any difference
    # counts in full.
    relative = np.where(expected > 0, difference / np.maximum(expected, 1e-300), difference > 0)
    return min(1.0, float(relative.mean()))


def distance(simulated: Marginal, real: Marginal) -> float:
    """Of two marginals of the same name, in [0, 1]."""
    match simulated, real:
        case Curve(), Curve():
            return relative_difference(simulated, real)
        case Distribution(), Distribution():
            return kolmogorov_smirnov(simulated, real)
    raise TypeError(f"a {type(simulated).__name__} against a {type(real).__name__}")


def compare(simulated: Log, real: Log) -> Fidelity:
    """A marginal that only the real log holds is at distance 1."""
    ours, theirs = measure(simulated), measure(real)
    distances = {
        name: distance(ours[name], expected) if name in ours else 1.0
        for name, expected in theirs.items()
    }
    return Fidelity(real.name, theirs, ours, distances, real.lacks)


def simulated_log(
    params: SimulatorParams, days: int, positions: int, progress: Progress | None = None
) -> Log:
    """The log of the world's first `days` days, down to position `positions`.

    Conversions of its impressions that become known later are among it. Raises ParamsError, naming
    key and value, where no such world can be.
    """
    world = World(params)
    chooser, carried = logging_policy(world), nothing()
    weeks = weeks_of(world, days)
    parts: list[Tables] = []
    for number, week in enumerate(weeks):
        if progress:
            progress(number / len(weeks), f"simulate {week}")
        run = run_week(world, week, chooser, carried)
        parts.append(run.tables)
        carried = run.pending
    whole = {name: pa.concat_tables(part[name] for part in parts) for name in parts[0]}
    # What is known after the last week belongs to its impressions: without it the newest conversion
    # rates would be too low.
    whole |= {name: pa.concat_tables([whole[name], carried[name]]) for name in DELAYED}
    return of_tables(params.world, whole, world.first_week, days, positions)


def weeks_of(world: World, days: int) -> list[Week]:
    """The world's first weeks that hold so many days."""
    return [world.first_week.plus(number) for number in range(-(-days // DAYS_PER_WEEK))]
