"""The closed loop in small, in a fresh clone; in full it is 12 weeks of five seeds, for docs/.

ROIFLOW_TEST_LOOPS names the home of loops that ran before (`roiflow simulate --loop`), which are
then held to their promises without running again.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from roiflow.data.weeks import Week
from roiflow.loop.promises import broken, true_lift
from roiflow.loop.report import HEADINGS, comparable, lines
from roiflow.loop.result import GREEDY, LoopResult, from_first_champion, overall_value
from tests import needs, spoilt
from tests.clones import clone_tree
from tests.conftest import Record
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "loop": {
        "train_ranker": {"epochs": 1},
        "finetune_policy": {"requests": 300, "iterations": 4},
        "evaluate": {"requests": 600, "resamples": 200},
        "export": {"parity_rows": 300},
    },
}
WORLD = {"users": 300, "ads": 30, "categories": 6}
WEEKS, FULL_WEEKS, FULL_SEEDS = 2, 12, (7, 8, 9, 10, 11)
LOOPS = "ROIFLOW_TEST_LOOPS"
"""A home with loop/seed-N/loop.json of each of the seeds."""
ALONE = {"oracle", "xgboost", "logistic", "popularity", "logging", "random"}
"""Policies that do not hang on what was decided."""

pytestmark = [pytest.mark.timeout(7200), pytest.mark.proof]


@dataclass(frozen=True)
class Place:
    """A clone and where its loops live."""

    clone: Path
    home: Path

    def loop(self, *arguments: str) -> str:
        kept = ("AIRFLOW", "ROIFLOW", "MLFLOW", "GIT_")
        environment = {key: text for key, text in os.environ.items() if not key.startswith(kept)}
        own = {"ROIFLOW_HOME": str(self.home), "PYTHONPATH": str(self.clone / "src")}
        done = subprocess.run(
            [sys.executable, "-m", "roiflow.cli.main", "simulate", "--loop", *arguments],
            cwd=self.clone,
            env=environment | own | {"COLUMNS": "160"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def result(self, seed: int) -> LoopResult:
        return LoopResult.read(self.home / "loop" / f"seed-{seed}" / "loop.json")


def cloned(folder: Path, *, small: bool) -> Place:
    """The tree as it is now, of a small world or as it is shipped."""
    content = planted_content()
    content["ingest"]["simulator"]["synthetic"] |= WORLD
    for section, values in SMALL.items():
        content[section] |= values
    clone_tree(folder / "clone", content if small else None)
    return Place(folder / "clone", folder / "home")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return cloned(tmp_path_factory.mktemp("loop"), small=True)


@pytest.fixture(scope="module")
def first(place: Place) -> str:
    return place.loop("--weeks", str(WEEKS), "--seed", "5")


def test_every_policy_has_a_truth_in_the_served_week(place: Place, first: str) -> None:
    before, week = place.result(5).weeks
    assert before.week == "2026-W04"
    assert before.truth.keys() == {"served", "oracle", "logging", "random"}
    assert before.truth["served"] == before.truth["logging"]
    assert week.truth.keys() == ALONE | {"served", "stable", "canary", "newest", "first"}
    values = {name: truth["value"] for name, truth in week.truth.items()}
    assert max(values, key=lambda name: values[name]) == "oracle"
    assert values["stable"] == values["first"] == values["logging"]
    assert values["logging"] < values["served"] < values["canary"] == values["newest"]
    assert len({truth["impressions"] for truth in week.truth.values()}) == 1
    for title in ("Weeks of seed 5", "2 weeks, 2026-W04 to 2026-W05, 1 of them served"):
        assert title in first


def test_what_a_run_made_was_tried_in_the_week_after(place: Place, first: str) -> None:
    """Beside the logging policy, since nothing of ours served: both arms are in the log."""
    before, tried = place.result(5).weeks
    assert before.trial.verdict == "no trial"
    assert tried.served_by == "logging"
    assert tried.trial.trial is not None
    assert before.gate.challenger == tried.trial.challenger == tried.trial.trial.challenger
    assert tried.trial.champion is None
    assert before.gate.challenger is not None
    home = place.home / "loop" / "seed-5"
    path = home / "runs/simulator-2026-W05/data/raw/impressions/week=2026-W05/part-0.parquet"
    log = pq.read_table(path, partitioning=None, columns=["policy_version", "arm"]).to_pylist()
    served = {(row["policy_version"], row["arm"]) for row in log}
    assert (before.gate.challenger[:12], "canary") in served
    assert {version for version, arm in served if arm != "canary"} == {"logging"}
    assert tried.clicks is not None
    # Whatever came of it, it was of these slates: neither arm's replay is another policy's.
    assert not [one.name for one in tried.trial.checks if one.name.startswith("log_")]


def test_a_second_call_runs_nothing_again(place: Place, first: str) -> None:
    files = sorted((place.home / "loop/seed-5/runs").rglob("*.json"))
    times = [path.stat().st_mtime_ns for path in files]
    result = place.result(5)
    out = place.home / "out"
    place.loop("--weeks", str(WEEKS), "--seed", "5", "--out", str(out))
    assert [path.stat().st_mtime_ns for path in files] == times
    assert place.result(5) == result
    assert "| served: the gate |" in (out / "loop.md").read_text()
    assert (out / "loop.png").stat().st_size > 10_000


def test_a_spoilt_challenger_is_not_promoted_over_what_it_was(
    place: Place, first: str, tmp_path: Path
) -> None:
    """Beside the package that it was made of; in full, and over loops, integration/test_spoilt.py.

    The week is served anew from the home of the finished loop, which stays as it is.
    """
    home = place.home / "loop" / "seed-5"
    whole = home / "runs" / "simulator-2026-W04" / "data" / "package"
    week = spoilt.Finished(home, Week.parse("2026-W05"), whole)
    log = home / "lake/simulator/impressions/week=2026-W05/part-0.parquet"
    before = log.read_bytes()
    found = spoilt.tried(week, spoilt.head_shuffled, tmp_path / "head")
    assert found.decision.champion == place.result(5).weeks[0].gate.challenger
    assert found.decision.challenger not in (None, found.decision.champion)
    assert not found.decision.promote
    assert found.true_lift < -0.03
    assert 0 < found.share_served < 0.6
    assert log.read_bytes() == before


def test_five_seeds_over_twelve_weeks(full: bool, record: Record, tmp_path: Path) -> None:
    results = finished() or run(full, tmp_path)
    for line in lines(comparable(results)):
        told = zip(HEADINGS[1:], line[1:], strict=True)
        record(
            f"closed loop, {FULL_WEEKS} weeks, {len(FULL_SEEDS)} seeds, {line[0]}",
            "; ".join(f"{what} {figure}" for what, figure in told),
        )
    for one in results:
        record(f"closed loop, seed {one.seed}", told_of(one))
    assert [said for one in results for said in broken(one)] == []
    assert [len(one.weeks) for one in results] == [FULL_WEEKS] * len(FULL_SEEDS)


def finished() -> list[LoopResult]:
    """Loops that ran before; none where nobody named their home."""
    if not (home := os.environ.get(LOOPS)):
        return []
    return [
        LoopResult.read(Path(home) / "loop" / f"seed-{seed}" / "loop.json") for seed in FULL_SEEDS
    ]


def run(full: bool, folder: Path) -> list[LoopResult]:
    """Run them all, and write docs/."""
    needs.full_size(full, f"two hours; or name the home of finished loops in {LOOPS}")
    made = cloned(folder, small=False)
    seeds = [text for seed in FULL_SEEDS for text in ("--seed", str(seed))]
    jobs = str(min(len(FULL_SEEDS), os.cpu_count() or 1))
    made.loop("--weeks", str(FULL_WEEKS), *seeds, "--jobs", jobs, "--out", str(ROOT / "docs"))
    return [made.result(seed) for seed in FULL_SEEDS]


def told_of(one: LoopResult) -> str:
    """Promotions with their true lifts, calibration, and value over the greedy rankers."""
    lifts = [true_lift(week, one.weeks) for week in one.weeks if week.by_evidence]
    errors = [
        week.clicks.settled for week in one.weeks if week.clicks and week.clicks.settled is not None
    ]
    since = from_first_champion(one.weeks)
    own = overall_value(since, "served")
    over = {name: own / overall_value(since, name) - 1 for name in GREEDY} if since else {}
    return (
        f"{len(lifts)} promotions by evidence, true lifts "
        f"{', '.join(f'{lift:+.1%}' for lift in lifts)}; click ECE at most "
        f"{max(errors, default=float('nan')):.4f}; value since the first champion "
        f"{', '.join(f'{lift:+.1%} over {name}' for name, lift in over.items())}"
    )
