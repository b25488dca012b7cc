import numpy as np
import pytest

from roiflow.ranking.metrics import auc, log_loss


def test_auc_by_hand_with_a_tie() -> None:
    # pairs (positive, negative): (3, 1) won, (3, 2) won, (2, 1) won, (2, 2) tied: 3.5 of 4
    assert auc([1, 2, 2, 3], [0, 0, 1, 1]) == 3.5 / 4


def test_auc_of_constant_scores_is_one_half() -> None:
    assert auc(np.zeros(7), [0, 1, 1, 0, 0, 1, 0]) == 0.5


def test_auc_equals_the_share_of_pairs() -> None:
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 9, 200), rng.random(200) < 0.3
    gap = score[label][:, None] - score[~label][None, :]
    assert auc(score, label) == pytest.approx(np.mean((gap > 0) + 0.5 * (gap == 0)), abs=1e-12)


def test_auc_is_kept_by_a_rising_map_and_mirrored_by_a_falling_one() -> None:
    rng = np.random.default_rng(1)
    score, label = rng.normal(size=300), rng.random(300) < 0.5
    assert auc(np.exp(score), label) == auc(score, label)
    assert auc(-score, label) == pytest.approx(1 - auc(score, label))


@pytest.mark.parametrize("label", [[0, 0], [1, 1]])
def test_auc_without_both_classes_is_nan(label: list[int]) -> None:
    assert np.isnan(auc([0.1, 0.2], label))


def test_log_loss_by_hand() -> None:
    assert log_loss([0.5, 0.25], [1, 0]) == pytest.approx((np.log(2) - np.log(0.75)) / 2)
    assert np.isfinite(log_loss([0.0], [1]))
