import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.table import Floats, Longs
from roiflow.labels.delays import Curves, hours_between


def curve(delay: list[int], age: list[int]) -> Curves:
    zeros = np.zeros(len(delay), np.int32)
    return Curves.of(np.array(delay, np.int64), np.array(age, np.int64), zeros, zeros, (1, 1), 0.0)


def known(found: Curves, age: list[int] | Longs, category: int = 0, segment: int = 0) -> Floats:
    ages = np.asarray(age)
    cell = np.zeros(ages.size, np.int32)
    return found.known(cell + np.int32(category), cell + np.int32(segment), ages)


def test_hand_worked() -> None:
    """Two old ones took 1 and 3 hours, a young one (age 2) took 1.

    Of the three, only the two old ones could be seen with 3, and one was: P(delay <= 1) = 1/2.
    """
    found = curve([1, 3, 1], [9, 9, 2])
    assert found.hours == 4
    assert known(found, [0, 1, 2, 3, 4, 9]).tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert found.mean(np.zeros(1, np.int32), np.zeros(1, np.int32)).tolist() == [2.0]


def test_nothing_known_says_nothing_is_to_come() -> None:
    assert known(curve([], []), [0, 5]).tolist() == [1.0, 1.0]


def test_hours_are_those_of_the_clock() -> None:
    """From 9:59 to 10:01 is an hour, from 9:01 to 9:59 none."""
    minute = MICROS_PER_HOUR // 60
    start = np.array([9 * 60 + 59, 9 * 60 + 1]) * minute
    end = np.array([10 * 60 + 1, 9 * 60 + 59]) * minute
    assert hours_between(start, end).tolist() == [1, 0]


def test_a_category_is_drawn_to_all_by_so_many_delays() -> None:
    """Four took 1, four of category 1 took 3, all are old: P(delay <= 1) = 1/2 of all.

    Category 1 had 4 of 4 at risk of 3; with 4 more of which half took 3, 6 of 8. Category 0 had
    none of 4: 2 of 8.
    """
    delay, age = np.array([1] * 4 + [3] * 4), np.full(8, 99)
    category = np.repeat([0, 1], 4).astype(np.int32)
    found = Curves.of(delay, age, category, np.zeros(8, np.int32), (3, 1), 4.0)
    assert known(found, [2], 1)[0] == pytest.approx(0.25)
    assert known(found, [2], 0)[0] == pytest.approx(0.75)
    # A category without one delay has the curve of all.
    assert known(found, [2], 2)[0] == pytest.approx(0.5)


def test_a_segment_is_drawn_to_its_category_and_one_without_delays_is_its_category() -> None:
    delay, age = np.array([1] * 4 + [3] * 4), np.full(8, 99)
    zeros = np.zeros(8, np.int32)
    segment = np.repeat([0, 1], 4).astype(np.int32)
    found = Curves.of(delay, age, zeros, segment, (2, 3), 4.0)
    # The category is all: (4 + 4 / 2) / (8 + 4) = 1/2 at risk of 3, and its segments as above.
    assert known(found, [2], 0, 1)[0] == pytest.approx(0.25)
    assert known(found, [2], 0, 2)[0] == pytest.approx(0.5)
    assert known(found, [2], 1, 1)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("mean", [2.0, 20.0])
def test_planted_delays_come_back_from_what_was_known_by_then(mean: float) -> None:
    """Known at whole hours, of impressions of the last four days; closed form at ages."""
    rng, size, now = np.random.default_rng(3), 400_000, 96 * MICROS_PER_HOUR
    shown = (rng.random(size) * now).astype(np.int64)
    took = rng.exponential(mean, size) * MICROS_PER_HOUR
    at = -(-(shown + took.astype(np.int64) + 1) // MICROS_PER_HOUR) * MICROS_PER_HOUR
    seen = at < now
    delay, age = hours_between(shown[seen], at[seen]), hours_between(shown[seen], now)
    zeros = np.zeros(delay.size, np.int32)
    found = Curves.of(delay, age, zeros, zeros, (1, 1), 0.0)
    every = hours_between(shown, at)
    for hours in (2, 6, 24, 60):
        truth = np.mean(every < hours) / np.mean(every < 96)
        assert known(found, [hours])[0] == pytest.approx(truth, abs=0.01)
    # As a whole, which is what sums are divided by: the share of those to come that is known.
    share = known(found, hours_between(shown, now)).mean()
    assert share == pytest.approx(seen.mean() / np.mean(every < 96), abs=0.005)
