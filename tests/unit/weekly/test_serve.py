"""Who serves a week of the simulated world."""

from pathlib import Path

import pytest

from roiflow.artefacts.run import Promoted
from roiflow.data.weeks import Week
from roiflow.errors import RunError
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.serve import serve_week, served_by
from tests.records import leave, promoted
from tests.unit.demo.test_tables import write

WEEK = Week.parse("2026-W05")


def test_a_week_is_served_by_the_policy_of_its_own_impressions(tmp_path: Path) -> None:
    """The last hour of the week before becomes known in this one, and is another policy's."""
    assert served_by(tmp_path, WEEK) is None
    path = tmp_path / "simulator" / "impressions" / f"week={WEEK}" / "part-0.parquet"
    write(path, [WEEK.start - 1, WEEK.start, WEEK.end - 2], ["logging", "model", "model"])
    late = tmp_path / "simulator" / "pending" / "impressions" / f"week={WEEK}" / "part-0.parquet"
    write(late, [WEEK.end - 1], ["model"])
    assert served_by(tmp_path, WEEK) == "model"


@pytest.mark.parametrize("outcome", [None, promoted(promoted=False, champion=None)])
def test_the_first_week_is_the_logging_policy_s(tmp_path: Path, outcome: Promoted | None) -> None:
    """No run before it finished, or the one that did left no champion."""
    before = checkout_of(tmp_path, "simulator", "2026-W04")
    (before / "data").mkdir(parents=True)
    if outcome is not None:
        leave(before, outcome)
    assert serve_week(tmp_path, WEEK, print) is None


def test_a_week_that_the_champion_served_is_not_played_again(tmp_path: Path) -> None:
    before = checkout_of(tmp_path, "simulator", "2026-W04")
    (before / "data").mkdir(parents=True)
    digest = "0123456789abcdef"
    leave(before, promoted(champion=digest))
    lake = tmp_path / "lake" / "simulator"
    name = f"week={WEEK}/part-0.parquet"
    write(lake / "impressions" / name, [WEEK.start], [digest[:12]])
    write(lake / "pending" / "impressions" / name, [WEEK.end - 1], [digest[:12]])
    (lake / "served_features" / name).parent.mkdir(parents=True)
    (lake / "served_features" / name).touch()
    assert serve_week(tmp_path, WEEK, print) == digest[:12]
    leave(before, promoted(champion="f" * 64))
    with pytest.raises(RunError):  # another champion has to play it, and this is no checkout
        serve_week(tmp_path, WEEK, print)
