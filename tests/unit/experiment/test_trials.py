"""Trials: what share the canary had when, and the file in the lake."""

from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.trial import Look, Phase, Trial
from roiflow.data.weeks import Week
from roiflow.errors import ArtefactError
from roiflow.experiment import trials

TRIAL = Trial(
    week="2026-W05",
    challenger="c" * 64,
    champion=None,
    salt="ad-ranker:2026-W05:",
    phases=(Phase(100, 0.05, "start"), Phase(200, 0.5, "grown"), Phase(300, 0.0, "harm")),
    looks=(Look(200, 40, -1.5, 0.5, -3.0, 0.25, 20.0),),
)


def test_the_share_is_that_of_the_phase_and_none_before_the_first() -> None:
    times = np.array([0, 99, 100, 199, 200, 299, 300, 999])
    assert TRIAL.share_at(times).tolist() == [0, 0, 0.05, 0.05, 0.5, 0.5, 0, 0]
    assert TRIAL.started() == 100


def test_a_week_without_a_phase_has_no_canary() -> None:
    none = Trial("2026-W05", "c", None, "", (), ())
    assert none.share_at(np.array([5])).tolist() == [0.0]
    assert none.started() is None


def test_a_trial_comes_back_from_the_lake(tmp_path: Path) -> None:
    week = Week.parse("2026-W05")
    assert trials.read(tmp_path, "simulator", week) is None
    trials.write(tmp_path, "simulator", TRIAL)
    assert trials.read(tmp_path, "simulator", week) == TRIAL
    assert trials.path_of(tmp_path, "simulator", week) == (
        tmp_path / "simulator" / "trials" / "week=2026-W05.json"
    )


def test_a_file_that_is_no_trial_is_named(tmp_path: Path) -> None:
    week = Week.parse("2026-W05")
    path = trials.path_of(tmp_path, "simulator", week)
    path.parent.mkdir(parents=True)
    path.write_text('{"week": "2026-W05"}')
    with pytest.raises(ArtefactError, match=r"week=2026-W05\.json: challenger: Field required"):
        trials.read(tmp_path, "simulator", week)
