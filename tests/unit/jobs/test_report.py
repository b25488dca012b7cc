"""What earlier runs left, in the weekly report."""

import json
from pathlib import Path

from roiflow.evaluation.report import PastWeek
from roiflow.jobs.report import history, parity_line
from roiflow.weekly.checkout import Lineage


def keep(runs: Path, name: str, roi: dict[str, object]) -> None:
    folder = runs / name / "data" / "evaluation"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"roi": roi}))


def estimate(value: float | None) -> dict[str, object]:
    return {"roi": {"value": value, "low": -1.0, "high": 1.0, "verdict": "conclusive"}}


def test_history_is_of_the_source_up_to_the_week(tmp_path: Path) -> None:
    keep(tmp_path, "simulator-2026-W04", {"dr": estimate(0.1), "dm": estimate(9.0)})
    keep(tmp_path, "simulator-2026-W03", {"dm": estimate(0.3)})
    keep(tmp_path, "simulator-2026-W02", {"dr": estimate(None)})
    keep(tmp_path, "simulator-2026-W05", {"dr": estimate(0.5)})
    keep(tmp_path, "kuairand-2022-W18", {"dr": estimate(0.7)})
    (tmp_path / "simulator-2026-W01").mkdir()
    found = list(history(tmp_path, Lineage("simulator", "2026-W04", "c" * 40)))
    assert found == [
        PastWeek("2026-W03", "dm", 0.3, -1.0, 1.0, "conclusive"),
        PastWeek("2026-W04", "dr", 0.1, -1.0, 1.0, "conclusive"),
    ]


def test_the_parity_of_what_was_served_is_one_line() -> None:
    assert parity_line({}) == "not checked"
    report = {"verdict": "pass", "reason": "", "summary": "990 slates compared, 0 differ"}
    assert parity_line(report) == "pass: 990 slates compared, 0 differ"
    assert parity_line({**report, "verdict": "fail", "reason": "9 differ"}) == "fail: 9 differ"
