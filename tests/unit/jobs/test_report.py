"""What earlier runs left, in the weekly report."""

from pathlib import Path

import pytest

from roiflow.artefacts.evaluation import Report
from roiflow.artefacts.run import Lineage
from roiflow.evaluation.plots import PastWeek
from roiflow.jobs.report import history, parity_line
from tests.records import SAME, estimate, leave, report, roi_estimate

LINEAGE = Lineage("simulator", "2026-W04", "c" * 40, "f" * 64)


def keep(runs: Path, name: str, **roi: float | None) -> None:
    found = {key: roi_estimate(estimate(value, -1.0, 1.0)) for key, value in roi.items()}
    leave(runs / name, report(roi=found))


def test_history_is_of_the_source_up_to_the_week(tmp_path: Path) -> None:
    keep(tmp_path, "simulator-2026-W04", switch_dr=0.1, dm=9.0)
    keep(tmp_path, "simulator-2026-W03", dm=0.3)
    keep(tmp_path, "simulator-2026-W02", switch_dr=None)
    keep(tmp_path, "simulator-2026-W05", switch_dr=0.5)
    keep(tmp_path, "kuairand-2022-W18", switch_dr=0.7)
    (tmp_path / "simulator-2026-W01").mkdir()
    assert list(history(tmp_path, LINEAGE)) == [
        PastWeek("2026-W03", "dm", 0.3, -1.0, 1.0, "conclusive", 0.9),
        PastWeek("2026-W04", "switch_dr", 0.1, -1.0, 1.0, "conclusive", 0.9),
    ]


def test_a_week_of_an_earlier_version_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "simulator-2026-W04", switch_dr=0.1)
    keep(tmp_path, "simulator-2026-W03", switch_dr=0.3)
    (tmp_path / "simulator-2026-W03" / Report.place).write_text('{"roi": {}}')
    assert [past.week for past in history(tmp_path, LINEAGE)] == ["2026-W04"]
    assert "simulator-2026-W03/data/evaluation/report.json: week:" in capsys.readouterr().out


def test_the_parity_of_what_was_served_is_one_line() -> None:
    assert parity_line(None) == "not checked"
    assert parity_line(SAME) == "pass: 990 slates compared, 0 differ"
