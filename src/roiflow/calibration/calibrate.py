"""Fit the synthetic world's configurable marginals to a real log.

A parameter starts where a moment of the log puts it, or where it is if that is nearer. Parameters
that shape the same marginals are then searched together, by the very distances of the fidelity
score, in a small world of the same seed: Nelder and Mead's simplex (1965) over the logarithm of a
scale, the log odds of a probability. Equal logs and parameters give equal results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from pydantic import BaseModel

from roiflow.calibration.fidelity import Fidelity, compare, distance, simulated_log, weeks_of
from roiflow.calibration.logs import DAYS_PER_WEEK, Log
from roiflow.calibration.marginals import (
    MARGINALS,
    SMALLEST_GAP,
    Curve,
    activity,
    click,
    conversion,
    measure,
    position,
)
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ParamsError, SourceError
from roiflow.params import SimulatorParams
from roiflow.simulator.population import logit, sigmoid
from roiflow.simulator.run import Progress
from roiflow.simulator.world import World

REQUESTS, BEHAVIOURS = "synthetic.requests_per_user_day", "synthetic.behaviours_per_user_day"
SHAPE, EVENTS = "synthetic.activity_shape", "synthetic.session_events"
MINUTES, POPULARITY = "synthetic.session_minutes", "synthetic.popularity_exponent"
MEDIAN, PRICE_SIGMA = "synthetic.price_median", "synthetic.price_sigma"
EXPONENT, AFTER_SKIP = "examination.exponent", "examination.after_skip"
CLICK, CONVERSION, REVENUE_SIGMA = "click_rate", "conversion_rate", "revenue_sigma"

BOUNDS: dict[str, tuple[float, float]] = {
    REQUESTS: (1e-3, 300.0),
    SHAPE: (0.05, 20.0),
    EVENTS: (1.0, 100.0),
    MINUTES: (0.01, 120.0),
    POPULARITY: (0.0, 3.0),
    PRICE_SIGMA: (0.0, 1.6),
    EXPONENT: (0.0, 4.0),
    AFTER_SKIP: (0.001, 0.999),
    CLICK: (1e-5, 0.99),
    CONVERSION: (1e-5, 0.99),
    REVENUE_SIGMA: (0.0, 1.6),
}
LOGARITHMIC = {REQUESTS, SHAPE, EVENTS, MINUTES}
# A step on the search's scale is then as large at either end of the bounds: a rate of 0.001 is told
# from 0.002 much as 0.1 from 0.2.
PROBABILITIES = {AFTER_SKIP, CLICK, CONVERSION}
STEP = 0.7
"""Side of the first simplex, on the scale that is searched."""
EVALUATIONS = 14
"""A search of n parameters simulates at most so many logs times n squared."""
MICROS_PER_MINUTE = MICROS_PER_HOUR / 60
SEARCHED_WEEKS = 4
SESSION_BREAK = MICROS_PER_HOUR // 2
"""A pause as long as this starts a new session."""
PRICED = 5_000
"""Ads whose prices are compared, so that the fit is not that of a few ads' draw."""

Values = dict[str, float]
"""By key below ingest.simulator."""
Simulate = Callable[[SimulatorParams], Log]


@dataclass(frozen=True)
class Calibration:
    """What was fitted, and how like the log the small world was before and after."""

    values: Mapping[str, float]
    before: Fidelity
    after: Fidelity


@dataclass(frozen=True)
class Step:
    """Parameters that are fitted together."""

    marginals: tuple[str, ...]  # that they shape
    start: Callable[[], Values]  # where the search starts, its bounded keys being searched
    simulate: Simulate  # as much of a log as the marginals need
    parameters: int = 1  # how many are searched


def calibrate(
    params: SimulatorParams, real: Log, users: int, progress: Progress | None = None
) -> Calibration:
    """Fit what `real` tells of, in a synthetic world of `users` users; the rest stays as it is.

    Raises ParamsError, naming key and value, where no such world can be.
    """
    small: dict[str, float | str] = {"world": "synthetic", "synthetic.users": users}
    fit = _Fit(with_values(params, small), real, progress)
    before = fit.fidelity()
    for step in fit.plan():
        fit.search(step)
    return Calibration(fit.values, before, fit.fidelity())


def with_values(params: SimulatorParams, values: Mapping[str, float | str]) -> SimulatorParams:
    """The parameters with other values at keys such as synthetic.users; bounds are not checked."""

    def put(section: BaseModel, names: Sequence[str], value: float | str) -> Any:
        new = put(getattr(section, names[0]), names[1:], value) if names[1:] else value
        return section.model_copy(update={names[0]: new})

    for key, value in values.items():
        params = put(params, key.split("."), value)
    return params


