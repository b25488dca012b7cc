from itertools import permutations

import numpy as np
import pytest

from roiflow.errors import PropensityError
from roiflow.policy import plackett_luce


def test_hand_worked() -> None:
    # Weights 1, 2, 3: P(3 then 1) = 3/6 x 1/3; P(2 then 3) = 2/6 x 3/4.
    logits = np.log([[1.0, 2.0, 3.0]] * 2)
    choices = np.array([[2, 0], [1, 2]])
    propensity = plackett_luce.conditional_propensities(logits, choices)
    np.testing.assert_allclose(propensity, [[3 / 6, 1 / 3], [2 / 6, 3 / 4]], rtol=1e-14)
    np.testing.assert_allclose(
        plackett_luce.log_likelihood(logits, choices), np.log([1 / 6, 1 / 4]), rtol=1e-14
    )


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_slates_sum_to_one(slots: int) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=4, size=5)
    slates = np.array(list(permutations(range(5), slots)))
    likelihood = plackett_luce.log_likelihood(np.tile(logits, (len(slates), 1)), slates)
    assert np.exp(likelihood).sum() == pytest.approx(1, abs=1e-13)


def test_a_dominant_candidate_leaves_the_others_exact() -> None:
    # After candidate 0, whose softmax rounds to 1, the other two are 50:50.
    propensity = plackett_luce.conditional_propensities(
        np.array([[800.0, 0.0, 0.0]]), np.array([[0, 2, 1]])
    )
    np.testing.assert_allclose(propensity, [[1, 0.5, 1]], rtol=1e-14)
    log = plackett_luce.log_conditional_propensities(
        np.array([[800.0, 0.0, 0.0]]), np.array([[1, 2, 0]])
    )
    np.testing.assert_allclose(log, [[-800, -800, 0]], rtol=1e-14)


def test_a_shift_of_the_logits_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(20, 6))
    choices, propensity = plackett_luce.sample(logits, 3, rng)
    shifted = plackett_luce.conditional_propensities(logits + 1000, choices)
    np.testing.assert_allclose(shifted, propensity, rtol=1e-11)


def test_samples_follow_the_slate_probabilities() -> None:
    logits = np.array([0.0, 1.0, -0.5, 0.3])
    slates = np.array(list(permutations(range(4), 2)))
    expected = np.exp(plackett_luce.log_likelihood(np.tile(logits, (12, 1)), slates))
    draws = 60_000
    choices, propensity = plackett_luce.sample(
        np.tile(logits, (draws, 1)), 2, np.random.default_rng(3)
    )
    counts = np.array([np.all(choices == slate, axis=1).sum() for slate in slates])
    chi_square = np.sum((counts - draws * expected) ** 2 / (draws * expected))
    assert chi_square < 31.3  # 99.9 % quantile, 11 degrees of freedom
    np.testing.assert_allclose(
        propensity, plackett_luce.conditional_propensities(np.tile(logits, (draws, 1)), choices)
    )


def test_same_seed_same_slates() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 9))
    first = plackett_luce.sample(logits, 4, np.random.default_rng(5))
    second = plackett_luce.sample(logits, 4, np.random.default_rng(5))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_what_cannot_be_shown_is_never_sampled() -> None:
    logits = np.tile([0.0, -np.inf, 1.0, -np.inf], (2000, 1))
    choices, propensity = plackett_luce.sample(logits, 3, np.random.default_rng(4))
    assert set(np.unique(choices[:, :2])) == {0, 2}
    np.testing.assert_array_equal(choices[:, 2], -1)
    np.testing.assert_array_equal(propensity[:, 1:], 1)


def test_more_slots_than_candidates() -> None:
    choices, propensity = plackett_luce.sample(np.zeros((4, 2)), 5, np.random.default_rng(0))
    assert choices.shape == (4, 5)
    np.testing.assert_array_equal(choices[:, 2:], -1)
    np.testing.assert_allclose(propensity, np.tile([0.5, 1, 1, 1, 1], (4, 1)))


@pytest.mark.parametrize(
    "choices", [[[1, 1]], [[2, 0]], [[-1, 0]]], ids=["repeated", "not shown", "empty too early"]
)
def test_impossible_choices_have_propensity_zero(choices: list[list[int]]) -> None:
    logits = np.array([[0.0, 1.0, -np.inf, 0.0]])
    propensity = plackett_luce.conditional_propensities(logits, np.array(choices))
    assert propensity.prod() == 0


def test_greedy_takes_the_largest_logits() -> None:
    choices, propensity = plackett_luce.greedy(np.log([[1.0, 4.0, 2.0]]), 2)
    np.testing.assert_array_equal(choices, [[1, 2]])
    np.testing.assert_allclose(propensity, [[4 / 7, 2 / 3]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_no_number_is_named(bad: float) -> None:
    logits = np.zeros((3, 2))
    logits[1, 0] = bad
    with pytest.raises(PropensityError, match=rf"row 1, candidate 0, value {bad}"):
        plackett_luce.sample(logits, 1, np.random.default_rng(0))
