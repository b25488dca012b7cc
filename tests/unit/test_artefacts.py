"""What stages and jobs leave for each other comes back as it was, and what is broken is named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roiflow.artefacts.decision import Check, Override
from roiflow.artefacts.evaluation import Diagnostics, Report
from roiflow.artefacts.monitoring import ColumnDrift, Drift
from roiflow.artefacts.parity import Example, Fault, FeatureFinding, NotCompared, ParityVerdict
from roiflow.artefacts.record import Artefact, parse
from roiflow.artefacts.run import Bentos, Built, Deployed, Lineage, Placed, Registered
from roiflow.artefacts.validation import Validation
from roiflow.deployment.placed import Placements
from roiflow.errors import ArtefactError
from roiflow.loop.result import LoopResult, Outcome, WeekOutcome
from roiflow.weekly.effects import EFFECTS
from roiflow.weekly.steps import read_stages
from tests.records import (
    SAME,
    A,
    B,
    compared,
    decision,
    estimate,
    labels_report,
    parity_report,
    promoted,
    report,
    roi_estimate,
    trial_decision,
)
from tests.trials import tried

ROOT = Path(__file__).parents[2]
WEIGHTS = Diagnostics(80, 321.0, 7.5, 1.02, 1.0)
ESTIMATES = {"dr": roi_estimate(estimate(0.3, 0.1, 0.5, diagnostics=WEIGHTS), estimate(None))}
FINDING = FeatureFinding("ad_ctr_56d", 12, 5, "inf", (Example("r7", "a3", 1, "nan", 0.375),))
DIFFERS = compared(
    different=9, features=(FINDING,), fault=Fault("dropped hour", 0.98, "13:00", {"drop": 0.98})
)

WHOLE: list[Artefact] = [
    report(roi=ESTIMATES, models={"rosa": {"test_full_click_auc": None}}),
    decision(
        checks=(Check("feature_parity", 0, None, None, 0.0, "pass", ""),),
        champion=B,
        override=Override("Ada", "holiday week"),
        comparison=ESTIMATES,
        parity=SAME,
    ),
    decision(comparison={}, parity=None),
    replace(parity_report(), packages=(DIFFERS, NotCompared("v", None, "no such file"))),
    Lineage("simulator", "2026-W04", "c" * 40, "f" * 64),
    Registered("ad_ranker_simulator", 1, A, {"week": "2026-W04"}),
    promoted(),
    tried(0.02),
    Bentos("ad_ranker_simulator", Built("ad_ranker:0123456789ab", A, 1), None),
    Deployed(
        "http://127.0.0.1:8088", (Placed("canary", 12.5, "a", "l"), Placed("stable", 100, "b", "l"))
    ),
    Drift(
        "psi",
        0.2,
        0.01,
        0.5,
        True,
        (ColumnDrift("bid", 0.3, 0.0, True),),
        {"reference": 0.99, "current": None},
        "inputs",
    ),
    labels_report(),
    Validation({"ads": 9}, {"ads": 1}, {"ads": 0.111111}, {"ads": {"negative price": 1}}, 0),
    Placements((Placed("stable", 100.0, "b", "l"),)),
    LoopResult(
        7,
        "digest",
        (
            WeekOutcome(
                "2026-W04",
                "logging",
                {"random": {"roi": -0.25}},
                None,
                trial_decision(),
                Outcome("pass", 1, True, A, None, "evidence", "", "c" * 40),
                {"ingest": 1.5},
            ),
        ),
    ),
]


def named(one: Artefact) -> str:
    return type(one).__name__


@pytest.mark.parametrize("one", WHOLE, ids=named)
def test_it_comes_back_as_it_was_and_is_written_as_it_was_read(
    one: Artefact, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "one.json"
    one.write(path)
    read = type(one).read(path)
    assert read == one
    before = path.read_bytes()
    read.write(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize("one", WHOLE, ids=named)
def test_every_key_that_is_missing_unknown_or_of_another_kind_is_named(
    one: Artefact, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    one.write(path)
    content: dict[str, Any] = json.loads(path.read_text())
    for key in content:
        path.write_text(json.dumps({name: content[name] for name in content if name != key}))
        with pytest.raises(ArtefactError, match=rf"one\.json: {key}: Field required"):
            type(one).read(path)
        path.write_text(json.dumps({**content, key: [{"no": "such thing"}]}))
        with pytest.raises(ArtefactError, match=rf"one\.json: {key}"):
            type(one).read(path)
    path.write_text(json.dumps({**content, "more": 1}))
    with pytest.raises(ArtefactError, match=r"one\.json: more: Unexpected keyword argument"):
        type(one).read(path)


@pytest.mark.parametrize("text", ["", "[", '{"week": "2026', "[]", "null"])
def test_what_is_no_json_object_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(text)
    with pytest.raises(ArtefactError, match=r"lineage\.json: \S.*: run the step that writes it"):
        Lineage.read(path)


def test_what_is_not_there_is_named_or_none(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"data/lineage\.json: No such file or directory"):
        Lineage.of(tmp_path)
    assert Lineage.find(tmp_path / Lineage.place) is None


def test_a_key_inside_another_is_named_with_its_way(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report().write(path)
    content = json.loads(path.read_text())
    content["roi"]["logged"]["roi"]["value"] = "0.1"
    path.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match=r"roi\.logged\.roi\.value: Input should be a valid n"):
        Report.read(path)


def test_a_number_that_json_has_not_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        report(suspicious_lift=float("nan")).write(path)
    assert not path.exists()


def test_a_verdict_is_read_from_a_tag_as_from_its_report(tmp_path: Path) -> None:
    parity_report().write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    del content["packages"]
    assert parse(ParityVerdict, json.dumps(content), "tag") == SAME == parity_report().outcome


def test_the_place_of_each_is_what_a_step_of_the_run_writes() -> None:
    steps = (*read_stages(ROOT / "dvc.yaml"), *EFFECTS)
    made = [path for step in steps for path in step.writes]
    places = {type(one).place for one in WHOLE if hasattr(type(one), "place")}
    assert len(places) == 12
    for place in places:
        assert any(place.is_relative_to(path) for path in made), place
