import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roiflow.features.table import Flags, Floats
from roiflow.ranking import calibrate
from roiflow.ranking.calibrate import IDENTITY, Calibration
from roiflow.ranking.torch_ranker import calibrated
from tests.unit.ranking.worlds import PARAMS, sigmoid


def fit(logit: Floats, label: Flags) -> Calibration:
    return calibrate.fit(logit, label, PARAMS.calibration)


def planted(seed: int, n: int = 20_000) -> tuple[Floats, Flags, Floats]:
    """Logits that are too bold (x 2) and too low (- 1), labels, true logits."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1.5, 1.0, n)
    return 2 * truth - 1, rng.random(n) < sigmoid(truth), truth


def test_the_planted_distortion_is_undone() -> None:
    logit, label, truth = planted(0)
    found = fit(logit, label).apply(logit)
    middle = np.abs(truth + 1.5) < 1.5
    assert np.abs(found - truth)[middle].max() < 0.2


def test_predicted_over_observed_clicks_is_one() -> None:
    logit, label, _ = planted(1)
    assert sigmoid(fit(logit, label).apply(logit)).mean() / label.mean() == pytest.approx(
        1, abs=1e-4
    )
    fresh, fresh_label, _ = planted(2)
    assert sigmoid(fit(logit, label).apply(fresh)).mean() / fresh_label.mean() == pytest.approx(
        1, abs=0.05
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(30, 400), st.floats(0.1, 0.9))
def test_order_is_kept_whatever_the_labels(seed: int, n: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    calibration = fit(rng.normal(size=n) * 3, rng.random(n) < rate)
    grid = np.linspace(-12, 12, 500)
    assert np.all(np.diff(calibration.apply(grid)) > 0)


@pytest.mark.parametrize("label", [False, True])
def test_one_class_alone_changes_nothing(label: bool) -> None:
    assert fit(np.linspace(-1, 1, 9), np.full(9, label)) == IDENTITY


def test_apply_by_hand() -> None:
    calibration = Calibration(0.5, (2.0, 1.0, 3.0), (-1.0, 1.0))
    # below -1: slope 2 from 0; between: slope 1; above 1: slope 3
    expected = [0.5 + 2 * -2, 0.5 - 2 + 1, 0.5 - 2 + 2 + 3 * 1]
    assert calibration.apply(np.array([-2.0, 0.0, 2.0])).tolist() == expected


def test_torch_applies_the_same_map() -> None:
    logit, label, _ = planted(3, 2000)
    calibration = fit(logit, label)
    assert len(calibration.knots) > 1
    applied = calibrated(torch.from_numpy(logit), calibration).numpy()
    np.testing.assert_allclose(applied, calibration.apply(logit), atol=1e-12)
