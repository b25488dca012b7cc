"""What may be shown, against hand-worked hours and budgets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from roiflow.catalogue.eligibility import Pacing, Terms, eligible, spent_before
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR

DAY = 20_000 * MICROS_PER_DAY
NOON = DAY + 12 * MICROS_PER_HOUR
LONG = np.iinfo(np.int64).max


def terms(*rows: tuple[int, int, int]) -> Terms:
    return Terms(*np.array(rows, np.int64).T)


def test_from_its_start_to_its_end() -> None:
    ads = terms((NOON, LONG, 0), (NOON + 1, LONG, 0), (0, NOON, 0), (0, NOON + 1, 0))
    found = eligible(ads, np.zeros(4), NOON, Pacing.none())
    assert found.tolist() == [True, False, False, True]


def test_a_spent_budget_is_out_and_none_comes_back_to_fill_a_slate() -> None:
    ads = terms((0, LONG, 100), (0, LONG, 100), (0, LONG, 0))
    assert eligible(ads, np.array([99, 100, 10**9]), NOON, Pacing.none()).tolist() == [1, 0, 1]
    assert not eligible(ads, np.array([100, 101, 0]), NOON, Pacing.none())[:2].any()


def test_a_paced_budget_is_spent_in_step_with_the_traffic() -> None:
    """Of 10 parts of a day's traffic 1 comes in the first hour, 3 in the first two."""
    pacing = Pacing.of(np.array([1.0, 2, 7, *[0] * 21]))
    ads = terms(*[(0, LONG, 1_000)] * 4)
    spent = np.array([99, 100, 299, 300])
    assert eligible(ads, spent, DAY, pacing).tolist() == [True, False, False, False]
    late = DAY + 2 * MICROS_PER_HOUR - 1
    assert eligible(ads, spent, late, pacing).tolist() == [True, True, True, False]
    assert eligible(ads, spent, late + 1, pacing).all()


def test_times_of_one_hour_each_have_their_own_starts_and_ends() -> None:
    ads = terms((NOON + 5, LONG, 0), (0, NOON + 5, 0))
    found = eligible(ads, np.zeros(2), np.array([NOON, NOON + 5]), Pacing.none())
    assert found.tolist() == [[False, True], [True, False]]


def test_spend_counts_from_midnight_to_the_full_hour() -> None:
    time = np.array([DAY - 1, DAY, NOON - 1, NOON, DAY])
    ad = np.array([0, 0, 0, 0, 2], np.int32)
    found = spent_before(ad, time, np.array([1, 20, 300, 4_000, 50_000]), NOON + 7, 3)
    assert found.tolist() == [320, 0, 50_000]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=8))
def test_more_spend_never_makes_an_ad_eligible(pairs: list[tuple[int, int]]) -> None:
    budget, spent = np.array(pairs, np.int64).T
    ads = Terms(np.zeros_like(budget), np.full_like(budget, LONG), budget)
    pacing = Pacing.of(np.arange(1.0, 25))
    before, after = (eligible(ads, spent + more, NOON, pacing) for more in (0, 1))
    assert not (after & ~before).any()
    assert before[budget == 0].all()
