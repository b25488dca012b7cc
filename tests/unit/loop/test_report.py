"""What is said of loops, from hand-worked weeks."""

import io
from dataclasses import replace
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
from roiflow.loop.result import LoopResult
from tests.unit.loop.weeks import GATE, HELD, result, tried, week


def loop(seed: int, second: float, third: float) -> LoopResult:
    """A logged week, one in which the first challenger is tried, one that its champion serves."""
    logged = {"served_by": "logging", "clicks": None}
    first = tried("2026-W05") | {"served_by": "logging"}
    alone = {"stable": 10.0, "canary": 55.0, "newest": 55.0, "first": 10.0}
    both = {"stable": 50.0, "canary": 48.0, "newest": 48.0, "first": 50.0}
    last = tried("2026-W06", "inconclusive")
    return result(
        seed,
        week("2026-W04", HELD, logged, random=0, oracle=100, served=10),
        week("2026-W05", GATE, first, random=0, oracle=100, served=second, xgboost=50, **alone),
        week("2026-W06", HELD, last, random=0, oracle=100, served=third, xgboost=50, **both),
    )


LOOPS = [loop(7, 40, 80), loop(8, 60, 60)]


def test_regret_adds_up_from_the_first_served_week() -> None:
    np.testing.assert_array_equal(cumulative_regret(LOOPS[0].weeks, "served"), [np.nan, 60, 80])
    np.testing.assert_array_equal(cumulative_regret(LOOPS[1].weeks, "served"), [np.nan, 40, 80])


def test_lines_are_means_over_seeds_of_the_served_weeks_best_first() -> None:
    """Value once of both served weeks, once of the one that began with a champion."""
    assert lines(LOOPS) == [
        ("oracle", "10.000", "100%", "100%", "100%", "200", "100"),
        ("served: the gate", "6.000", "50%", "60%", "60%", "120", "70"),
        ("promote always", "5.150", "55%", "52%", "52%", "103", "48"),
        ("xgboost", "5.000", "50%", "50%", "50%", "100", "50"),
        ("frozen champion", "3.000", "10%", "30%", "30%", "60", "50"),
        ("random", "0.000", "0%", "0%", "0%", "0", "0"),
    ]


def test_loops_are_cut_to_the_weeks_that_all_have() -> None:
    short = LoopResult(9, "", LOOPS[0].weeks[:2])
    assert [len(one.weeks) for one in comparable([*LOOPS, short])] == [2, 2, 2]
    with pytest.raises(RunError, match="1 weeks of 1 loops: no policy has served one yet"):
        comparable([LoopResult(9, "", LOOPS[0].weeks[:1])])
    with pytest.raises(RunError, match="0 weeks of 0 loops"):
        comparable([])


def test_the_page_says_how_far_and_what_was_tried_and_decided() -> None:
    text = page(LOOPS)
    assert (
        "50% of the way from random to the oracle in its first week and 60% in the last 2 "
        "(frozen champion 30%, promote always 52%)" in text
    )
    assert "Promotions by evidence: 1 / 1 of 2 trials. The least true lift of a " in text
    assert "promoted one is +450.0%. Click ECE of what served is at most 0.010" in text
    assert "since a champion of ours serves is +40.0% over xgboost." in text
    assert (
        "| 2026-W06 | aaaaaaaaaaaa | bbbbbbbbbbbb | 5% from 0, 50% from 24 | 0 "
        "| +5.0% (+1.7% to +8.3%) | -4.0% | inconclusive: not better | 0.150 | aaaaaaaaaaaa "
        "| 80% | 0.0100 | 5 |" in text
    )
    assert "| 2026-W05 | logging | bbbbbbbbbbbb |" in text
    assert "| version 2, by evidence |" in text
    assert "## Seed 7" in text
    assert "## Seed 8" in text


def test_a_loop_without_a_champion_of_ours_is_told_too() -> None:
    none = [
        replace(one, weeks=tuple(replace(each, served_by="logging") for each in one.weeks))
        for one in LOOPS
    ]
    assert "Its value since" not in page(none)


def test_report_is_a_picture_and_a_page(tmp_path: Path) -> None:
    write_report(LOOPS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.md", "loop.png"]
    assert (tmp_path / "loop.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    again = tmp_path / "again"
    write_report(LOOPS, again)
    assert (again / "loop.png").read_bytes() == (tmp_path / "loop.png").read_bytes()


def test_tables_fit_a_terminal() -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(table(LOOPS), ledger(LOOPS[0]))
    text = out.getvalue()
    assert "seeds 7, 8" in text
    assert "version 2, by evidence" in text
    assert "not better" not in text
