"""Draws with an address: uniform, independent, and Plackett-Luce over request ids."""

from itertools import permutations

import numpy as np
from scipy import stats

from roiflow.policy import plackett_luce
from roiflow.serving import draws

DIGEST = "5e" * 32
COUNT = 40_000


def names(count: int) -> list[str]:
    """Ids as a client counts them: next to each other."""
    return [f"request-{number}" for number in range(count)]


def test_seeds_are_of_package_and_request_and_the_same_everywhere() -> None:
    ids = ["r1", "r2", "ü"]
    found = draws.seeds(DIGEST, ids)
    assert found.tolist() == draws.seeds(DIGEST, ids).tolist()
    assert draws.seeds(DIGEST, ids[::-1]).tolist() == found.tolist()[::-1]
    assert not set(found.tolist()) & set(draws.seeds("5f" * 32, ids).tolist())
    # A change of these numbers changes every slate that is served again.
    assert found.tolist() == [0xD35C912AA75416FB, 0xB9883CB1D224D020, 0x6C62D3991F3CB198]
    assert draws.seeds(DIGEST, []).shape == (0,)


def test_each_ad_is_uniform_and_no_two_go_together() -> None:
    rows = np.tile(np.array([0, 1, 2, 63, 10_000]), (COUNT, 1))
    drawn = draws.uniform(draws.seeds(DIGEST, names(COUNT)), rows)
    assert ((drawn > 0) & (drawn < 1)).all()
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
        assert abs(stats.pearsonr(column[:-1], column[1:]).statistic) < 0.025  # ids that follow
    correlations = np.array(np.corrcoef(drawn.T))[np.triu_indices(5, 1)]
    assert np.abs(correlations).max() < 0.025


def test_an_ad_keeps_its_draw_wherever_it_stands() -> None:
    seed = draws.seeds(DIGEST, ["r1"])
    here = draws.gumbel(seed, np.array([[4, 9, 2]]))
    there = draws.gumbel(seed, np.array([[2, 4, 9]]))
    assert here[0, [2, 0, 1]].tolist() == there[0].tolist()


def test_slates_over_many_requests_are_plackett_luce() -> None:
    """Chi-square of all 60 slates of 3 out of 5 against their exact probabilities."""
    weight = np.array([1.0, 2.0, 0.5, 4.0, 1.5])
    rows = np.tile(np.array([3, 17, 8, 0, 99]), (COUNT, 1))
    noise = draws.gumbel(draws.seeds(DIGEST, names(COUNT)), rows)
    chosen, propensity = plackett_luce.choose(np.tile(np.log(weight), (COUNT, 1)), 3, noise)
    slates = list(permutations(range(5), 3))
    exact = {}
    for slate in slates:
        left, probability = weight.sum(), 1.0
        for ad in slate:
            probability *= weight[ad] / left
            left -= weight[ad]
        exact[slate] = probability
    found = [tuple(row) for row in chosen.tolist()]
    counts = np.array([found.count(slate) for slate in slates])
    expected = np.array([exact[slate] for slate in slates]) * COUNT
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    np.testing.assert_allclose(
        propensity.prod(axis=1), [exact[slate] for slate in found], rtol=1e-12
    )
