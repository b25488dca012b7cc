"""The verdict on a week's served features; the replay itself is shown in tests/integration."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roiflow.artefacts.parity import Example, Fault, FeatureFinding, NotCompared, ParityReport
from roiflow.catalogue.catalogue import Catalogue
from roiflow.data import event_lake
from roiflow.data.weeks import Week
from roiflow.jobs.check_parity import changes_of, main, verdict
from roiflow.jobs.screen import read_parity
from roiflow.params import CheckParityParams
from roiflow.stream.events import Change
from roiflow.stream.rows import table
from tests.records import compared
from tests.unit.serving.packages import ROOT

WEEK = Week.parse("2026-W04")
GOOD = compared()
EXAMPLE = Example("r1", "a1", 0, 0.25, 0.125)
WORST = FeatureFinding("ad_ctr_56d", 12, 9, 0.125, (EXAMPLE,))
DIFFERS: dict[str, Any] = {
    "different": 9,
    "features": (WORST,),
    "fault": Fault("dropped hour", 0.98, "13:00", {}),
}
STRICT, LAX = (CheckParityParams(max_different_fraction=share) for share in (0.0, 0.01))


def test_the_streams_catalogue_is_what_its_consumer_took(tmp_path: Path) -> None:
    """Of the week's parts, and not of the source's own ads, which no store was given."""
    rows = [
        Change(
            event_id=f"c{at}", ad_id="a", change="bid", bid_micros=at, event_time=at, known_time=at
        )
        for at in (WEEK.start - 5, WEEK.start + 5, WEEK.end + 5)
    ]
    event_lake.write(tmp_path, 0, table(rows))
    found = changes_of(Catalogue.empty(), tmp_path, WEEK, "stream", tmp_path)
    assert found["bid_micros"].to_pylist() == [WEEK.start + 5]


def test_equal_slates_pass() -> None:
    found = verdict(WEEK, [GOOD], STRICT)
    assert (found.verdict, found.reason) == ("pass", "")
    assert found.summary == ("990 slates compared, 0 differ, 8 not final, 2 degraded, 25 % stale")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            DIFFERS,
            "9 of 990 slates differ, most in ad_ctr_56d (by up to 0.125): dropped hour",
        ),
        (
            {**DIFFERS, "features": ()},
            "9 of 990 slates differ, none of which was kept whole: dropped hour",
        ),
        ({"not_kept": 5}, "5 of 1,000 slates of 0123456789ab were not kept"),
        ({"corrupt": ("r7",)}, "the vector of r7 is not the one that was hashed"),
        ({"compared": 0}, "no slate of 0123456789ab can be compared"),
    ],
)
def test_what_does_not_pass_says_why(changes: dict[str, Any], reason: str) -> None:
    found = verdict(WEEK, [GOOD, replace(GOOD, **changes)], STRICT)
    assert (found.verdict, found.reason) == ("fail", reason)


def test_what_cannot_be_compared_fails() -> None:
    found = verdict(WEEK, [NotCompared("v", None, "x.parquet: no such file")], STRICT)
    assert found.reason == "cannot be compared: x.parquet: no such file"


def test_a_share_may_differ_where_params_yaml_says_so() -> None:
    differs = replace(GOOD, **DIFFERS)
    assert verdict(WEEK, [differs], LAX).verdict == "pass"
    assert verdict(WEEK, [replace(differs, different=10)], LAX).verdict == "fail"


def test_a_week_of_logged_slates_was_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job on the shipped params.yaml; a second call writes the same."""
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    report = tmp_path / ParityReport.place
    arguments = (tmp_path / "validated", ROOT / "params.yaml", report)
    main(*arguments)
    first = report.read_bytes()
    assert ParityReport.of(tmp_path).verdict == "not served"
    main(*arguments)
    assert report.read_bytes() == first
    found = read_parity(report, ParityReport.of(tmp_path).week)
    assert found is not None
    assert found.verdict == "not served"
