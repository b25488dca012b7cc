"""Marginals of logs that are worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from roiflow.calibration.logs import Log
from roiflow.calibration.marginals import (
    MARGINALS,
    activity,
    click,
    conversion,
    gap,
    measure,
    popularity,
    position,
    price,
    revenue,
)
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_SECOND

LOG = Log(
    name="hand",
    days=14,
    positions=3,
    user=np.array([0, 1, 0, 0, 1]),
    time=np.array([0, 10, 60, 3600, 7 * 86_400]) * MICROS_PER_SECOND,
    requests=5,
    items=np.array([1, 6, 3]),
    by_position=np.array([[1000, 1000, 99], [100, 40, 50]]),
    by_week=np.array([[200, 100], [20, 5], [5, 2]]),
    price=np.array([1.0, 10.0, 100.0]),
    revenue=np.array([2.0, 8.0]),
    conversions=np.array([1, 3]),
    lacks={},
)


def test_activity_counts_a_user_s_events_of_each_week() -> None:
    # User 0: three events in week 1. User 1: one in week 1, one in week 2.
    np.testing.assert_allclose(np.exp(activity(LOG).value), [1, 1, 3])
    short = replace(LOG, days=2, user=LOG.user[:4], time=LOG.time[:4])
    np.testing.assert_allclose(np.exp(activity(short).value), [1, 3])


def test_a_week_that_is_not_whole_has_no_activity() -> None:
    assert activity(replace(LOG, days=13)).value.size == 2


def test_gaps_are_within_users() -> None:
    np.testing.assert_allclose(np.exp(gap(LOG).value), [60, 3540, 7 * 86_400 - 10])
    np.testing.assert_allclose(gap(replace(LOG, time=0 * LOG.time)).value, 0)  # one second


def test_popularity_is_a_lorenz_curve() -> None:
    shares = np.cumsum(popularity(LOG).weight)
    at = np.searchsorted(popularity(LOG).value, [1 / 6, 1 / 3, 1.0])
    np.testing.assert_allclose(shares[at], [0.3, 0.6, 1.0], atol=0.002)
    equal = popularity(replace(LOG, items=np.array([4, 4, 4, 4])))
    np.testing.assert_allclose(np.cumsum(equal.weight), equal.value)


def test_popularity_knows_no_number_of_items() -> None:
    """Each item split into two of half its events: the same curve."""
    split = replace(LOG, items=np.repeat(LOG.items, 2))
    np.testing.assert_allclose(popularity(split).weight, popularity(LOG).weight)


def test_position_is_relative_to_the_first() -> None:
    curve = position(LOG)
    assert curve.x.tolist() == [2]  # the third was shown 99 times
    np.testing.assert_allclose(curve.y, [0.4])


def test_rates_by_week() -> None:
    np.testing.assert_allclose(click(LOG).y, [0.1, 0.05])
    np.testing.assert_allclose(conversion(LOG).y, [0.25, 0.4])
    quiet = replace(LOG, by_week=np.array([[200, 100], [0, 5], [0, 2]]))
    assert conversion(quiet).x.tolist() == [2]


def test_money_is_relative_to_the_median() -> None:
    np.testing.assert_allclose(price(LOG).value, np.log([0.1, 1, 10]))
    np.testing.assert_allclose(revenue(LOG).value, np.log([0.25, 1]))
    np.testing.assert_allclose(revenue(LOG).weight, [0.25, 0.75])
    other = replace(LOG, price=7 * LOG.price, revenue=7 * LOG.revenue)
    np.testing.assert_allclose(price(other).value, price(LOG).value)
    np.testing.assert_allclose(revenue(other).value, revenue(LOG).value)


def test_days_do_not_matter_to_gaps() -> None:
    later = replace(LOG, time=LOG.time + 3 * MICROS_PER_DAY)
    np.testing.assert_allclose(gap(later).value, gap(LOG).value)


@pytest.mark.parametrize("name", MARGINALS)
def test_what_a_log_lacks_is_not_measured(name: str) -> None:
    assert set(measure(replace(LOG, lacks={name: "why"}))) == set(MARGINALS) - {name}
