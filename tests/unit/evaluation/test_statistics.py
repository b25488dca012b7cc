"""Resampling against closed forms and slow references."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from roiflow.evaluation.statistics import (
    MAX_CLUSTERS,
    bootstrap_means,
    cluster_sums,
    one_blas_thread,
    percentile_interval,
    resampled_totals,
)


def test_bootstrap_means_equal_a_loop_over_the_same_stream() -> None:
    values = np.random.default_rng(1).normal(size=50)
    loop = np.random.RandomState(7)
    expected = [loop.choice(values, size=50).mean() for _ in range(200)]
    got = bootstrap_means(values, 200, np.random.RandomState(7))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_percentile_interval() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
    low, high = percentile_interval(np.array([1.0, np.nan, 2.0]), 0.9)
    assert np.isnan(low)
    assert np.isnan(high)


def test_cluster_sums() -> None:
    sums = cluster_sums(np.array([7, 3, 7]), np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]))
    np.testing.assert_array_equal(sums, [[2.0, 20.0], [5.0, 50.0]])


def test_many_clusters_are_pooled_without_losing_a_row() -> None:
    n = MAX_CLUSTERS * 2
    sums = cluster_sums(np.arange(n), np.ones((n, 1)))
    assert sums.shape == (n, 1)
    np.testing.assert_array_equal(resampled_totals(sums, 20, np.random.default_rng(1)), n)


N = MAX_CLUSTERS * 2
PLANTED = {
    "alike in a pool of every 10,000th": np.where(np.arange(N) % MAX_CLUSTERS % 2, 1.0, -1.0),
    "opposite in a pool of every 10,000th": np.where(np.arange(N) < MAX_CLUSTERS, 1.0, -1.0),
    "the two halves of the ids": np.repeat([3.0, 1.0], MAX_CLUSTERS),
}


@pytest.mark.parametrize("pattern", PLANTED)
def test_pools_follow_no_pattern_of_the_ids(pattern: str) -> None:
    """The bootstrap's standard deviation of a sum over n users is sqrt(n) times the users' own."""
    values = PLANTED[pattern]
    sums = cluster_sums(np.arange(N), values[:, None])
    totals = resampled_totals(sums, 2000, np.random.default_rng(9))
    assert totals.std() == pytest.approx(np.sqrt(N) * values.std(), rel=0.06)


def test_pooled_intervals_of_a_ratio_are_those_of_the_users() -> None:
    """Sizes that do not divide: pools of two and of three users."""
    rng = np.random.default_rng(10)
    y = rng.gamma(2.0, size=MAX_CLUSTERS * 2 + MAX_CLUSTERS // 2)
    x = 2.0 * y + rng.normal(size=y.size)
    totals = resampled_totals(np.column_stack([x, y]), 2000, rng)
    error = np.sqrt(np.sum((x - x.sum() / y.sum() * y) ** 2)) / y.sum()  # the delta method
    assert (totals[:, 0] / totals[:, 1]).std() == pytest.approx(error, rel=0.06)


def test_resampled_totals_have_the_moments_of_the_bootstrap() -> None:
    sums = np.random.default_rng(2).gamma(2.0, size=(400, 2))
    totals = resampled_totals(sums, 20_000, np.random.default_rng(3))
    np.testing.assert_allclose(totals.mean(axis=0), sums.sum(axis=0), rtol=0.003)
    expected = 400 * np.cov(sums.T, bias=True)
    np.testing.assert_allclose(np.cov(totals.T), expected, rtol=0.05, atol=0.05 * expected[0, 0])


def test_resampled_totals_of_equal_clusters_never_vary() -> None:
    totals = resampled_totals(np.ones((30, 1)), 100, np.random.default_rng(0))
    np.testing.assert_array_equal(totals, 30.0)


def test_same_seed_same_totals() -> None:
    sums = np.random.default_rng(2).gamma(2.0, size=(40, 2))
    once, again = (resampled_totals(sums, 50, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_repeated_rows_widen_the_clustered_interval_only() -> None:
    """Ten copies of each row add no information: the naive interval is sqrt(10) too narrow."""
    values = np.random.default_rng(4).normal(size=300)
    rows, user = np.repeat(values, 10), np.repeat(np.arange(300), 10)
    sums = cluster_sums(user, np.column_stack([rows, np.ones(rows.size)]))
    totals = resampled_totals(sums, 4000, np.random.default_rng(5))
    clustered = totals[:, 0] / totals[:, 1]
    naive = bootstrap_means(rows, 4000, np.random.default_rng(6))
    once = bootstrap_means(values, 4000, np.random.default_rng(7))
    assert clustered.std() == pytest.approx(once.std(), rel=0.05)
    assert clustered.std() == pytest.approx(np.sqrt(10) * naive.std(), rel=0.05)


def test_clustered_intervals_of_a_ratio_cover_the_truth() -> None:
    """95 % intervals of E[x]/E[y], users of unequal activity, in 300 planted worlds."""
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(300):
        taste = rng.gamma(4.0, 0.25, size=150)
        activity = rng.poisson(3.0, size=150) + 1
        user = np.repeat(np.arange(150), activity)
        y = rng.exponential(1.0, size=user.size)
        x = 2.0 * taste[user] * y
        totals = resampled_totals(cluster_sums(user, np.column_stack([x, y])), 400, rng)
        low, high = percentile_interval(totals[:, 0] / totals[:, 1], 0.95)
        hits += low <= 2.0 <= high
    assert 0.90 <= hits / 300 <= 0.985


def test_linear_algebra_is_on_one_thread_whatever_it_was_on() -> None:
    def threads() -> set[int]:
        found = threadpool_info()
        return {one["num_threads"] for one in found if one["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {2}
