"""Intervals by resampling: of means, and of anything made of sums over users.

A user's impressions hang together, so the user is what is drawn again (cluster bootstrap, Davison
& Hinkley 1997, section 3.8). Only the sums over each user matter to a ratio of sums: the rows are
summed once, and a resample is one vector of counts times one small matrix. All statistics read
the same resampled totals, so their differences are paired.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from roiflow.features.table import Floats

CHUNK = 2_000_000
"""Draws held in memory at a time."""

MAX_CLUSTERS = 10_000
"""Above it, users are dealt at random into this many pools: the cost stays flat."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra on one thread inside.

    Several add up in another order, which the last bits show; a decision that is taken again on
    another number of cores must come out the same.
    """
    with threadpool_limits(1, "blas"):
        yield


def bootstrap_means(
    values: Floats, resamples: int, rng: np.random.Generator | np.random.RandomState
) -> Floats:
    """Means (resamples,) of values (n,) drawn n times with replacement (Efron, 1979)."""
    n = values.size
    # The legacy generator has the published Open Bandit run's stream; the two name the call
    # differently.
    integers = rng.integers if isinstance(rng, np.random.Generator) else rng.randint
    means = np.empty(resamples)
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = values[integers(0, n, size=(stop - start, n))].mean(axis=1)
    return means


def percentile_interval(draws: Floats, confidence: float) -> tuple[float, float]:
    """Percentile interval of resampled statistics; (nan, nan) where any of them is not finite."""
    # A statistic that is undefined in some resamples has no interval: leaving those out would be
    # an interval of the favourable ones.
    if not np.isfinite(draws).all():
        return float("nan"), float("nan")
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return float(low), float(high)


def cluster_sums(cluster: NDArray[np.integer], columns: Floats) -> Floats:
    """Sums (clusters, m) of the rows (n, m) of each cluster, clusters in ascending order."""
    # In one order, so that a seed draws the same users whichever way the rows lie.
    names, index = np.unique(cluster, return_inverse=True)
    return _sums(index, columns, names.size)


def _sums(index: NDArray[np.integer], columns: Floats, groups: int) -> Floats:
    return np.column_stack(
        [np.bincount(index, weights=column, minlength=groups) for column in columns.T]
    )


def _pooled(sums: Floats, rng: np.random.Generator) -> Floats:
    """At most MAX_CLUSTERS pools (p, m) of clusters (n, m), as equal in number as can be.

    The pools have to be dealt by chance: ids in order of sign-up, region or arm follow a pattern,
    and pools along it hold users who are alike (intervals too wide) or who cancel out (too
    narrow). Sizes differ by at most one cluster, which a ratio of sums does not see.
    """
    if sums.shape[0] <= MAX_CLUSTERS:
        return sums
    return _sums(rng.permutation(sums.shape[0]) % MAX_CLUSTERS, sums, MAX_CLUSTERS)


def resampled_totals(sums: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Totals (resamples, m) over clusters drawn with replacement from sums (clusters, m).

    Above MAX_CLUSTERS, pools of clusters are drawn.
    """
    # Drawing n of n clusters is a vector of counts. Counts of many resamples are one bincount, with
    # each resample's indices moved behind those of the one before.
    sums = _pooled(sums, rng)
    clusters = sums.shape[0]
    totals = np.empty((resamples, sums.shape[1]))
    step = max(1, CHUNK // clusters)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        # 32 bits are enough: the largest index is under CHUNK, or under the number of clusters.
        drawn = rng.integers(0, clusters, size=(stop - start, clusters), dtype=np.int32)
        drawn += np.arange(stop - start, dtype=np.int32)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=(stop - start) * clusters)
        totals[start:stop] = counts.reshape(-1, clusters).astype(np.float64) @ sums
    return totals
