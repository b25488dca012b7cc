"""A decision is taken once, and can be taken again as it was."""

import json
from pathlib import Path

import pytest

from roiflow.evaluation.gate import Override
from roiflow.jobs.decide import champion_then, digest_of, parity_then, signed
from roiflow.jobs.register import decision_tags
from roiflow.registry import Registered, Registry

DECISION = {
    "verdict": "inconclusive",
    "rule": "override",
    "digest": "d" * 64,
    "champion": None,
    "override": {"who": "Ada", "why": "holiday week"},
}


def test_tags_say_enough_to_decide_again(tmp_path: Path) -> None:
    known = Registered("ad_ranker_simulator", 1, "digest", decision_tags(DECISION))
    assert signed(known) == Override("Ada", "holiday week")
    assert champion_then(Registry(f"sqlite:///{tmp_path}/none.db", tmp_path), known) is None
    assert not (tmp_path / "none.db").exists()


def test_without_a_signature_there_is_no_override() -> None:
    tags = decision_tags({**DECISION, "override": None, "champion": "other"})
    assert tags["champion_then"] == "other"
    assert signed(Registered("m", 1, "digest", tags)) is None


def test_the_digest_of_a_written_decision(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    assert digest_of(path) is None
    path.write_text(json.dumps(DECISION))
    assert digest_of(path) == "d" * 64


@pytest.mark.parametrize("parity", [None, {"verdict": "pass", "reason": "", "different": 0}])
def test_the_parity_report_of_then_is_kept(parity: dict[str, object] | None) -> None:
    tags = decision_tags({**DECISION, "parity": parity})
    assert parity_then(Registered("m", 1, "digest", tags)) == parity
