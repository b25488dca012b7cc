import numpy as np
import pytest

from roiflow.own_data.delays import Delays, still_to_come


def test_hand_worked() -> None:
    """Two old impressions converted after 1 and 3, a young one (age 2) after 1.

    n(3) = 3 - 1 (the young one could not be seen with 3) = 2, so F(1) = 1 - 1 / 2.
    """
    found = Delays.of(np.array([1, 3, 1]), np.array([9, 9, 2]))
    assert found.time.tolist() == [1, 3]
    assert found.share.tolist() == [0.5, 1.0]
    assert found.known(np.array([0, 1, 2, 3, 9])).tolist() == [0.0, 0.5, 0.5, 1.0, 1.0]


def test_nothing_known_says_nothing_is_to_come() -> None:
    none = Delays.of(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert still_to_come(none, 0, np.array([1, 2])).tolist() == [0.0, 0.0]


def test_a_planted_delay_is_found_again_from_what_was_known_by_then() -> None:
    rng, size = np.random.default_rng(3), 40_000
    age = rng.integers(0, 7_000, size)
    delay = rng.exponential(1_500, size).astype(np.int64)
    converts = rng.random(size) < 0.2
    seen = converts & (delay <= age)
    found = Delays.of(delay[seen], age[seen])
    for time in (500, 1_500, 4_000):
        truth = (1 - np.exp(-time / 1_500)) / (1 - np.exp(-7_000 / 1_500))
        assert found.known(np.array([time]))[0] == pytest.approx(truth, abs=0.03)
    missing = still_to_come(found, int(seen.sum()), age).sum()
    assert missing == pytest.approx((converts & ~seen & (delay <= 7_000)).sum(), rel=0.1)
