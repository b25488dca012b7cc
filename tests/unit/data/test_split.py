import numpy as np

from roiflow.data.split import TEST, TRAIN, VALIDATION, boundaries, split
from roiflow.data.weeks import MICROS_PER_DAY, Week

WEEK = Week(2026, 4)


def test_boundaries_are_whole_days_before_the_test_week() -> None:
    validation, test = boundaries(WEEK.window(4), 2)
    assert (validation, test) == (WEEK.start - 2 * MICROS_PER_DAY, WEEK.start)


def test_a_single_week_gives_its_last_days() -> None:
    validation, test = boundaries([WEEK], 2)
    assert (validation, test) == (WEEK.end - 4 * MICROS_PER_DAY, WEEK.end - 2 * MICROS_PER_DAY)


def test_a_boundary_belongs_to_what_follows() -> None:
    time = np.array([0, 9, 10, 19, 20, 99])
    expected = [TRAIN, TRAIN, VALIDATION, VALIDATION, TEST, TEST]
    parts = split(time, validation=10, test=20)
    assert parts.tolist() == expected
    assert parts.dtype == np.uint8
