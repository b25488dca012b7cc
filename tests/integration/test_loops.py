"""Several loops at a time, each in a process of its own."""

from pathlib import Path

import pytest

from roiflow.errors import RunError
from roiflow.evaluation.canary import no_trial
from roiflow.loop.result import LoopResult, Outcome, WeekOutcome
from roiflow.loop.weeks import Loop, open_loop, run_loops
from roiflow.settings import Settings

ROOT = Path(__file__).parents[2]


def finished(home: Path, seed: int) -> Loop:
    """A loop of two finished weeks."""
    loop = open_loop(ROOT, Settings(home=home), seed)
    gate = Outcome("pass", 1, True, "a" * 64, None, "evidence", "", "c" * 40)
    truth = {
        name: {"value": value, "revenue": value + 10.0, "cost": 10.0, "roi": value / 10}
        for name, value in (("random", 0.0), ("oracle", 50.0 + seed), ("served", 20.0))
    }
    weeks = [
        WeekOutcome(
            week, "logging", truth, None, no_trial("simulator", week), gate, {"ingest": 1.0}
        )
        for week in ("2026-W04", "2026-W05")
    ]
    LoopResult(seed, loop.digest, tuple(weeks)).write(loop.result)
    return loop


def test_loops_run_beside_each_other_and_come_back_in_order(tmp_path: Path) -> None:
    loops = [finished(tmp_path, seed) for seed in (3, 4, 5)]
    told: list[tuple[float, str]] = []
    results = run_loops(loops, 2, 2, lambda done, what: told.append((done, what)))
    assert [one.seed for one in results] == [3, 4, 5]
    assert told[-1] == (1.0, "weeks done: 2 + 2 + 2")
    for loop in loops:
        assert "seed" in loop.log.read_text()
        assert (loop.home / "loop.md").exists()


def test_a_failed_loop_is_named_with_its_own_words(tmp_path: Path) -> None:
    """The run that its next week follows on is gone."""
    good, bad = finished(tmp_path, 3), finished(tmp_path, 4)
    LoopResult(4, bad.digest, LoopResult.read(bad.result).weeks[:1]).write(bad.result)
    words = r"^seed 4: ArtefactError: .*promoted\.json: No such .*\(log: .*loop\.log"
    with pytest.raises(RunError, match=words):
        run_loops([good, bad], 2, 2, lambda _done, _what: None)
    assert (good.home / "loop.md").exists()


def test_nothing_is_started_where_one_cannot_go_on(tmp_path: Path) -> None:
    good, bad = finished(tmp_path, 3), finished(tmp_path, 4)
    LoopResult(4, "0" * 16, ()).write(bad.result)
    with pytest.raises(RunError, match=r"seed-4/loop\.json: made with parameters 0{16}"):
        run_loops([good, bad], 2, 2, lambda _done, _what: None)
    assert not good.log.exists()
