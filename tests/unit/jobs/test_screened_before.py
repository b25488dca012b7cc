"""A decision is taken once, and can be taken again as it was."""

from pathlib import Path

import pytest

from roiflow.artefacts.decision import Override
from roiflow.artefacts.parity import ParityVerdict
from roiflow.artefacts.run import Registered
from roiflow.errors import ArtefactError
from roiflow.jobs.register import decision_tags
from roiflow.jobs.screen import champion_then, digest_of, parity_then, signed
from roiflow.registry import Registry
from tests.records import SAME, B, decision

SIGNED = decision(verdict="inconclusive", rule="override", override=Override("Ada", "holiday week"))


def test_tags_say_enough_to_decide_again(tmp_path: Path) -> None:
    known = Registered("ad_ranker_simulator", 1, "digest", decision_tags(SIGNED))
    assert signed(known) == Override("Ada", "holiday week")
    assert champion_then(Registry(f"sqlite:///{tmp_path}/none.db", tmp_path), known) is None
    assert not (tmp_path / "none.db").exists()


def test_without_a_signature_there_is_no_override() -> None:
    tags = decision_tags(decision(champion=B))
    assert tags["champion_then"] == B
    assert signed(Registered("m", 1, "digest", tags)) is None


def test_the_digest_of_a_written_decision(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    assert digest_of(path) is None
    SIGNED.write(path)
    assert digest_of(path) == "d" * 64


@pytest.mark.parametrize("parity", [None, SAME])
def test_the_parity_report_of_then_is_kept(parity: ParityVerdict | None) -> None:
    tags = decision_tags(decision(parity=parity))
    assert parity_then(Registered("m", 1, "digest", tags)) == parity


def test_a_tag_that_somebody_edited_is_named() -> None:
    known = Registered("m", 3, "digest", {"parity": '{"week": "2026-W04"}'})
    with pytest.raises(ArtefactError, match="m version 3: tag parity: verdict: Field required"):
        parity_then(known)
