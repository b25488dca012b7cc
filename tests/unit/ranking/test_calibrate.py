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

FREE = PARAMS.calibration.model_copy(update={"prior_events": 0.0})


def fit(logit: Floats, label: Flags) -> Calibration:
    return calibrate.fit(logit, np.ones(label.size, np.float32), label, FREE)


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


def test_the_distortion_is_undone_whatever_was_exposed() -> None:
    logit, _, truth = planted(4, 60_000)
    rng = np.random.default_rng(4)
    # Half of the rows are hardly exposed, and those of the highest logits the least.
    exposure = np.where(truth > -1.5, 0.2, 1.0).astype(np.float32)
    observed = rng.random(truth.size) < exposure * sigmoid(truth)
    found = calibrate.fit(logit, exposure, observed, FREE).apply(logit)
    assert sigmoid(found).mean() == pytest.approx(sigmoid(truth).mean(), rel=0.03)
    middle = np.abs(truth + 1.5) < 1.5
    assert np.abs(found - truth)[middle].max() < 0.3
    blind = fit(logit, observed).apply(logit)
    assert sigmoid(blind).mean() < 0.6 * sigmoid(truth).mean()


def test_few_events_hardly_move_the_level() -> None:
    """Where all logits are 0, 30 of 40 happen and 10 events stand by the model: z = log 3 if free.

    With them the slope 40 p - 30 + 10 z is 0 about z = 0.5.
    """
    logit, label = np.zeros(40), np.arange(40) < 30
    drawn = PARAMS.calibration.model_copy(update={"prior_events": 10.0})
    ones = np.ones(40, np.float32)
    assert fit(logit, label).apply(logit)[0] == pytest.approx(np.log(3), abs=1e-4)
    found = calibrate.fit(logit, ones, label, drawn).apply(logit)[0]
    assert 40 * sigmoid(found) - 30 + 10 * found == pytest.approx(0, abs=1e-3)
    assert found == pytest.approx(0.5, abs=0.05)


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
