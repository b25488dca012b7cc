import numpy as np
import pytest

from roiflow.data.split import RUN_UP, TEST, TRAIN, VALIDATION, Boundaries, boundaries, split
from roiflow.data.weeks import MICROS_PER_DAY, Week

WEEK = Week(2026, 4)


def test_boundaries_are_whole_days_before_the_test_week() -> None:
    found = boundaries(WEEK.window(4), 2, 0)
    assert found == (Week(2026, 1).start, WEEK.start - 2 * MICROS_PER_DAY, WEEK.start)


def test_a_single_week_gives_its_last_days() -> None:
    _, validation, test = boundaries([WEEK], 2, 0)
    assert (validation, test) == (WEEK.end - 4 * MICROS_PER_DAY, WEEK.end - 2 * MICROS_PER_DAY)


@pytest.mark.parametrize(("days", "spared"), [(0, 0), (12, 12), (13, 0), (14, 0)])
def test_a_window_spares_its_first_days_where_a_week_is_left(days: int, spared: int) -> None:
    """Three weeks before the test week, less two days of validation, are 19 days."""
    start = WEEK.window(4)[0].start
    found = boundaries(WEEK.window(4), 2, days)
    assert found.train == start + spared * MICROS_PER_DAY


def test_a_boundary_belongs_to_what_follows() -> None:
    time = np.array([0, 4, 5, 9, 10, 19, 20, 99])
    expected = [RUN_UP, RUN_UP, TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    parts = split(time, Boundaries(5, 10, 20))
    assert parts.tolist() == expected
    assert parts.dtype == np.uint8
