"""What the demo makes of the files of a run."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.table import Table

from roiflow.artefacts.evaluation import Estimate
from roiflow.artefacts.monitoring import Drift
from roiflow.artefacts.parity import NotCompared
from roiflow.data.schemas import TIME
from roiflow.data.weeks import Week
from roiflow.demo.requests import request_bodies
from roiflow.demo.tables import headline, interval, parity, results, seconds_table
from roiflow.demo.truth import truth_table
from roiflow.demo.weeks import WeekDone
from tests.records import (
    NOT_SERVED,
    SAME,
    compared,
    decision,
    estimate,
    leave,
    parity_report,
    promoted,
    report,
    roi_estimate,
    trial_decision,
)
from tests.trials import tried

WEEK = Week.parse("2026-W05")


def shown(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table)
    return out.getvalue()


def write(path: Path, times: list[int], versions: list[str]) -> None:
    path.parent.mkdir(parents=True)
    rows = len(times)
    table = pa.table(
        {
            "event_time": pa.array(times, TIME),
            "policy_version": versions,
            "user_id": [f"u{row}" for row in range(rows)],
            "placement": ["feed"] * rows,
            "device": ["phone"] * rows,
        }
    )
    pq.write_table(table, path)


def test_requests_are_dated_after_the_week(tmp_path: Path) -> None:
    path = tmp_path / "data/validated/impressions" / f"week={WEEK}" / "part-0.parquet"
    write(path, [WEEK.start] * 10, ["model"] * 10)
    bodies = list(request_bodies(WeekDone(str(WEEK), {}, 0.0, tmp_path), 3))
    assert [body["user_id"] for body in bodies] == ["u0", "u3", "u6"]
    assert bodies[0] == {
        "request_id": "demo-2026-W05-0",
        "user_id": "u0",
        "placement": "feed",
        "device": "phone",
        "event_time": WEEK.end + 1_000_000,
        "known_time": WEEK.end + 1_000_000,
    }
    assert len(list(request_bodies(WeekDone(str(WEEK), {}, 0.0, tmp_path), 99))) == 10


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.7, 0.65, 0.75), "0.700 (0.650 to 0.750)"),
        ((0.7, None, None), "0.700"),
        ((None, None, None), "-"),
    ],
)
def test_intervals(values: tuple[float | None, float | None, float | None], text: str) -> None:
    assert interval(*values) == text


def test_the_headline_says_what_was_decided(tmp_path: Path) -> None:
    taken = decision(verdict="inconclusive", reason="no logged propensities", rule="first model")
    leave(tmp_path, taken, promoted(rule="first model"), trial_decision())
    done = WeekDone("2026-W05", {"ingest": 1.5, "export": 2.0}, 3.7, tmp_path)
    assert headline(done) == (
        "2026-W05: no trial yet; screen inconclusive: no logged propensities; version 1 is "
        "champion (rule: first model); 4 s"
    )
    leave(tmp_path, tried(0.06), decision(promote=False, rule="none"), promoted(version=2))
    assert headline(done) == (
        "2026-W05: trial pass; screen pass; version 2 is champion (rule: evidence); 4 s"
    )
    table = shown(seconds_table([done, WeekDone("2026-W06", {"ingest": 1.0}, 1.2, tmp_path)]))
    assert "3.7" in table
    assert "2026-W06" in table


def test_parity_is_told_with_the_slates_that_were_compared() -> None:
    assert parity(None) == "not checked"
    assert parity(parity_report(NOT_SERVED)) == "not served"
    packages = (compared(compared=1200), compared(compared=34), NotCompared("v", None, "no file"))
    report = replace(parity_report(replace(SAME, verdict="fail")), packages=packages)
    assert parity(report) == "fail, 1,234 slates"


def test_a_week_without_a_served_policy_has_a_dash() -> None:
    logging, served = {"value": 1234.4, "roi": 0.25}, {"value": 5.0, "roi": 0.75}
    found = {"logging": logging, "random": logging, "oracle": logging}
    text = shown(truth_table({"2026-W04": found, "2026-W05": {**found, "served": served}}))
    first, second = (line for line in text.splitlines() if "2026-W" in line)
    assert [cell.strip() for cell in first.split("│")[2:4]] == ["-", "1,234 (0.25)"]
    assert [cell.strip() for cell in second.split("│")[2:4]] == ["5 (0.75)", "1,234 (0.25)"]


DRIFT = Drift("psi", 0.2, 0.01, 0.0, False, (), {}, "inputs")


@pytest.mark.parametrize(
    ("roi", "expected"),
    [
        (
            {"switch_dr": estimate(0.5, 0.25, 0.75), "dm": estimate(0.1)},
            "0.500 (0.250 to 0.750) switch_dr",
        ),
        ({"dm": estimate(0.5)}, "0.500 dm"),
        ({"dm": estimate(None)}, "- none: no cost"),
    ],
)
def test_the_roi_line_names_its_estimator(
    tmp_path: Path, roi: dict[str, Estimate], expected: str
) -> None:
    found = {name: roi_estimate(one) for name, one in {"logged": estimate(0.1), **roi}.items()}
    taken = decision(verdict="inconclusive"), tried(0.02)
    leave(tmp_path, report(roi=found), DRIFT, *taken)
    told = results(WeekDone("2026-W05", {}, 0.0, tmp_path))
    assert told["ROI of the policy"] == expected
    assert told["conversions known"] == "90.0%"
    assert told["value on trial"] == "pass +2.0% (-1.0% to +5.0%)"
