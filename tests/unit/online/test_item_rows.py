from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features import kernels
from roiflow.online.item_rows import (
    ItemCounter,
    add,
    by_hour_and_day,
    counted,
    periods,
    read,
    windows,
)


def test_values_are_28_bytes_a_row_and_add_up() -> None:
    rows = np.array([[2, 1, 5, 1, 0, 0], [1, 1, 3, 2, 1, 2**40]])
    value = add(None, rows)
    assert len(value) == 2 * 28
    assert_array_equal(read(add(value, rows[:1])), [[1, 1, 3, 2, 1, 2**40], [2, 1, 10, 2, 0, 0]])
    assert read(None).shape == (0, 6)


@pytest.mark.parametrize("hour", [24 * 100, 24 * 100 + 1, 24 * 100 + 23])
def test_periods_cover_every_window_once(hour: int) -> None:
    """A window's hours are in exactly one of the periods that it adds up."""
    lengths = np.array([1, 7, 28])
    for number, days in enumerate(lengths.tolist()):
        seen: Counter[int] = Counter()
        for _, start, hours in periods(hour, 28):
            if windows(lengths, hour, start)[number]:
                seen.update(range(start, start + hours))
        assert seen == Counter(range((hour // 24 - days) * 24, hour))


def test_counts_by_hour_ad_and_placement_are_those_of_a_loop() -> None:
    rng, counter = np.random.default_rng(2), ItemCounter(50, 3)
    expected: dict[tuple[int, int, int], list[int]] = {}
    for _ in range(4):
        size = 5_000
        known = rng.integers(0, 40 * MICROS_PER_HOUR, size)
        ad, placement = (rng.integers(0, n, size).astype(np.int32) for n in (50, 3))
        kind = rng.choice(
            [kernels.IMPRESSION, kernels.CLICKED_IMPRESSION, kernels.CLICK, kernels.CONVERSION,
             kernels.RETURN], size
        ).astype(np.uint8)  # fmt: skip
        revenue = rng.integers(-9, 9, size)
        counter.add(known, ad, placement, kind, revenue)
        for row in range(size):
            key = (int(known[row]) // MICROS_PER_HOUR, int(ad[row]), int(placement[row]))
            counts = expected.setdefault(key, [0, 0, 0, 0])
            counts[0] += kind[row] in (kernels.IMPRESSION, kernels.CLICKED_IMPRESSION)
            counts[1] += kind[row] in (kernels.CLICKED_IMPRESSION, kernels.CLICK)
            counts[2] += kind[row] == kernels.CONVERSION
            counts[3] += int(revenue[row])
    hour, rows = counter.rows()
    found = {
        (int(h), *map(int, row[:2])): row[2:].tolist() for h, row in zip(hour, rows, strict=True)
    }
    assert found == expected
    assert list(found) == sorted(found)


def test_sums_of_money_stay_at_the_largest() -> None:
    """11,000 conversions of a billion of the currency: more than 64 bits hold."""
    size, amount = 11_000, 10**15
    ad, kind = np.ones(size, np.int32), np.full(size, kernels.CONVERSION, np.uint8)
    for sign in (1, -1):
        revenue = np.full(size, sign * amount)
        counter = ItemCounter(2, 2)
        counter.add(np.zeros(size, np.int64), ad, ad, kind, revenue)
        assert counter.rows()[1][:, 5].tolist() == [sign * kernels.LARGEST_SUM]
        value = add(None, counted(ad, ad, kind, revenue))
        assert read(value)[:, 5].tolist() == [sign * kernels.LARGEST_SUM]
        assert read(add(value, counted(ad, ad, kind, revenue)))[:, 4:].tolist() == [
            [2 * size, sign * kernels.LARGEST_SUM]
        ]


def test_hours_and_days_hold_the_same_rows() -> None:
    hour = np.array([24, 25, 48], np.int32)
    rows = np.array([[1, 0, 1, 0, 0, 0], [1, 0, 2, 1, 0, 0], [2, 0, 4, 0, 0, 7]])
    hours, days = by_hour_and_day(hour, rows)
    assert sorted(hours) == ["hour:24", "hour:25", "hour:48"]
    assert {key: value.tolist() for key, value in days.items()} == {
        "day:1": [[1, 0, 3, 1, 0, 0]],
        "day:2": [[2, 0, 4, 0, 0, 7]],
    }
