"""Post-hoc calibration: a monotone piecewise-linear map of the logit, fitted on validation.

Where Platt scaling (1999) fits one slope and isotonic regression steps, this fits one slope per
quantile segment, all positive, so the order of scores (and AUC) is kept and the map exports to
ONNX as clips and sums. The likelihood is convex in the intercept and the slopes.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from roiflow.features.table import Floats
from roiflow.params import CalibrationParams


@dataclass(frozen=True)
class Calibration:
    """logit -> intercept + sum_i slope_i x clip(logit, knot_i, knot_i+1), outer knots infinite."""

    intercept: float
    slopes: tuple[float, ...]  # (m,)
    knots: tuple[float, ...]  # (m - 1,) rising

    def apply(self, logit: NDArray[np.floating]) -> Floats:
        """Calibrated logits, in the shape of `logit`."""
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


def fit(
    logit: NDArray[np.floating], label: NDArray[np.bool_], params: CalibrationParams
) -> Calibration:
    """Most likely map of `logit` (n,) given `label` (n,), slopes drawn a little to each other.

    As many segments as there are `events_per_segment` of the rarer class, at most `segments`;
    without either class, the identity.
    """
    from scipy.optimize import minimize

    x, y = np.asarray(logit, np.float64), np.asarray(label, np.float64)
    rarer = int(min(y.sum(), y.size - y.sum()))
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

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = theta[0] + parts @ theta[1:]
        p = 0.5 * (1 + np.tanh(0.5 * z))  # the sigmoid, which cannot overflow
        steps = pull @ theta[1:]
        value = np.sum(np.logaddexp(0, z) - y * z)
        value += 0.5 * params.smoothness * float(steps @ steps) + 0.5 * float(
            np.sum((theta[1:] - 1) ** 2)
        )
        slope = parts.T @ (p - y) + params.smoothness * pull.T @ steps + theta[1:] - 1
        return float(value), np.concatenate([[np.sum(p - y)], slope])

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
