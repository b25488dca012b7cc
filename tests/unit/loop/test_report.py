"""What is said of loops, from hand-worked weeks."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from roiflow.errors import RunError
from roiflow.loop.report import (
    comparable,
    cumulative_regret,
    ledger,
    lines,
    page,
    table,
    write_report,
)
from roiflow.loop.result import LoopResult, Outcome, WeekOutcome

GATE = Outcome("pass", 1, True, "a" * 64, "evidence", "", "c" * 40)
STOPPED = Outcome("fail", 2, False, "a" * 64, "none", "too bad", "d" * 40)


def outcome(week: str, by: str, gate: Outcome, **values: float) -> WeekOutcome:
    """Every policy costs 10."""
    truths = {
        name: {"value": value, "revenue": value + 10, "cost": 10.0, "roi": value / 10}
        for name, value in values.items()
    }
    return WeekOutcome(week, by, truths, gate, {"ingest": 2.0, "export": 3.0})


def loop(seed: int, second: float, third: float) -> LoopResult:
    return LoopResult(
        seed,
        "",
        (
            outcome("2026-W04", "logging", GATE, random=0, oracle=100, served=10),
            outcome("2026-W05", "abc", GATE, random=0, oracle=100, served=second, xgboost=50),
            outcome("2026-W06", "abc", STOPPED, random=0, oracle=100, served=third, xgboost=50),
        ),
    )


LOOPS = [loop(7, 40, 80), loop(8, 60, 60)]


def test_regret_adds_up_from_the_first_served_week() -> None:
    np.testing.assert_array_equal(cumulative_regret(LOOPS[0].weeks, "served"), [np.nan, 60, 80])
    np.testing.assert_array_equal(cumulative_regret(LOOPS[1].weeks, "served"), [np.nan, 40, 80])


def test_lines_are_means_over_seeds_of_the_served_weeks_best_first() -> None:
    assert lines(LOOPS) == [
        ("oracle", "10.000", "100%", "100%", "100%", "0"),
        ("served", "6.000", "50%", "60%", "60%", "80"),
        ("xgboost", "5.000", "50%", "50%", "50%", "100"),
        ("random", "0.000", "0%", "0%", "0%", "200"),
    ]


def test_loops_are_cut_to_the_weeks_that_all_have() -> None:
    short = LoopResult(9, "", LOOPS[0].weeks[:2])
    assert [len(one.weeks) for one in comparable([*LOOPS, short])] == [2, 2, 2]
    with pytest.raises(RunError, match="1 weeks of 1 loops: no policy has served one yet"):
        comparable([LoopResult(9, "", LOOPS[0].weeks[:1])])
    with pytest.raises(RunError, match="0 weeks of 0 loops"):
        comparable([])


def test_the_page_says_how_near_how_soon_and_what_the_gate_did() -> None:
    text = page(LOOPS)
    assert (
        "50% of the way from random to the oracle in its first week and 60% in the last 2" in text
    )
    assert "within 5 % of its best week (70%) after 2 served weeks" in text
    assert "ahead of xgboost, random, and behind none" in text
    assert "promoted 2 / 2 of 3 runs" in text
    assert "| 2026-W06 | abc | 8.000 | 80% | fail: too bad | no | 5 |" in text
    assert "## Seed 7" in text
    assert "## Seed 8" in text


def test_report_is_a_picture_and_a_page(tmp_path: Path) -> None:
    write_report(LOOPS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.md", "loop.png"]
    assert (tmp_path / "loop.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    again = tmp_path / "again"
    write_report(LOOPS, again)
    assert (again / "loop.png").read_bytes() == (tmp_path / "loop.png").read_bytes()


def test_tables_fit_a_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=110).print(table(LOOPS), ledger(LOOPS[0]))
    text = out.getvalue()
    assert "seeds 7, 8" in text
    assert "version 1, evidence" in text
    assert "too bad" not in text
