"""The exposed likelihood against finite differences, plain logistic loss and planted truths."""

import math

import numpy as np
import pytest
import torch

from roiflow.ranking.likelihood import likelihood, logit_of, rate, sigmoid, terms
from roiflow.ranking.train import exposed_loss

EXPOSURES = (0.0, 1e-6, 0.3, 0.9, 1.0)
LOGITS = np.linspace(-12, 12, 25)


def test_by_hand() -> None:
    """p = 1/2, e = 1/2: observed log 2, not observed -log 3/4 with slope (1/4 1/2) / (3/4)."""
    assert terms(0.0, 0.5, True)[:2] == pytest.approx((math.log(2), -0.5))
    assert terms(0.0, 0.5, False)[:2] == pytest.approx((-math.log(0.75), 1 / 6))


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("exposure", EXPOSURES)
def test_the_slope_is_that_of_the_loss(exposure: float, observed: bool) -> None:
    step = 1e-5
    for logit in LOGITS.tolist():
        above, below = (terms(logit + to, exposure, observed)[0] for to in (step, -step))
        slope = terms(logit, exposure, observed)[1]
        assert slope == pytest.approx((above - below) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_information_is_the_mean_curvature(exposure: float) -> None:
    step = 1e-4
    for logit in LOGITS.tolist():
        seen = exposure / (1 + math.exp(-logit))
        mean = 0.0
        for observed, chance in ((True, seen), (False, 1 - seen)):
            above, below = (terms(logit + to, exposure, observed)[1] for to in (step, -step))
            mean += chance * (above - below) / (2 * step)
        information = terms(logit, exposure, True)[2]
        assert information == pytest.approx(mean, abs=1e-7)
        assert information >= 0


def test_exposures_of_one_are_logistic_regression() -> None:
    logit = np.linspace(-800, 800, 3201)
    for observed in (False, True):
        for z in logit.tolist():
            loss, slope, information = terms(z, 1.0, observed)
            sign = -z if observed else z
            p = 0.5 * (1 + math.tanh(z / 2))
            assert loss == pytest.approx(np.logaddexp(0, sign), rel=1e-12, abs=1e-12)
            assert slope == pytest.approx(p - observed, abs=1e-12)
            assert information == pytest.approx(p * (1 - p), abs=1e-12)


def test_what_was_not_exposed_says_nothing_but_by_being_observed() -> None:
    assert terms(1.0, 0.0, False) == (0.0, 0.0, 0.0)
    assert terms(1.0, 0.0, True)[1] == terms(1.0, 1.0, True)[1] < 0


@pytest.mark.parametrize("exposure", [1.0, 1.5])
@pytest.mark.parametrize("logit", [-1e6, -90.0, 90.0, 1e6])
def test_nothing_overflows(logit: float, exposure: float) -> None:
    for observed in (False, True):
        assert np.isfinite(terms(logit, exposure, observed)).all()
        z = torch.tensor([logit], requires_grad=True)
        loss = exposed_loss(z, torch.tensor([exposure]), torch.tensor([float(observed)]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert z.grad is not None
        assert torch.isfinite(loss).all()
        assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("exposure", EXPOSURES)
def test_tensors_have_the_same_loss_and_slope(exposure: float, observed: bool) -> None:
    z = torch.tensor(LOGITS, dtype=torch.float32, requires_grad=True)
    e, y = torch.full_like(z, exposure), torch.full_like(z, float(observed))
    loss = exposed_loss(z, e, y)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    expected = np.array([terms(logit, exposure, observed)[:2] for logit in LOGITS.tolist()])
    np.testing.assert_allclose(loss.detach().numpy(), expected[:, 0], atol=1e-5)
    assert z.grad is not None
    np.testing.assert_allclose(z.grad.numpy(), expected[:, 1], atol=1e-5)


def test_the_likeliest_rate_is_the_planted_one() -> None:
    """Half of the log is seen by a tenth: the maximum is the truth, the plain rate is not."""
    rng = np.random.default_rng(0)
    n, truth = 400_000, 0.2
    exposure = np.where(np.arange(n) % 2, 0.1, 1.0).astype(np.float32)
    observed = rng.random(n) < exposure * truth
    low, high = -5.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        _, slope, _ = likelihood(np.full(n, middle), exposure, observed)
        low, high = (middle, high) if slope.sum() < 0 else (low, middle)
    error = np.sqrt(truth * (1 - truth) / (n / 2))
    assert float(sigmoid(np.array(low))) == pytest.approx(truth, abs=4 * error)
    assert rate(exposure, observed) == pytest.approx(truth, abs=4 * error)
    assert observed.mean() < 0.6 * truth


def test_a_rate_is_never_0_or_1() -> None:
    none = np.zeros(0, np.float32)
    assert rate(none, none > 0) == 0.01  # half of one in 50
    assert rate(np.zeros(9, np.float32), np.zeros(9, np.bool_)) == 0.01
    assert 0 < rate(np.full(99, 1e-3, np.float32), np.ones(99, np.bool_)) < 1
    assert logit_of(0.25) == pytest.approx(-math.log(3))
