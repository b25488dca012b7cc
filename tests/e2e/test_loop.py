"""The closed loop in small, in a fresh clone; in full it is 12 weeks of three seeds, for docs/."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from roiflow.loop.report import lines
from roiflow.loop.result import LoopResult
from tests import needs
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
WEEKS, FULL_WEEKS, FULL_SEEDS = 2, 12, (7, 8, 9)
POLICIES = {
    "served", "oracle", "sasrec", "xgboost", "logistic", "popularity", "logging", "random",
}  # fmt: skip

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
    before, served = place.result(5).weeks
    assert (before.week, served.week) == ("2026-W04", "2026-W05")
    assert before.truth.keys() == {"served", "oracle", "logging", "random"}
    assert before.truth["served"] == before.truth["logging"]
    assert served.truth.keys() == POLICIES
    values = {name: truth["value"] for name, truth in served.truth.items()}
    assert max(values, key=lambda name: values[name]) == "oracle"
    shown = {truth["impressions"] for truth in served.truth.values()}
    assert len(shown) == 1
    for title in ("Gate, seed 5", "2 weeks, 2026-W04 to 2026-W05, 1 of them served"):
        assert title in first


def test_the_champion_of_the_first_run_served_the_second_week(place: Place, first: str) -> None:
    before, served = place.result(5).weeks
    assert before.gate.promoted
    assert before.served_by == "logging"
    assert before.gate.champion is not None
    assert served.served_by == before.gate.champion[:12]
    home = place.home / "loop" / "seed-5"
    path = home / "runs/simulator-2026-W05/data/raw/impressions/week=2026-W05/part-0.parquet"
    versions = pq.read_table(path, partitioning=None)["policy_version"].to_pylist()
    assert set(versions) == {"logging", served.served_by}
    (line,) = (home / "promotions.jsonl").read_text().splitlines()[:1]
    assert json.loads(line)["digest"] == before.gate.champion


def test_a_second_call_runs_nothing_again(place: Place, first: str) -> None:
    files = sorted((place.home / "loop/seed-5/runs").rglob("*.json"))
    times = [path.stat().st_mtime_ns for path in files]
    result = place.result(5)
    out = place.home / "out"
    place.loop("--weeks", str(WEEKS), "--seed", "5", "--out", str(out))
    assert [path.stat().st_mtime_ns for path in files] == times
    assert place.result(5) == result
    assert "| served |" in (out / "loop.md").read_text()
    assert (out / "loop.png").stat().st_size > 10_000


def test_three_seeds_over_twelve_weeks(full: bool, record: Record, tmp_path: Path) -> None:
    needs.full_size(full, "an hour")
    made = cloned(tmp_path, small=False)
    seeds = [text for seed in FULL_SEEDS for text in ("--seed", str(seed))]
    jobs = str(min(len(FULL_SEEDS), os.cpu_count() or 1))
    made.loop("--weeks", str(FULL_WEEKS), *seeds, "--jobs", jobs, "--out", str(ROOT / "docs"))
    results = [made.result(seed) for seed in FULL_SEEDS]
    for name, roi, first_week, last_weeks, _, lost in lines(results):
        record(
            f"closed loop, {FULL_WEEKS} weeks, {len(FULL_SEEDS)} seeds, {name}: true ROI; way from "
            "random to the oracle in the first served week, in the last 4; cumulative regret",
            f"{roi}; {first_week}, {last_weeks}; {lost}",
        )