def value_of(params: SimulatorParams, key: str) -> float:
    """The number at a key such as synthetic.users."""
    value: float = reduce(getattr, key.split("."), params)  # type: ignore[assignment]
    return value


class _Fit:
    """Parameters on their way to a log."""

    def __init__(self, params: SimulatorParams, real: Log, progress: Progress | None) -> None:
        self.values: Values = {}
        self._params, self._real, self._held = params, real, measure(real)
        self._progress, self._done = progress, 0
        self._log = self._served(params)
        ratio = value_of(params, BEHAVIOURS) / value_of(params, REQUESTS)
        # Behaviours for each request: events are both. A log that does not tell them apart leaves
        # the proportion as it is.
        self._behaviours = real.user.size / real.requests - 1 if real.requests else ratio

    def fidelity(self) -> Fidelity:
        """Of the parameters as they are."""
        return compare(
            simulated_log(self._params, self._real.days, self._real.positions), self._real
        )

    def plan(self) -> list[Step]:
        """In an order in which no step spoils an earlier one."""
        steps = [
            # Prices do not depend on visits, nor visits on what is shown; examination comes before
            # the click rate, which makes up for the looks that it takes, and clicks come before
            # conversions.
            Step(("price",), self._price_moments, self._priced),
            Step(("activity", "gap"), self._visit_moments, self._visited, parameters=4),
            Step(("popularity",), lambda: self._now(POPULARITY), self._visited),
            Step(("position",), self._examination, self._served),
            Step(("click",), lambda: self._level(click, CLICK), self._served),
            Step(("conversion",), lambda: self._level(conversion, CONVERSION), self._served),
            Step(("revenue",), lambda: self._now(REVENUE_SIGMA), self._served),
        ]
        return [step for step in steps if set(step.marginals) <= set(self._held)]

    def search(self, step: Step) -> None:
        """Bring the step's marginals as near to the log's as its parameters can."""
        from scipy.optimize import minimize

        start = step.start()

        def away(at: Values) -> float:
            self._tell(" and ".join(step.marginals))
            try:
                log = step.simulate(self._with(at))
            # The largest distance there is, so that the simplex turns back instead of the search
            # ending.
            except (ParamsError, SourceError):  # no such world, or nothing to see in it
                return 1.0
            return float(np.mean([self._distance(name, log) for name in step.marginals]))

        # A key without bounds, such as the median of prices, is taken from the moment as it is: no
        # marginal can tell it.
        keys = [key for key in start if key in BOUNDS]
        start |= {key: float(np.clip(start[key], *BOUNDS[key])) for key in keys}
        first = min(start, start | {key: value_of(self._params, key) for key in keys}, key=away)
        origin = np.array([_scaled(key, first[key]) for key in keys])
        # By function values alone: a simulated distance has steps, and no gradient. One seed for
        # all evaluations, so that they differ by the parameters and not by chance.
        found = minimize(
            lambda point: away(first | dict(zip(keys, map(_unscaled, keys, point), strict=True))),
            origin,
            method="Nelder-Mead",
            bounds=[tuple(_scaled(key, bound) for bound in BOUNDS[key]) for key in keys],
            options={
                "initial_simplex": np.vstack([origin, origin + STEP * np.eye(len(keys))]),
                "maxfev": EVALUATIONS * len(keys) ** 2,
                "xatol": 0.005,
                "fatol": 0.0005,
            },
        )
        best = first | dict(zip(keys, map(_unscaled, keys, found.x), strict=True))
        # Rounded before it is used: the world is then the one that the written parameters give.
        best = {key: float(f"{value:.4g}") for key, value in best.items()}
        self._params = self._with(best)
        self.values |= {key: value_of(self._params, key) for key in best}
        if REQUESTS in best:
            self.values[BEHAVIOURS] = value_of(self._params, BEHAVIOURS)

    def _with(self, values: Values) -> SimulatorParams:
        """Behaviours stay in the same proportion to requests."""
        if REQUESTS in values:
            other = float(f"{self._behaviours * values[REQUESTS]:.4g}")
            values = values | {BEHAVIOURS: other}
        return with_values(self._params, values)

    def _distance(self, name: str, log: Log) -> float:
        if name in log.lacks:
            return 1.0
        return distance(MARGINALS[name](log), self._held[name])

    def _tell(self, what: str) -> None:
        self._done += 1
        if self._progress:
            total = sum(EVALUATIONS * step.parameters**2 for step in self.plan())
            self._progress(min(1.0, self._done / total), f"fit {what}")

    def _served(self, params: SimulatorParams) -> Log:
        """A long log's weeks are its first ones over and over: the search is for their level."""
        weeks = max(1, self._real.days // DAYS_PER_WEEK)
        days = min(self._real.days, SEARCHED_WEEKS * DAYS_PER_WEEK)
        log = simulated_log(params, days, self._real.positions)
        return replace(log, by_week=np.resize(log.by_week.T, (weeks, 3)).T)

    def _priced(self, params: SimulatorParams) -> Log:
        """The log with the prices of many ads in the place of those that were shown."""
        # No budgets: spread over so many ads they might not pay for one click, and such a world is
        # refused.
        many = {"synthetic.ads": PRICED, "auction.budgets": False}
        world = World(with_values(params, many))
        return replace(self._log, price=world.ads(world.first_week).price / 1e6)

    def _visited(self, params: SimulatorParams) -> Log:
        """The log with other requests and behaviours, whatever was shown."""
        world, parts = World(params), []
        for week in weeks_of(world, self._real.days):
            requests, behaviours = world.requests(week), world.behaviours(week)
            # Requests count as events but turn to no item.
            parts.append((requests.user_index, requests.event_time, behaviours.ad[:0]))
            parts.append((behaviours.user, behaviours.event_time, behaviours.ad))
        user, time, ad = (np.concatenate(column) for column in zip(*parts, strict=True))
        time = time - world.first_week.start
        order = np.argsort(time, kind="stable")
        order = order[time[order] < self._real.days * MICROS_PER_DAY]
        count = np.bincount(ad)
        return replace(
            self._log,
            user=user[order].astype(np.int64),
            time=time[order],
            items=count[count > 0],
        )

    def _now(self, key: str) -> Values:
        return {key: value_of(self._params, key)}

    def _price_moments(self) -> Values:
        """Median, and the standard deviation of the logarithm."""
        price = self._real.price
        return {MEDIAN: float(np.median(price)), PRICE_SIGMA: float(np.log(price).std())}

    def _visit_moments(self) -> Values:
        """Sessions by their breaks, and the variance of counts that they do not explain.

        Pauses are exponential: their mean is the median over log 2, which a few long ones spare.
        """
        real = self._real
        order = np.lexsort((real.time, real.user))
        pauses = np.diff(real.time[order])[np.diff(real.user[order]) == 0]
        within = pauses[pauses < SESSION_BREAK]
        pause = np.median(within) if within.size else MICROS_PER_MINUTE
        events = real.user.size / (real.user.size - within.size)
        count = np.exp(activity(real).value)
        # A Poisson number of sessions of a geometric number of events with mean m has a variance of
        # (2 m - 1) times its mean. What is more comes from users being unlike: a gamma's squared
        # variation is 1 over its shape.
        uneven = count.var() / count.mean() ** 2 - (2 * events - 1) / count.mean()
        rate = count.mean() / min(real.days, DAYS_PER_WEEK)
        return {
            REQUESTS: rate / (1 + self._behaviours),
            SHAPE: 1 / max(uneven, 0.1),
            EVENTS: events,
            MINUTES: max(pause, SMALLEST_GAP) / MICROS_PER_MINUTE / np.log(2),
        }

    def _examination(self) -> Values:
        """The exponent by regression through position 1; a cascade's second over the first."""
        curve = position(self._real)
        # Few clicks aside, a second position is looked at where the first was skipped.
        if self._params.examination.model == "cascade":
            return {AFTER_SKIP: float(curve.y[0])}
        clicked = curve.y > 0
        # Through the origin, as position 1 has rate 1 by definition.
        far, rate = np.log(curve.x[clicked]), np.log(curve.y[clicked])
        return {EXPONENT: float(-(far @ rate) / (far @ far)) if far.size else 1.0}

    def _level(self, of: Callable[[Log], Curve], key: str) -> Values:
        """The log odds move by as much as the simulated level is off."""
        ours, theirs = of(self._served(self._params)).y, of(self._real).y
        if not ours.size:
            return self._now(key)
        # Within the bounds, as a log without clicks has no log odds.
        level, wanted = (logit(float(np.clip(one.mean(), *BOUNDS[key]))) for one in (ours, theirs))
        return {key: _unscaled(key, logit(value_of(self._params, key)) + wanted - level)}


def _scaled(key: str, value: float) -> float:
    """On the scale that is searched."""
    if key in PROBABILITIES:
        return logit(value)
    return float(np.log(value)) if key in LOGARITHMIC else value


def _unscaled(key: str, value: float) -> float:
    """The inverse of _scaled."""
    if key in PROBABILITIES:
        return float(sigmoid(np.array(value)))
    return float(np.exp(value)) if key in LOGARITHMIC else float(value)
