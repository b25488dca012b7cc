"""The screen as a job on a run folder: what it reads, writes and refuses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.evaluation import Report
from roiflow.artefacts.parity import ParityReport
from roiflow.data.split import TEST
from roiflow.errors import ArtefactError, GateError, PackageError
from roiflow.evaluation.replay import on_log
from roiflow.evaluation.slates import logged_slates
from roiflow.evaluation.target import LoggedWeek
from roiflow.jobs.screen import Case, Then, read_parity, screen, target_file
from roiflow.params import Params
from roiflow.ranking.recalibration import Learned, Platt, Recalibration
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import forget, keep
from roiflow.serving.recommender import Models
from tests.records import NOT_SERVED, SAME, leave, parity_report
from tests.unit.evaluation.weeks import EVALUATE, PARAMS, Evaluated, run_folder
from tests.unit.serving.packages import TinyWorld

LAKE = Path("/nonexistent")
"""No package has a recalibration."""


@pytest.fixture
def params() -> Params:
    small = PARAMS.screen.model_copy(update={"resamples": 100})
    return PARAMS.model_copy(update={"evaluate": EVALUATE, "screen": small})


@pytest.fixture
def run(tmp_path: Path, world: TinyWorld, evaluated: Evaluated, package: Package) -> Path:
    return run_folder(tmp_path / "run", world, evaluated.result, package.folder)


def test_the_decision_is_written_and_repeats(run: Path, params: Params, package: Package) -> None:
    decision = screen(Case.of(run), Then(None, NOT_SERVED, None), params, LAKE)
    path = run / Decision.place
    assert Decision.read(path) == decision
    assert decision.challenger == package.digest
    assert decision.comparison is None
    before = path.read_bytes()
    assert screen(Case.of(run), Then(None, NOT_SERVED, None), params, LAKE) == decision
    assert path.read_bytes() == before


def test_a_champion_is_compared_on_the_same_slates(
    run: Path, params: Params, champion: Package
) -> None:
    decision = screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE)
    assert decision.champion == champion.digest
    assert decision.checks[-1].name == "value_lift_over_champion_switch_dr"
    assert decision.comparison is not None
    assert set(decision.comparison) >= {"ips", "snips", "dr", "dm"}
    assert (
        screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE).digest
        == decision.digest
    )


def test_a_champion_is_replayed_with_what_was_in_force(
    run: Path, params: Params, champion: Package, tmp_path: Path
) -> None:
    """With slopes near 0 all ads are alike to it: another policy, and another lift over it."""
    alone = screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, tmp_path)
    flat = Platt(0.0, 0.01)
    one = Recalibration(champion.digest, 0, flat, flat, Learned(0, 0, 1, 1, 1, 1, 1.0))
    keep(tmp_path, params.ingest.source, one)
    changed = screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, tmp_path)
    assert alone.comparison is not None
    assert changed.comparison is not None
    assert changed.comparison["dr"].lift.value != alone.comparison["dr"].lift.value
    # One that came into force after the week changes nothing.
    forget(tmp_path, params.ingest.source, champion.digest, 0)
    keep(tmp_path, params.ingest.source, replace(one, since=1 << 60))
    assert screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, tmp_path) == alone


def test_what_a_trial_replayed_of_the_champion_is_not_replayed_again(
    run: Path, params: Params, champion: Package, evaluated: Evaluated
) -> None:
    """Of every slate of the week, in whichever order; the screen takes those that it looks at."""
    alone = screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE)
    features, labels = evaluated.features, evaluated.labels
    every = logged_slates(features, labels, features.rows(TEST), 3)
    every = every.take(np.random.default_rng(1).permutation(every.row.size))
    week = LoggedWeek.of(features, labels)
    target = on_log(Models(champion), features, evaluated.engine, every, week, EVALUATE, threads=1)
    target.write(run / "data/canary" / target_file(champion.digest))
    found = screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE)
    assert found.comparison is not None
    assert alone.comparison is not None
    lifts = [
        one.comparison["switch_dr"].value_lift.value for one in (found, alone) if one.comparison
    ]
    assert lifts[0] == pytest.approx(lifts[1], rel=1e-6)
    # Another package's file there is not this champion's.
    (run / "data/canary" / target_file(champion.digest)).rename(run / "data/canary/other.npz")
    assert screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE) == alone


def test_what_was_evaluated_on_other_slates_is_refused(
    run: Path, params: Params, champion: Package
) -> None:
    fewer = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"requests": 200})}
    )
    with pytest.raises(GateError, match="challenger was evaluated on other slates"):
        screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), fewer, LAKE)
    (run / "data/evaluation/target.npz").write_bytes(b"half")
    with pytest.raises(ArtefactError, match=r"target\.npz: not a policy on logged slates"):
        screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE)


def test_without_propensities_a_champion_stays(
    run: Path, params: Params, champion: Package
) -> None:
    leave(run, replace(Report.of(run), propensities_logged=False))
    assert not screen(Case.of(run), Then(champion.folder, NOT_SERVED, None), params, LAKE).promote
    signed = screen(
        Case.of(run), Then(champion.folder, NOT_SERVED, Override("Ada", "panel data")), params, LAKE
    )
    assert (signed.verdict, signed.rule) in {("inconclusive", "override"), ("fail", "override")}


def test_the_champion_cannot_challenge_itself(run: Path, params: Params, package: Package) -> None:
    with pytest.raises(GateError, match="same digest"):
        screen(Case.of(run), Then(package.folder, NOT_SERVED, None), params, LAKE)
    assert not (run / Decision.place).exists()


def test_no_report_is_an_error(run: Path, params: Params) -> None:
    (run / Report.place).unlink()
    with pytest.raises(ArtefactError, match=r"report\.json: No such file"):
        screen(Case.of(run), Then(None, NOT_SERVED, None), params, LAKE)


def test_a_package_that_is_not_whole_is_refused(run: Path, params: Params, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="nowhere"):
        screen(Case.of(run), Then(tmp_path / "nowhere", NOT_SERVED, None), params, LAKE)


def test_what_was_served_otherwise_than_trained_is_refused(run: Path, params: Params) -> None:
    """And so is a week whose slates nobody compared; the digest covers the report."""
    reason = "9 of 10 slates differ, most in ad_ctr_56d (by up to 0.1): dropped hour"
    differs = replace(SAME, verdict="fail", reason=reason, different=9)
    digests = set()
    for parity, why in ((differs, reason), (None, "no parity report of the test week")):
        decision = screen(Case.of(run), Then(None, parity, None), params, LAKE)
        assert (decision.verdict, decision.promote) == ("fail", False)
        assert f"feature_parity: {why}" in decision.reason
        digests.add(decision.digest)
        assert Decision.of(run).parity == parity
    assert screen(Case.of(run), Then(None, NOT_SERVED, None), params, LAKE).digest not in digests
    assert len(digests) == 2


def test_the_parity_report_is_of_the_test_week(run: Path) -> None:
    assert read_parity(run / ParityReport.place, SAME.week) is None
    leave(run, parity_report(SAME))
    assert read_parity(run / ParityReport.place, SAME.week) == SAME
    assert read_parity(run / ParityReport.place, "2026-W05") is None
    (run / ParityReport.place).write_text("{}")
    with pytest.raises(ArtefactError, match=r"report\.json: week: Field required"):
        read_parity(run / ParityReport.place, SAME.week)
