"""Post-hoc calibration: a monotone piecewise-linear map of the logit, fitted on validation.

Where Platt scaling (1999) fits one slope and isotonic regression steps, this fits one slope per
quantile segment, all positive, so the order of scores (and AUC) is kept and the map exports to
ONNX as clips and sums. The likelihood is convex in the intercept and the slopes.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.features.table import Flags, Floats, Singles
from roiflow.params import CalibrationParams
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import likelihood, sigmoid


@dataclass(frozen=True)
class Calibration:
    """logit -> intercept + sum_i slope_i x clip(logit, knot_i, knot_i+1), outer knots infinite."""

    intercept: float
    slopes: tuple[float, ...]  # (m,)
    knots: tuple[float, ...]  # (m - 1,) rising

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Calibration":
        """From its fields as JSON has them."""
        return cls(content["intercept"], tuple(content["slopes"]), tuple(content["knots"]))

    def apply(self, logit: NDArray[np.floating]) -> Floats:
        """Calibrated logits, in the shape of `logit`."""
        if self == IDENTITY:
            return np.asarray(logit, np.float64)
        return self.intercept + basis(np.asarray(logit, np.float64), self.knots) @ np.array(
            self.slopes
        )


IDENTITY = Calibration(0.0, (1.0,), ())


def basis(logit: Floats, knots: tuple[float, ...]) -> Floats:
    """The parts of a logit in each segment, (...) -> (..., m); they sum to the logit."""
    if not knots:
        return logit[..., None]
    inner = [np.clip(logit, low, high) - low for low, high in pairwise(knots)]
    return np.stack(
        [np.minimum(logit, knots[0]), *inner, np.maximum(logit - knots[-1], 0.0)], axis=-1
    )


@dataclass(frozen=True)
class Calibrations:
    """The maps of both logits: of a click, and of a conversion given a click."""

    click: Calibration
    conversion: Calibration

    def probabilities(
        self, click: NDArray[np.floating], conversion: NDArray[np.floating]
    ) -> tuple[Singles, Singles]:
        """Logits (n,) -> P(click) (n,), P(click and conversion) (n,) = pCTR x pCVR."""
        clicked = sigmoid(self.click.apply(click))
        return clicked, clicked * sigmoid(self.conversion.apply(conversion))


UNCHANGED = Calibrations(IDENTITY, IDENTITY)


def fit_both(
    click: NDArray[np.floating],
    conversion: NDArray[np.floating],
    examples: Examples,
    params: CalibrationParams,
) -> Calibrations:
    """Logits (n,) of examples (n,) -> their maps, each under its own exposure."""
    clicked, clicks = examples.clicked, examples.clicks
    return Calibrations(
        fit(click, examples.examined, clicked, params),
        fit(conversion[clicked], clicks.matured, clicks.converted, params),
    )


def fit(
    logit: NDArray[np.floating], exposure: Singles, observed: Flags, params: CalibrationParams
) -> Calibration:
    """Most likely map of `logit` (n,) by what was observed, slopes drawn a little to each other.

    The level is drawn to the model's own as by `prior_events` events, which it learnt from many
    more: the last days before a test know few conversions.

    As many segments as there are `events_per_segment` of the rarer class, at most `segments`;
    without either class, the identity.
    """
    from scipy.optimize import minimize

    x = np.asarray(logit, np.float64)
    rarer = int(min(observed.sum(), observed.size - observed.sum()))
    if rarer == 0:
        return IDENTITY
    segments = max(1, min(params.segments, rarer // params.events_per_segment))
    # Equal shares of the rows in each segment, so that no slope hangs on a few of them.
    quantiles = np.quantile(x, np.arange(1, segments) / segments)
    knots = tuple(float(knot) for knot in np.unique(quantiles))
    parts = basis(x, knots)
    # Neighbouring slopes are drawn to each other and all, weakly, to 1, the map that changes
    # nothing: with few events the fit stays near it.
    pull = np.diff(np.eye(parts.shape[1]), axis=0)

    middle = parts.mean(axis=0)

    def loss(theta: Floats) -> tuple[float, Floats]:
        value, error, _ = likelihood(theta[0] + parts @ theta[1:], exposure, observed)
        steps = pull @ theta[1:]
        # How far the map moves logits on average.
        shift = theta[0] + middle @ (theta[1:] - 1)
        value += 0.5 * params.smoothness * float(steps @ steps)
        value += 0.5 * float(np.sum((theta[1:] - 1) ** 2)) + 0.5 * params.prior_events * shift**2
        slope = parts.T @ error + params.smoothness * pull.T @ steps + theta[1:] - 1
        slope += params.prior_events * shift * middle
        return float(value), np.append(np.sum(error) + params.prior_events * shift, slope)

    found = minimize(
        loss,
        # From the map that changes nothing.
        np.concatenate([[0.0], np.ones(parts.shape[1])]),
        jac=True,
        method="L-BFGS-B",
        # The least slope keeps the map rising: no two scores become one.
        bounds=[(None, None), *[(params.min_slope, None)] * parts.shape[1]],
        options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8},
    ).x
    return Calibration(float(found[0]), tuple(float(slope) for slope in found[1:]), knots)
