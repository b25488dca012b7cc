"""Means per slate with the covariance that sums over users give, less known means of 0."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from roiflow.artefacts.evaluation import Interval
from roiflow.evaluation.statistics import cluster_sums
from roiflow.features.table import Floats


@dataclass(frozen=True)
class Moments:
    """Of m figures per slate, from n slates of some users."""

    mean: Floats  # (m,)
    covariance: Floats  # (m, m) of the means
    users: int

    def interval(self, made_of: Floats, confidence: float, value: float | None = None) -> Interval:
        """Of the sum of `made_of` (m,) x the means, or of what has them as its gradient."""
        middle = float(made_of @ self.mean) if value is None else value
        error = float(np.sqrt(np.maximum(made_of @ self.covariance @ made_of, 0.0)))
        half = float(ndtri(0.5 + confidence / 2)) * error
        return Interval(middle, error, middle - half, middle + half)


def moments(user: NDArray[np.integer], terms: Floats, controls: Floats) -> Moments:
    """Means of terms (n, m), each less its regression on controls (n, c), whose true mean is 0.

    The coefficients are of sums over users. A term that is 0 everywhere stays 0 to the last bit,
    and so does its error.
    """
    slates, mean = terms.shape[0], terms.mean(axis=0)
    off, size = controls.mean(axis=0), terms.shape[1]
    sums = cluster_sums(user, np.hstack([terms - mean, controls - off]))
    own, other = sums[:, :size], sums[:, size:]
    # In units of each control: least squares drops what is too small beside the largest.
    scale = np.sqrt(np.mean(other**2, axis=0))
    scale[scale == 0] = 1.0
    users = sums.shape[0]
    if users > 2 * (controls.shape[1] + 1):
        slope = np.linalg.lstsq(other / scale, own, rcond=1e-9)[0] / scale[:, None]
    else:
        slope = np.zeros((controls.shape[1], size))
    influence = own - other @ slope
    # Each coefficient takes one user's freedom.
    free = max(users - 1 - controls.shape[1], 1)
    covariance = influence.T @ influence * (users / free) / slates**2
    return Moments(mean - off @ slope, covariance, users)
