"""Who serves a week of the simulated world."""

from pathlib import Path

import pytest

from roiflow.artefacts.run import Promoted
from roiflow.artefacts.trial import Phase, Trial
from roiflow.data.weeks import Week
from roiflow.errors import RunError
from roiflow.experiment import trials
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.serve import serve_week, served_by
from tests.records import leave, promoted
from tests.unit.demo.test_tables import write

WEEK = Week.parse("2026-W05")


def test_a_week_is_served_by_the_policy_of_its_own_impressions(tmp_path: Path) -> None:
    """The last hour of the week before becomes known in this one, and is another policy's."""
    assert served_by(tmp_path, WEEK) == set()
    path = tmp_path / "simulator" / "impressions" / f"week={WEEK}" / "part-0.parquet"
    write(path, [WEEK.start - 1, WEEK.start, WEEK.end - 2], ["logging", "model", "model"])
    late = tmp_path / "simulator" / "pending" / "impressions" / f"week={WEEK}" / "part-0.parquet"
    write(late, [WEEK.end - 1], ["model"])
    assert served_by(tmp_path, WEEK) == {"model"}


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


@pytest.mark.parametrize("champion", ["0123456789abcdef", None])
def test_a_week_on_trial_is_played_until_its_trial_is_there(
    tmp_path: Path, champion: str | None
) -> None:
    """What tells the arms' shares is written last: a week without it was cut off."""
    before = checkout_of(tmp_path, "simulator", "2026-W04")
    (before / "data").mkdir(parents=True)
    digest = "f" * 64
    leave(before, promoted(champion=champion, challenger=digest))
    lake, name = tmp_path / "lake", f"week={WEEK}/part-0.parquet"
    stable = champion[:12] if champion else "logging"
    times = [WEEK.start, WEEK.start + 1]
    write(lake / "simulator" / "impressions" / name, times, [stable, digest[:12]])
    write(lake / "simulator" / "pending" / "impressions" / name, [WEEK.end - 1], [stable])
    (lake / "simulator" / "served_features" / name).parent.mkdir(parents=True)
    (lake / "simulator" / "served_features" / name).touch()
    assert served_by(lake, WEEK) == {stable, digest[:12]}
    with pytest.raises(RunError):  # it would be played, and this is no checkout
        serve_week(tmp_path, WEEK, print)
    trial = Trial(str(WEEK), digest, champion, "salt", (Phase(WEEK.start, 0.5, "start"),), ())
    trials.write(lake, "simulator", trial)
    assert serve_week(tmp_path, WEEK, print) == f"{stable} and {digest[:12]}"
    # Another pair, and one without a challenger, are another week.
    for other in (promoted(champion=champion, challenger="e" * 64), promoted(champion="d" * 64)):
        leave(before, other)
        with pytest.raises(RunError):
            serve_week(tmp_path, WEEK, print)
