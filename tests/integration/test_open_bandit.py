"""The published quick start of the Open Bandit Pipeline, to its last digit."""

import pytest

from roiflow.artefacts.evaluation import Estimate
from roiflow.evaluation.open_bandit import (
    Reading,
    evaluate_thompson_sampling,
    every_value,
    ips_of,
    read_of_uniform,
    read_priors,
    read_random_all,
)
from roiflow.params import load_params
from tests import needs
from tests.conftest import Record
from tests.worlds import ROOT

pytestmark = pytest.mark.proof


LIMITS = load_params(ROOT / "params.yaml").evaluate


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, Estimate], Reading]:
    folder = needs.public_data("open_bandit_small")
    log = read_random_all(folder)
    alpha, beta = read_priors(folder / "prior_bts.yaml", "all")
    return evaluate_thompson_sampling(
        log, alpha, beta, LIMITS, simulations=100_000, resamples=10_000, seed=12345
    )


@pytest.fixture(scope="module")
def estimates(found: tuple[dict[str, Estimate], Reading]) -> dict[str, Estimate]:
    return found[0]


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


PIPELINE = {
    "ips": 0.00455288,
    "snips": 0.0047758330812309535,
    "clipped_ips": 0.00309304,
    "sub_gaussian_ips": 0.0030700284825104203,
    "mips": 0.003954632454212454,
    "self_normalised_mips": 0.003981538686449188,
    "dm": 0.0035450399034816357,
    "dr": 0.004728333144102281,
    "self_normalised_dr": 0.004786278636624845,
    "switch_dr": 0.003974452493120836,
    "shrunk_dr": 0.0037151164773109586,
    "sub_gaussian_dr": 0.003940259649879884,
    "clipped_dr": 0.0037538207936017045,
}
"""By the pipeline's own estimators (release 0.5.10), given this log, policy and reward model."""


def test_every_estimator_is_the_pipelines(
    found: tuple[dict[str, Estimate], Reading], record: Record
) -> None:
    values = every_value(found[1])
    assert set(values) == set(PIPELINE)
    off = {name: abs(value - PIPELINE[name]) for name, value in values.items()}
    record(
        f"Open Bandit, {len(off)} estimators against the pipeline's own", f"{max(off.values()):.1e}"
    )
    assert max(off.values()) < 1e-5, off


def test_what_a_log_can_tell_is_answered_and_what_it_cannot_is_refused(
    estimates: dict[str, Estimate], record: Record
) -> None:
    """Chance shows what Thompson sampling would do; that hardly ever shows most of what chance
    would."""
    answered = estimates["dr"]
    assert answered.verdict == "conclusive", answered.reason
    folder = needs.public_data("open_bandit_small")
    refused = ips_of(read_of_uniform(folder, "women"), LIMITS, 0.95, 1000)
    assert refused.verdict == "inconclusive"
    assert refused.diagnostics is not None
    record(
        "Open Bandit, Thompson sampling from chance on `all`, chance from it on `women`",
        f"{answered.verdict}; {refused.verdict}: {refused.reason}",
    )
    assert "effective sample size" in refused.reason
