"""The gate as a job on a run folder: what it reads, writes and refuses."""

import json
from pathlib import Path

import pytest

from roiflow.errors import GateError, PackageError
from roiflow.evaluation.gate import Override
from roiflow.jobs.gate import gate, read_parity
from roiflow.params import Params
from roiflow.serving.package import Package
from tests.unit.evaluation.weeks import EVALUATE, PARAMS, Evaluated, run_folder
from tests.unit.serving.packages import TinyWorld

NOT_SERVED = {"verdict": "not served"}


@pytest.fixture
def params() -> Params:
    small = PARAMS.gate.model_copy(update={"resamples": 100})
    return PARAMS.model_copy(update={"evaluate": EVALUATE, "gate": small})


@pytest.fixture
def run(tmp_path: Path, world: TinyWorld, evaluated: Evaluated, package: Package) -> Path:
    report = json.dumps({**evaluated.result.report, "ranker": "logistic"})
    return run_folder(tmp_path / "run", world, report, package.folder)


def test_the_decision_is_written_and_repeats(run: Path, params: Params, package: Package) -> None:
    decision = gate(run, None, params, None, NOT_SERVED)
    path = run / "data/gate/decision.json"
    written = json.loads(path.read_text())
    assert written["digest"] == decision.digest
    assert written["challenger"] == package.digest
    assert written["comparison"] is None
    before = path.read_bytes()
    assert gate(run, None, params, None, NOT_SERVED) == decision
    assert path.read_bytes() == before


def test_a_champion_is_compared_on_the_same_slates(
    run: Path, params: Params, champion: Package
) -> None:
    decision = gate(run, champion.folder, params, None, NOT_SERVED)
    written = json.loads((run / "data/gate/decision.json").read_text())
    assert decision.champion == champion.digest
    assert decision.checks[-1].name == "roi_lift_over_champion_dr"
    assert set(written["comparison"]) >= {"ips", "snips", "dr", "dm"}
    assert gate(run, champion.folder, params, None, NOT_SERVED).digest == decision.digest


def test_without_propensities_a_champion_stays(
    run: Path, params: Params, champion: Package
) -> None:
    path = run / "data/evaluation/report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "propensities_logged": False}))
    assert not gate(run, champion.folder, params, None, NOT_SERVED).promote
    signed = gate(run, champion.folder, params, Override("Ada", "panel data"), NOT_SERVED)
    assert (signed.verdict, signed.rule) in {("inconclusive", "override"), ("fail", "override")}


def test_the_champion_cannot_challenge_itself(run: Path, params: Params, package: Package) -> None:
    with pytest.raises(GateError, match="same digest"):
        gate(run, package.folder, params, None, NOT_SERVED)
    assert not (run / "data/gate/decision.json").exists()


def test_no_report_is_an_error(run: Path, params: Params) -> None:
    (run / "data/evaluation/report.json").unlink()
    with pytest.raises(GateError, match=r"report\.json: No such file"):
        gate(run, None, params, None, NOT_SERVED)


def test_a_package_that_is_not_whole_is_refused(run: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="nowhere"):
        gate(run, tmp_path / "nowhere", params, None, NOT_SERVED)


def test_what_was_served_otherwise_than_trained_is_refused(run: Path, params: Params) -> None:
    """And so is a week whose slates nobody compared; the digest covers the report."""
    reason = "9 of 10 slates differ, most in ad_ctr_1h (by up to 0.1): dropped hour"
    differs = {"verdict": "fail", "reason": reason, "different": 9}
    digests = set()
    for parity, why in ((differs, reason), (None, "no parity report of the test week")):
        decision = gate(run, None, params, None, parity)
        assert (decision.verdict, decision.promote) == ("fail", False)
        assert f"feature_parity: {why}" in decision.reason
        digests.add(decision.digest)
        written = json.loads((run / "data/gate/decision.json").read_text())
        assert written["parity"] == parity
    assert gate(run, None, params, None, NOT_SERVED).digest not in digests
    assert len(digests) == 2


def test_the_parity_report_is_of_the_test_week(run: Path) -> None:
    assert read_parity(run, "2026-W03") is None
    path = run / "data/parity/report.json"
    path.parent.mkdir(parents=True)
    summary = {
        "week": "2026-W03",
        "verdict": "pass",
        "reason": "",
        "summary": "9 slates compared",
        "different": 0,
        "max_different_fraction": 0.0,
    }
    path.write_text(json.dumps({**summary, "packages": []}))
    assert read_parity(run, "2026-W03") == summary
    assert read_parity(run, "2026-W04") is None
    path.write_text("{}")
    with pytest.raises(GateError, match=r"report\.json: not a parity report"):
        read_parity(run, "2026-W03")
