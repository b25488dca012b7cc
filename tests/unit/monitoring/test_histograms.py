"""Histograms of parts are those of the whole, and their distances are closed forms."""

import math

import numpy as np
import pytest

from roiflow.monitoring.histograms import (
    Codes,
    Histogram,
    Numbers,
    Shares,
    distance,
    jensenshannon,
    psi,
    share,
)

RNG = np.random.default_rng(5)


def numbers(*blocks: np.ndarray) -> list[Histogram]:
    made = Numbers(blocks[0].shape[1])
    for block in blocks:
        made.add(block.astype(np.float32))
    return made.histograms()


def codes(*blocks: list[int]) -> Histogram:
    made = Codes()
    for block in blocks:
        made.add(np.array(block, np.int32))
    return made.histogram()


def test_parts_add_up_to_the_whole() -> None:
    rows = RNG.normal(size=(1000, 3))
    whole, parts = numbers(rows), numbers(rows[:1], rows[1:1], rows[1:400], rows[400:])
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
        np.testing.assert_array_equal(one.count, other.count)
        assert (one.low, one.high, one.rows) == (other.low, other.high, 1000)


def test_values_are_in_order_with_their_ends() -> None:
    (one,) = numbers(np.array([[3.0], [-2.5], [0.0], [-0.25], [3.0], [1e6]]))
    assert one.value[:-1].tolist() == [-2.5, -0.25, 0.0, 3.0]
    assert one.value[-1] == pytest.approx(1e6, rel=5e-4)
    assert one.count.tolist() == [1, 1, 1, 2, 1]
    assert (one.low, one.high) == (-2.5, 1e6)


def test_a_negative_zero_is_counted() -> None:
    (found,) = numbers(np.array([[-0.0], [0.0], [2.0]]))
    assert (found.rows, found.low, found.high) == (3, 0.0, 2.0)


def test_whole_numbers_have_a_bin_each() -> None:
    (one,) = numbers(np.arange(4097.0)[:, None])
    np.testing.assert_array_equal(one.value, np.arange(4097))


def test_codes_grow_with_the_blocks() -> None:
    one = codes([0, 2, 2], [5], [])
    assert (one.value.tolist(), one.count.tolist()) == ([0, 2, 5], [1, 2, 1])


def test_few_values_are_compared_value_by_value() -> None:
    found = share(codes([0, 0, 3, 3]), codes([0, 3, 3, 7]), bins=2)
    assert found.bins == ("0", "3", "7")
    assert (found.reference.tolist(), found.current.tolist()) == ([0.5, 0.5, 0], [0.25, 0.5, 0.25])
    assert found.unseen == 0.25


def test_many_values_are_compared_in_bins_of_equal_width_over_both() -> None:
    """As numpy counts them, where no value lies closer to an edge than a bin is wide."""
    here, there = np.arange(0.0, 100), np.arange(50.0, 200, 2)
    (reference,), (current,) = numbers(here[:, None]), numbers(there[:, None])
    found = share(reference, current, bins=7)
    edges = np.linspace(0, 198, 8)
    np.testing.assert_allclose(found.reference, np.histogram(here, edges)[0] / 100)
    np.testing.assert_allclose(found.current, np.histogram(there, edges)[0] / 75)
    assert found.bins[0] == "0 to 28.29"
    assert found.unseen == pytest.approx(np.mean(there >= edges[4]))


def test_distances_are_their_closed_forms() -> None:
    half, fifth = np.array([0.5, 0.5]), np.array([0.2, 0.8])
    exact = 0.3 * math.log(0.5 / 0.2) - 0.3 * math.log(0.5 / 0.8)
    assert psi(half, fifth, 1e-4) == pytest.approx(exact, rel=1e-12)
    assert psi(np.array([1.0, 0]), np.array([0, 1.0]), 0.01) == pytest.approx(
        2 * 0.99 * math.log(100)
    )
    assert jensenshannon(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(
        math.sqrt(math.log(2))
    )
    found = Shares(("a", "b"), half, fifth)
    assert distance("psi", found, 1e-4) == psi(half, fifth, 1e-4)
    assert distance("jensenshannon", found, 1e-4) == jensenshannon(half, fifth)
