"""Estimators against hand-worked numbers, closed forms and exact enumeration."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from roiflow.artefacts.evaluation import Diagnostics
from roiflow.errors import PropensityError
from roiflow.evaluation.estimators.cascade_dr import cascade_dr_terms
from roiflow.evaluation.estimators.diagnostics import (
    Weighed,
    diagnose,
    doubts,
    effective_sample_size,
)
from roiflow.evaluation.estimators.dm import dm
from roiflow.evaluation.estimators.dr import cross_fitted, dr, dr_terms, self_normalised_dr
from roiflow.evaluation.estimators.ips import ips, ips_terms
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.evaluation.estimators.shrunk_dr import shrunk, shrunk_dr_terms
from roiflow.evaluation.estimators.snips import snips
from roiflow.evaluation.estimators.sub_gaussian import sub_gaussian
from roiflow.evaluation.estimators.switch_dr import switch_dr_terms, switched
from roiflow.evaluation.estimators.weights import LARGEST_WEIGHT, clipped, importance_weights
from roiflow.features.table import Floats, Longs

REWARD = np.array([1.0, 0.0, 1.0, 4.0])
WEIGHT = np.array([2.0, 0.5, 1.0, 0.25])
LOGGED = np.array([0.5, 0.5, 1.0, 2.0])
TARGET = np.array([1.0, 0.0, 2.0, 1.0])


def test_hand_worked() -> None:
    assert ips(REWARD, WEIGHT) == pytest.approx((2 + 0 + 1 + 1) / 4)
    assert snips(REWARD, WEIGHT) == pytest.approx(4 / 3.75)
    assert dm(TARGET) == 1.0
    # 1 + 2(.5) = 2;  0 + .5(-.5) = -.25;  2 + 0 = 2;  1 + .25(2) = 1.5
    assert dr(REWARD, WEIGHT, LOGGED, TARGET) == pytest.approx(5.25 / 4)


def test_hand_worked_slates() -> None:
    target = np.array([[0.5, 0.5], [0.2, 1.0]])
    logged = np.array([[0.25, 1.0], [0.4, 0.5]])
    weight = slate_weights(target, logged)
    np.testing.assert_allclose(weight, [[2.0, 1.0], [0.5, 1.0]])
    reward = np.array([[1.0, 2.0], [0.0, 3.0]])
    assert ips(reward, weight) == pytest.approx((2 + 2 + 0 + 3) / 2)
    assert snips(reward, weight) == pytest.approx(2 / 2.5 + 5 / 2)


def test_target_equal_to_logging_gives_the_mean() -> None:
    propensity = np.array([0.1, 0.5, 1.0, 0.25])
    weight = importance_weights(propensity, propensity)
    assert ips(REWARD, weight) == REWARD.mean()
    assert snips(REWARD, weight) == REWARD.mean()


def test_doubly_robust_has_its_two_limits() -> None:
    assert dr(REWARD, np.zeros(4), LOGGED, TARGET) == dm(TARGET)
    assert dr(REWARD, WEIGHT, np.zeros(4), np.zeros(4)) == ips(REWARD, WEIGHT)


def test_a_perfect_model_leaves_doubly_robust_no_variance() -> None:
    truth = np.full(4, 3.0)
    terms = dr_terms(REWARD, WEIGHT, REWARD, truth)
    np.testing.assert_array_equal(terms, truth)


@given(
    reward=arrays(np.float64, 12, elements=st.floats(0, 1e6)),
    weight=arrays(np.float64, 12, elements=st.floats(0.01, 100)),
    scale=st.floats(0.1, 1000),
    seed=st.integers(0, 2**32 - 1),
)
def test_scaling_and_order(reward: Floats, weight: Floats, scale: float, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(12)
    for estimator in (ips, snips):
        once = estimator(reward, weight)
        assert estimator(scale * reward, weight) == pytest.approx(scale * once)
        assert estimator(reward[order], weight[order]) == pytest.approx(once)
    assert snips(reward, scale * weight) == pytest.approx(snips(reward, weight))
    slack = 1e-9 * max(1.0, reward.max())
    assert reward.min() - slack <= snips(reward, weight) <= reward.max() + slack


def _plackett_luce(chances: Floats, slate: tuple[int, ...]) -> Floats:
    left, conditional = 1.0, []
    for item in slate:
        conditional.append(chances[item] / left)
        left -= chances[item]
    return np.array(conditional)


def test_slate_estimators_are_unbiased_by_enumeration() -> None:
    """Every slate of 2 out of 4, weighted by its logging probability."""
    logging = np.array([0.4, 0.3, 0.2, 0.1])
    policy = np.array([0.1, 0.2, 0.3, 0.4])
    value = np.array([1.0, 5.0, 2.0, 8.0])
    discount = np.array([1.0, 0.5])
    slates = list(permutations(range(4), 2))
    logged = np.array([_plackett_luce(logging, slate) for slate in slates])
    target = np.array([_plackett_luce(policy, slate) for slate in slates])
    reward = np.array([[value[item] for item in slate] for slate in slates]) * discount
    truth = float(np.sum(target.prod(axis=1) * reward.sum(axis=1)))
    weight = slate_weights(target, logged)
    chance = logged.prod(axis=1)
    assert np.sum(chance * ips_terms(reward, weight)) == pytest.approx(truth)
    wrong = np.random.default_rng(3).uniform(0, 9, size=(4, 4))
    q_logged = np.array([[wrong[first, first], wrong[first, second]] for first, second in slates])
    above = float(policy @ np.diag(wrong))
    below = {
        first: sum(
            _plackett_luce(policy, (first, second))[1] * wrong[first, second]
            for second in range(4)
            if second != first
        )
        for first in range(4)
    }
    q_target = np.array([[above, below[first]] for first, _ in slates])
    terms = cascade_dr_terms(reward, weight, q_logged, q_target)
    assert np.sum(chance * terms) == pytest.approx(truth)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, np.nan])
def test_a_wrong_logged_propensity_is_named(bad: float) -> None:
    with pytest.raises(PropensityError, match=r"1 of 3 outside \(0, 1\].*row 1"):
        importance_weights(np.ones(3), np.array([0.5, bad, 0.5]))


def test_a_wrong_target_propensity_is_named() -> None:
    with pytest.raises(PropensityError, match=r"target propensity: 1 of 2"):
        importance_weights(np.array([0.5, 1.5]), np.ones(2))


def test_a_weight_stays_at_the_largest() -> None:
    target, logged = np.full((2, 3), 0.5), np.array([[1e-110] * 3, [0.5, 5e-324, 1.0]])
    most = LARGEST_WEIGHT
    np.testing.assert_array_equal(
        slate_weights(target, logged), [[most, most, most], [1.0, most, most / 2]]
    )
    found = diagnose(slate_weights(target, logged), 1.0)
    assert found.max_weight == most
    assert found.effective_sample_size == pytest.approx(1.0)


def test_effective_sample_size() -> None:
    assert effective_sample_size(np.ones(7)) == pytest.approx(7)
    assert effective_sample_size(np.array([5.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(np.zeros(3)) == 0


class _Limits:
    min_effective_sample_size = 2.0
    max_weight = 3.0
    mean_weight_tolerance = 0.25
    min_maturity = 0.5
    min_support = 0.9


def test_diagnostics_take_the_worst_position() -> None:
    weight = np.array([[1.0, 4.0], [1.0, 0.0], [1.0, 9.0]])
    present = np.array([[True, True], [True, True], [True, False]])
    found = diagnose(weight, 0.8, present)
    assert found == Diagnostics(
        rows=3, effective_sample_size=1.0, max_weight=4.0, mean_weight=2.0, support=0.8
    )
    assert doubts(found, _Limits()) == [
        "effective sample size 1.0 under 2",
        "largest weight 4.0 over 3",
        "mean weight 2.000 not within 0.25 of 1",
        "support 0.800 under 0.9",
    ]


def test_no_doubt_about_the_logging_policy_itself() -> None:
    assert doubts(diagnose(np.ones(5), 1.0), _Limits()) == []


def test_large_weights_are_taken_off_as_they_say() -> None:
    """By hand: of 0.5, 2 and 8, those over 2 go to the model, shrink or stay at the limit."""
    weight = np.array([0.5, 2.0, 8.0])
    np.testing.assert_array_equal(switched(weight, 2.0), [0.5, 2.0, 0.0])
    np.testing.assert_array_equal(clipped(weight, 2.0), [0.5, 2.0, 2.0])
    np.testing.assert_allclose(shrunk(weight, 4.0), [2 / 4.25, 1.0, 32 / 68])
    np.testing.assert_allclose(sub_gaussian(weight, 0.5), [0.5 / 0.75, 2 / 1.5, 8 / 4.5])
    # 1 + .5(0), 0 + 0, 2 + 0 and so on: rows of large weight say what the model says.
    terms = switch_dr_terms(REWARD[:3], weight, LOGGED[:3], TARGET[:3], 2.0)
    np.testing.assert_allclose(terms, [1.25, -1.0, 2.0])


def test_shrinkage_has_its_two_limits() -> None:
    assert np.mean(shrunk_dr_terms(REWARD, WEIGHT, LOGGED, TARGET, 0.0)) == dm(TARGET)
    assert np.mean(shrunk_dr_terms(REWARD, WEIGHT, LOGGED, TARGET, np.inf)) == pytest.approx(
        dr(REWARD, WEIGHT, LOGGED, TARGET)
    )


def test_self_normalised_doubly_robust_by_hand() -> None:
    # 1 + (2 x .5 - .5 x .5 + 0 + .25 x 2) / 3.75
    got = self_normalised_dr(REWARD, WEIGHT, LOGGED, TARGET)
    assert got == pytest.approx(1 + 1.25 / 3.75)


def test_no_row_is_predicted_by_what_saw_its_cluster() -> None:
    cluster = np.repeat(np.arange(20), 3)
    seen = np.random.default_rng(0).permutation(60)

    def fit_predict(train: Longs, test: Longs) -> Floats:
        assert not set(cluster[seen][train]) & set(cluster[seen][test])
        return seen[test].astype(np.float64)

    found = cross_fitted(cluster[seen], 4, fit_predict, np.random.default_rng(1))
    np.testing.assert_array_equal(found, seen)


def test_weights_of_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    weight, looks = rng.random((50, 3)), np.tile([1.0, 0.6, 0.4], (50, 1))
    for of in (Weighed.of, Weighed.pooled):
        whole = of(weight, looks, 0.9)
        parts = of(weight[:20], looks[:20], 0.9) + of(weight[20:], looks[20:], 0.9)
        np.testing.assert_allclose(whole.total, parts.total)
        np.testing.assert_allclose(whole.squares, parts.squares)
        assert whole.diagnostics(50, 1.0).clipped == pytest.approx(
            parts.diagnostics(50, 1.0).clipped
        )
    heavy = (looks * weight)[weight > 0.9].sum() / (looks * weight).sum()
    assert Weighed.pooled(weight, looks, 0.9).diagnostics(50, 1.0).clipped == pytest.approx(heavy)
    alike = Weighed.pooled(np.ones((50, 3)), looks).diagnostics(50, 1.0)
    assert alike.effective_sample_size == pytest.approx(50)
    assert alike.mean_weight == pytest.approx(1.0)
