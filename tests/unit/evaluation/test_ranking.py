"""Ranking metrics against hand-worked numbers and slow references."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roiflow.evaluation import ranking
from roiflow.evaluation.ranking import Happened
from roiflow.features.table import Flags, Floats
from roiflow.ranking.metrics import auc

SCORE = np.array([0.1, 0.4, 0.35, 0.8])
LABEL = np.array([False, False, True, True])
USER = np.array([1, 2, 1, 2])


def happened(label: Flags, user: NDArray[np.integer], known: Floats | None = None) -> Happened:
    return Happened(user, label, np.ones(label.size) if known is None else known, 0.5)


def test_auc_by_hand() -> None:
    interval = ranking.auc_interval(SCORE, happened(LABEL, USER), 0.95)
    assert interval.value == 0.75
    # User 1 adds (0.5 - 0.75) / 2 + (1.0 - 0.75) / 2 = 0, and so does user 2.
    assert interval.low == interval.high == 0.75


def test_one_class_has_no_auc() -> None:
    assert ranking.auc_interval(SCORE, happened(np.ones(4, bool), USER), 0.95).value is None
    assert np.isnan(ranking.gauc(SCORE, happened(np.ones(4, bool), USER)))


def test_a_known_conversion_stands_for_those_that_are_not_known_yet() -> None:
    """The hit with score 0.35 beats one of two misses, and the one with 0.8 both.

    Where the first could be known by half, it counts twice: (2 x 0.5 + 1) / 3.
    """
    known = np.array([1.0, 1.0, 0.5, 1.0])
    assert ranking.auc_interval(SCORE, happened(LABEL, USER, known), 0.95).value == pytest.approx(
        2 / 3
    )
    # Under the floor a row says nothing: the other hit is left, which beats both.
    known[2] = 0.4
    assert ranking.auc_interval(SCORE, happened(LABEL, USER, known), 0.95).value == 1.0
    # Within user 1 the hit beats the miss, with any weight.
    within = ranking.gauc(SCORE, happened(LABEL, USER, np.array([1.0, 1.0, 0.6, 1.0])))
    assert within == pytest.approx(1.0)


def test_calibration_compares_what_is_known_with_what_can_be_known() -> None:
    """A right prediction of 0.5 of which half is known: a quarter is seen."""
    label = np.array([True, False, False, False] * 10)
    half = happened(label, np.arange(40), np.full(40, 0.5))
    predicted = np.full(40, 0.5)
    found = ranking.label_metrics(
        "conversion",
        predicted,
        predicted,
        half,
        confidence=0.95,
        bins=1,
        rng=np.random.default_rng(0),
    )
    assert found["test_full_conversion_pcoc"] == pytest.approx(1.0)
    assert found["test_full_conversion_ece"] == pytest.approx(0.0)


def test_the_auc_of_young_rows_is_that_of_all_once_they_are_known() -> None:
    """Slow conversions are those that score high, so that the known ones speak ill of a ranker."""
    rng = np.random.default_rng(8)
    score = rng.normal(size=400_000)
    label = rng.random(400_000) < 1 / (1 + np.exp(5.0 - score))
    known = np.where(score > 0, 0.55, 0.95)
    seen = label & (rng.random(400_000) < known)
    user = np.arange(400_000)
    truth = auc(score, label)
    assert auc(score, seen) < truth - 0.04
    found = ranking.auc_interval(score, happened(seen, user, known), 0.95)
    assert found.value == pytest.approx(truth, abs=0.01)


@given(st.integers(0, 2**32 - 1))
def test_influence_sums_to_zero_and_is_the_jackknife_slope(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 6, size=40).astype(float)
    label = np.r_[True, False, rng.random(38) < 0.4]
    value, influence = ranking.auc_influence(score, label, np.ones(40))
    assert value == pytest.approx(auc(score, label))
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    # Doubling a positive's weight moves the AUC by its influence x m / (m + 1).
    row = int(np.flatnonzero(label)[0])
    m = label.sum()
    doubled = auc(np.r_[score, score[row]], np.r_[label, True])
    assert doubled - auc(score, label) == pytest.approx(influence[row] * m / (m + 1))


def test_the_auc_interval_covers_the_truth_where_users_are_alike() -> None:
    """Clicks hang together within a user; the truth is by a very large sample."""
    rng = np.random.default_rng(5)

    def draw(users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        user = np.repeat(np.arange(users), 8)
        taste = rng.normal(size=users)[user]
        score = rng.normal(size=user.size) + taste
        label = rng.random(user.size) < 1 / (1 + np.exp(1.0 - taste - 0.5 * score))
        return score, label, user

    truth = auc(*draw(60_000)[:2])
    hits = 0
    for _ in range(200):
        score, label, user = draw(150)
        found = ranking.auc_interval(score, happened(label, user), confidence=0.95)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_gauc_equals_a_loop_over_users() -> None:
    rng = np.random.default_rng(2)
    user = rng.integers(0, 30, size=400)
    score = rng.integers(0, 5, size=400) / 4
    label = rng.random(400) < 0.3
    total, weight = 0.0, 0
    for each in np.unique(user):
        mine = user == each
        value = auc(score[mine], label[mine])
        if not np.isnan(value):
            total += value * mine.sum()
            weight += mine.sum()
    assert ranking.gauc(score, happened(label, user)) == pytest.approx(total / weight)


def test_calibration_by_hand() -> None:
    predicted = np.array([0.1, 0.3, 0.6, 0.8])
    label = np.array([False, True, True, True])
    curve = ranking.calibration_curve(predicted, label, bins=2)
    np.testing.assert_allclose(curve.predicted, [0.2, 0.7])
    np.testing.assert_allclose(curve.observed, [0.5, 1.0])
    np.testing.assert_array_equal(curve.count, [2, 2])
    assert ranking.ece(curve) == pytest.approx(0.3)
    assert ranking.pcoc(predicted, label) == pytest.approx(1.8 / 3)
    assert ranking.pcoc(predicted, np.zeros(4, bool)) is None


def test_top_metrics_by_hand() -> None:
    """User 1 ranks hit, miss, hit; user 2 has no hit and is left out."""
    score = np.array([0.9, 0.5, 0.1, 0.7])
    label = np.array([True, False, True, False])
    user = np.array([1, 1, 1, 2])
    got = ranking.top_metrics(score, label, user, np.random.default_rng(0), cutoff=2)
    ideal = 1 + 1 / np.log2(3)
    assert got == pytest.approx(
        {"ndcg_at_2": 1 / ideal, "precision_at_2": 0.5, "recall_at_2": 0.5, "f1_at_2": 0.5}
    )


def test_ties_are_broken_at_random() -> None:
    """A constant score gives the expected precision, whatever the order of the rows."""
    label = np.tile([True] * 2 + [False] * 8, 3000)
    user = np.repeat(np.arange(3000), 10)
    got = ranking.top_metrics(np.zeros(30_000), label, user, np.random.default_rng(1))
    assert got["precision_at_5"] == pytest.approx(0.2, abs=0.01)


def test_slate_metrics_by_hand() -> None:
    ads = np.array([[1, 2], [1, -1], [2, 3]], np.int32)
    got = ranking.slate_metrics(
        ads,
        catalogue=np.array([1, 2, 3, 4], np.int32),
        training_clicks=np.array([0, 10, 4, 2, 8]),
        category=np.array([0, 7, 7, 9, 9], np.int32),
    )
    assert got == pytest.approx(
        {
            "test_policy_arp": (10 + 4 + 10 + 4 + 2) / 5,
            "test_policy_coverage": 0.75,
            "test_policy_diversity": 0.5,
        }
    )


def test_popularity_by_hand() -> None:
    ad = np.array([1, 1, 2], np.int32)
    got = ranking.popularity(ad, np.array([True, True, False]), ads=4, strength=3.0)
    np.testing.assert_allclose(got, [2 / 3, 4 / 5, 2 / 4, 2 / 3])


def test_metric_names_carry_the_protocol() -> None:
    got = ranking.label_metrics(
        "click",
        SCORE,
        SCORE,
        happened(LABEL, USER),
        confidence=0.95,
        bins=20,
        rng=np.random.default_rng(0),
    )
    assert got["test_full_click_auc"] == 0.75
    assert {"test_full_click_ece", "test_full_click_ndcg_at_5"} <= set(got)
