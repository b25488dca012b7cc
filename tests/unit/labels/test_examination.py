from itertools import permutations

import numpy as np
import pytest

from roiflow.labels.examination import (
    Regression,
    Swapped,
    logged_whole,
    regression,
    swaps,
)
from roiflow.labels.fit import chosen
from tests.unit.labels.worlds import PLANTED, Shown, shown

HOW = Regression(l2=1.0, prior_clicks=0.0, max_rows=10**6, iterations=200)


def test_swaps_by_enumeration() -> None:
    """Every slate of three ads as often as its policy shows it, with the clicks it expects.

    Shares 1/2, 1/4, 1/4: of twelve slates ABC and ACB come 3 times each, BAC and CAB twice, BCA and
    CBA once.
    """
    share, click = np.array([0.5, 0.25, 0.25]), np.array([0.8, 0.1, 0.4])
    looked = np.array([1.0, 0.5, 0.2])
    propensity, clicked = [], []
    for order in permutations(range(3)):
        ads = np.array(order)
        above = np.cumsum(share[ads]) - share[ads]
        given = share[ads] / (1 - above)
        times = round(12 * float(np.prod(given)))
        propensity += [given] * times
        clicked += [looked * click[ads]] * times
    assert len(propensity) == 12
    found = swaps(np.array(propensity), np.array(clicked))
    np.testing.assert_allclose(found.factor, looked, atol=1e-12)
    assert found.slates == 12


@pytest.fixture(scope="module")
def many() -> Shown:
    return shown(250_000)


def test_swaps_find_the_planted_looks_within_2_percent(many: Shown) -> None:
    found = swaps(*logged_whole(many.features, many.rows))
    np.testing.assert_allclose(found.factor, PLANTED, rtol=0.02)
    assert (found.error[1:] < 0.01 * PLANTED[1:]).all()
    # What was clicked at each position, as it is, misleads by far: the policy puts the best on top.
    clicks = many.clicked.sum(axis=0)
    assert (clicks / clicks[0] < 0.95 * PLANTED)[1:].all()


def test_regression_finds_the_planted_looks_within_2_percent(many: Shown) -> None:
    np.testing.assert_allclose(regression(many.features, many.rows, HOW), PLANTED, rtol=0.02)


def test_where_the_policy_knows_more_swaps_are_right_and_regression_is_not() -> None:
    world = shown(40_000, hidden=1.0)
    by_swaps = swaps(*logged_whole(world.features, world.rows))
    by_regression = regression(world.features, world.rows, HOW)
    np.testing.assert_allclose(by_swaps.factor, PLANTED, rtol=0.05)
    assert (by_regression[1:] < 0.92 * PLANTED[1:]).all()
    assert chosen(by_regression, by_swaps, 0.1) is by_swaps.factor


def test_the_regression_stands_where_swaps_tell_too_little() -> None:
    by_regression = np.array([1.0, 0.6])
    for factor, error in (([1.0, 0.5], [0.0, 0.2]), ([1.0, np.nan], [0.0, np.nan]), ([1.0], [0.0])):
        told = Swapped(np.array(factor), np.array(error), 9)
        assert chosen(by_regression, told, 0.1) is by_regression


def test_a_log_without_propensities_has_no_swaps(many: Shown) -> None:
    log = many.features.impressions
    kept, log.propensity = log.propensity, np.full(log.propensity.size, np.nan)  # type: ignore[misc]
    propensity, clicked = logged_whole(many.features, many.rows)
    log.propensity = kept  # type: ignore[misc]
    assert propensity.shape == clicked.shape == (0, 1)
    assert swaps(propensity, clicked).slates == 0


def test_a_slate_with_a_gap_is_not_whole() -> None:
    few = shown(10)
    assert logged_whole(few.features, np.arange(1, 30))[0].shape == (9, 3)


def test_propensities_of_no_plackett_luce_policy_are_left_out() -> None:
    """An epsilon-greedy page: 0.9, then 0.9 of another, which leaves no share for both."""
    found = swaps(np.array([[0.0, 0.9, 0.9], [0.5, 0.5, 0.5]]), np.ones((2, 3), bool))
    assert found.slates == 1


def test_a_policy_that_never_exchanges_two_ads_tells_nothing() -> None:
    found = swaps(np.array([[1.0, 1.0]]), np.ones((1, 2), bool))
    assert found.slates == 0
    assert np.isnan(found.factor[1])


def test_a_position_with_few_clicks_is_drawn_to_the_one_above() -> None:
    few = shown(40)
    free = regression(few.features, few.rows, HOW)
    drawn = regression(few.features, few.rows, Regression(1.0, 1e6, 10**6, 200))
    np.testing.assert_allclose(drawn, 1.0, atol=0.01)
    assert np.abs(free[1:] - 1.0).max() > 0.1


def test_a_log_of_one_position_or_of_one_class_has_no_factor_to_fit() -> None:
    few = shown(20)
    top = few.rows[::3]
    assert regression(few.features, top, HOW).tolist() == [1.0]
    assert regression(few.features, few.rows[:0], HOW).tolist() == [1.0]
