"""The published quick start of the Open Bandit Pipeline, to its last digit."""

import pytest

from roiflow.artefacts.evaluation import Estimate
from roiflow.evaluation.open_bandit import (
    evaluate_thompson_sampling,
    read_priors,
    read_random_all,
)
from tests import needs
from tests.conftest import Record

pytestmark = pytest.mark.proof


@pytest.fixture(scope="module")
def estimates() -> dict[str, Estimate]:
    folder = needs.public_data("open_bandit_small")
    log = read_random_all(folder)
    alpha, beta = read_priors(folder / "prior_bts.yaml", "all")
    return evaluate_thompson_sampling(
        log, alpha, beta, simulations=100_000, folds=3, resamples=10_000, seed=12345
    )


@pytest.mark.parametrize(("name", "value"), [("ips", 0.004553), ("dm", 0.003545), ("dr", 0.004727)])
def test_value(estimates: dict[str, Estimate], name: str, value: float, record: Record) -> None:
    found = estimates[name]
    record(
        f"Open Bandit, published {name} {value:.6f}",
        f"{found.value:.7f} ({found.low:.6f} to {found.high:.6f})",
    )
    assert estimates[name].value == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("ips", 0.001531, 0.009254), ("dm", 0.003501, 0.003589), ("dr", 0.001702, 0.009416)],
)
def test_interval(estimates: dict[str, Estimate], name: str, low: float, high: float) -> None:
    assert estimates[name].low == pytest.approx(low, abs=1e-5)
    assert estimates[name].high == pytest.approx(high, abs=1e-5)


def test_the_log_supports_the_policy(estimates: dict[str, Estimate]) -> None:
    diagnostics = estimates["ips"].diagnostics
    assert diagnostics is not None
    assert diagnostics.support == pytest.approx(1.0)
    assert diagnostics.mean_weight == pytest.approx(1.0, abs=0.1)
