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
    users = sums.shape[0]
    base = _base(other) if users > 2 * (controls.shape[1] + 1) else np.zeros((users, 0))
    fitted = base.T @ own
    # Each user's own pull on mean and coefficients makes its deviation too small (the jackknife's
    # correction; Bell & McCaffrey, 2002).
    slates_of = cluster_sums(user, np.ones((slates, 1)))[:, 0]
    pull = np.minimum(slates_of / slates + np.sum(base**2, axis=1), 0.5)
    influence = (own - base @ fitted) / (1.0 - pull)[:, None]
    covariance = influence.T @ influence / slates**2
    slope = np.linalg.lstsq(other, base @ fitted, rcond=None)[0]
    return Moments(mean - off @ slope, covariance, users)


def _base(columns: Floats) -> Floats:
    """Orthonormal columns (n, r) of what columns (n, c) span; those that are 0 span nothing."""
    scale = np.sqrt(np.mean(columns**2, axis=0))
    found, size, _ = np.linalg.svd(columns[:, scale > 0] / scale[scale > 0], full_matrices=False)
    return np.asarray(found[:, size > 1e-6 * size.max(initial=0.0)], np.float64)
