import numpy as np
import pytest

from roiflow.policy.environment import discount, rewards_to_go, slate_rewards, slot_rewards


def test_discount_is_that_of_dcg() -> None:
    np.testing.assert_allclose(discount(3), [1, 1 / np.log2(3), 0.5])


def test_hand_worked_rewards() -> None:
    value = np.array([[10.0, 20.0, -4.0]])
    choices = np.array([[1, 0, 2]])
    expected = [[20, 10 / np.log2(3), -2]]
    np.testing.assert_allclose(slot_rewards(value, choices), expected)
    assert slate_rewards(value, choices)[0] == pytest.approx(18 + 10 / np.log2(3))
    np.testing.assert_allclose(
        rewards_to_go(slot_rewards(value, choices)),
        [[18 + 10 / np.log2(3), 10 / np.log2(3) - 2, -2]],
    )


def test_an_empty_slot_earns_nothing() -> None:
    np.testing.assert_array_equal(slot_rewards(np.array([[8.0]]), np.array([[0, -1]])), [[8, 0]])


def test_several_slates_of_a_request() -> None:
    value = np.array([[1.0, 2.0], [3.0, 4.0]])
    choices = np.array([[[0], [1]], [[1], [0]]])
    np.testing.assert_array_equal(slate_rewards(value, choices), [[1, 2], [4, 3]])


def test_the_best_slate_is_in_order_of_value() -> None:
    rng = np.random.default_rng(0)
    value = rng.normal(size=(40, 6))
    sorted_slates = np.argsort(-value, axis=1)[:, :3]
    others = np.argsort(rng.random((40, 50, 6)), axis=2)[:, :, :3]
    best = slate_rewards(value, sorted_slates)
    # Only where the chosen values are positive does order alone decide; shift to be sure.
    lifted = value - value.min()
    assert np.all(slate_rewards(lifted, others) <= slate_rewards(lifted, sorted_slates)[:, None])
    assert best.shape == (40,)
