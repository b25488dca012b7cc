"""The main job in small, in a fresh clone: data to served slates, twice; then a proof."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.clones import clone_tree
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
SMALL: dict[str, dict[str, Any]] = {
    "train_ranker": {"epochs": 2},
    "finetune_policy": {"requests": 400, "iterations": 5, "checkpoint_every": 2},
    "evaluate": {"requests": 1000, "resamples": 200},
    "export": {"parity_rows": 500},
    "report_drift": {"sample_rows": 2000},
}
WORLD = {"users": 600, "ads": 40}

pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Place:
    """A clone and where it keeps what outlives a run."""

    clone: Path
    home: Path
    environment: dict[str, str]

    def roiflow(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "roiflow.cli", *arguments],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log_tail()
        return done.stdout

    def log_tail(self) -> str:
        logs = sorted(self.home.glob("logs/demo-*.log"), key=lambda path: path.stat().st_mtime)
        return logs[-1].read_text()[-4000:] if logs else ""

    def run(self, week: str) -> Path:
        return self.home / "runs" / f"simulator-{week}"

    def read(self, week: str, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.run(week) / name).read_text())
        return content


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("e2e")
    clone, home = folder / "clone", folder / "home"
    content = planted_content()
    content["ingest"]["simulator"]["synthetic"] |= WORLD
    for section, values in SMALL.items():
        content[section] |= values
    clone_tree(clone, content)
    kept = ("AIRFLOW", "ROIFLOW", "MLFLOW", "GIT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    environment |= {"ROIFLOW_HOME": str(home), "PYTHONPATH": str(clone / "src"), "COLUMNS": "160"}
    made = Place(clone, home, environment)
    yield made
    made.roiflow("down")


@pytest.fixture(scope="module")
def first(place: Place) -> str:
    return place.roiflow("demo", "--further", "1")


@pytest.fixture(scope="module")
def second(place: Place, first: str) -> str:
    return place.roiflow("demo", "--further", "1")


def test_every_station_left_its_mark(place: Place, first: str) -> None:
    for title in ("Seconds by task", "Test week by test week", "True value", "Requests to the"):
        assert title in first
    for week in ("2026-W04", "2026-W05"):
        run = place.run(week)
        lock = yaml.safe_load((run / "dvc.lock").read_text())
        assert sorted(lock["stages"]) == sorted(STAGES)
        lineage = place.read(week, "data/lineage.json")
        kind = subprocess.run(
            ["git", "cat-file", "-t", lineage["commit"]],
            cwd=place.clone,
            capture_output=True,
            text=True,
            check=True,
        )
        assert kind.stdout.strip() == "commit"
        for name in ("data/report/report.html", "data/drift/drift.html"):
            assert (run / name).stat().st_size > 1000
        assert place.read(week, "data/gate/decision.json")["verdict"] in {
            "pass",
            "fail",
            "inconclusive",
        }
    promotions = (place.home / "promotions.jsonl").read_text().splitlines()
    assert json.loads(promotions[0])["version"] == 1


def test_the_served_policy_made_the_second_week(place: Place, first: str) -> None:
    digest = place.read("2026-W04", "data/promoted.json")["champion"]
    path = place.run("2026-W05") / "data/raw/impressions/week=2026-W05/part-0.parquet"
    versions = set(pq.read_table(path, partitioning=None)["policy_version"].to_pylist())
    assert digest[:12] in versions
    assert pq.read_table(path, partitioning=None)["propensity"].null_count == 0


def test_the_service_answers_and_logs(place: Place, first: str) -> None:
    address = place.read("2026-W05", "data/deployed.json")["address"]
    body = {"request_id": "e2e-1", "user_id": "nobody", "placement": "feed", "device": "phone"}
    request = urllib.request.Request(
        f"{address}/v1/slate",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        slate = json.loads(answer.read())
    assert [ad["position"] for ad in slate["ads"]] == [1, 2, 3]
    assert len({ad["ad_id"] for ad in slate["ads"]}) == 3
    assert all(0 < ad["propensity"] <= 1 for ad in slate["ads"])
    served = "".join(
        path.read_text() for path in (place.home / "served").rglob("*") if path.is_file()
    )
    assert "demo-2026-W05-0" in served


def test_a_second_run_redoes_no_finished_work(place: Place, first: str, second: str) -> None:
    for week in ("2026-W04", "2026-W05"):
        log = (place.home / "logs" / f"demo-simulator-{week}.log").read_text()
        for stage in STAGES:
            assert f"Stage '{stage}' didn't change, skipping" in log
            assert f"Running stage '{stage}'" not in log
    lines = (place.home / "promotions.jsonl").read_text().splitlines()
    versions = [json.loads(line)["version"] for line in lines]
    assert len(versions) == len(set(versions))


def test_the_first_decision_can_be_proven(place: Place, first: str) -> None:
    digest = place.read("2026-W04", "data/gate/decision.json")["digest"]
    assert f"proven: decision {digest}" in " ".join(place.roiflow("prove", "1").split())
    assert not list((place.home / "proofs").iterdir())
