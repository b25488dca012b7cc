"""The main job in small, in a fresh clone: data to served slates, by Airflow, its API and pages."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import yaml

from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import Week
from roiflow.demo.weeks import DAG, fault
from roiflow.deployment import platform
from roiflow.deployment.airflow import Airflow, RunState
from roiflow.deployment.processes import Running
from roiflow.deployment.state import airflow_password
from roiflow.settings import Settings
from roiflow.weekly.checkout import checkout_of
from tests.artefacts import naming
from tests.browser import open_browser, press_trigger, wait_for_end
from tests.clones import clone_tree
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
STAGES = list(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
SMALL: dict[str, dict[str, Any]] = {
    "train_ranker": {"epochs": 2},
    "finetune_policy": {"requests": 400, "iterations": 5, "checkpoint_every": 2},
    "evaluate": {"requests": 1000, "resamples": 200},
    "export": {"parity_rows": 500},
}
WORLD = {"users": 600, "ads": 40}
PAGES = ("nginx", "mlflow", "evidently", "airflow-api-server")
WEEKS = ("2026-W04", "2026-W05")

pytestmark = pytest.mark.timeout(3600)


def get(address: str) -> httpx.Response:
    return httpx.get(address, follow_redirects=True, trust_env=False)


@dataclass(frozen=True)
class Place:
    """A clone and where it keeps what outlives a run."""

    clone: Path
    home: Path
    environment: dict[str, str]

    def roiflow(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "roiflow.cli.main", *arguments],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, week: str) -> Path:
        return self.home / "runs" / f"simulator-{week}"

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home)

    def outputs(self, week: str) -> dict[str, int]:
        """When each file that a stage left was written; `look` looks anew every time."""
        run = self.run(week)
        lock = yaml.safe_load((run / "dvc.lock").read_text())["stages"]
        places = [
            run / out["path"] for name in lock if name != "look" for out in lock[name]["outs"]
        ]
        files = [file for place in places for file in (place, *place.rglob("*")) if file.is_file()]
        return {str(file): file.stat().st_mtime_ns for file in files}

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
def up(place: Place) -> dict[str, Running]:
    place.roiflow("up")
    return platform.status(place.settings)


@pytest.fixture(scope="module")
def first(place: Place, up: dict[str, Running]) -> str:
    return place.roiflow("demo", "--further", "0")


@pytest.fixture(scope="module")
def airflow(place: Place, first: str) -> Iterator[Airflow]:
    with platform.open_airflow(place.settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def untouched(
    place: Place, airflow: Airflow, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunState, str]:
    """A run of the form as it stands: pressed in a browser where there is one, or else posted."""
    before = {run["dag_run_id"] for run in airflow.runs(DAG)}
    by = press(place, airflow, tmp_path_factory.mktemp("browser"))
    if by.startswith("API"):
        airflow.trigger(DAG, {})
    (run_id,) = {run["dag_run_id"] for run in airflow.runs(DAG)} - before
    return airflow.follow(DAG, run_id, lambda _: None), by


def press(place: Place, airflow: Airflow, folder: Path) -> str:
    """Who pressed Trigger, or why nobody could."""
    login = airflow_password(place.home)
    assert login is not None
    try:
        with open_browser(folder) as browser:
            press_trigger(browser, airflow, DAG, login)
            return f"browser, which saw {wait_for_end(browser, 1800.0)}"
    except pytest.skip.Exception as why:
        return f"API: {why}"


@pytest.fixture(scope="module")
def second(place: Place, untouched: tuple[RunState, str]) -> tuple[dict[str, dict[str, int]], str]:
    """What the stages had left of both weeks before, and what a second demo over them says."""
    before = {week: place.outputs(week) for week in WEEKS}
    return before, place.roiflow("demo", "--further", "1")


def test_up_starts_every_server_once(place: Place, up: dict[str, Running]) -> None:
    assert platform.up(place.settings, place.clone) == up
    parts = {"api-server", "scheduler", "dag-processor", "triggerer"}
    others = {"redis", "nginx", "mlflow", "evidently", "stream-consume", "warm"}
    assert up.keys() == others | {f"airflow-{part}" for part in parts}
    edge = up["nginx"].address
    for name in PAGES:
        assert get(up[name].address).status_code == 200
    health = get(f"{up['airflow-scheduler'].address}/api/v2/monitor/health").json()
    assert {part["status"] for part in health.values()} == {"healthy"}
    for name in ("mlflow", "evidently", "airflow-api-server"):
        assert f'href="{up[name].address}/' in get(edge).text
    assert httpx.post(f"{edge}/v1/slate", trust_env=False).status_code == 503


def test_every_station_left_its_mark(place: Place, untouched: tuple[RunState, str]) -> None:
    for week in WEEKS:
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
        assert place.read(week, "data/screen/decision.json")["verdict"] in {
            "pass",
            "fail",
            "inconclusive",
        }
    # Nothing was on trial yet in the first week; in the second, what the first one made.
    first, second = (place.read(week, "data/canary/decision.json") for week in WEEKS)
    outcomes = [place.read(week, "data/promoted.json") for week in WEEKS]
    assert (first["verdict"], outcomes[0]["champion"]) == ("no trial", None)
    assert second["challenger"] == outcomes[0]["challenger"]
    assert second["verdict"] in {"pass", "fail", "inconclusive"}
    assert second["trial"]["champion"] is None
    assert outcomes[1]["promoted"] == second["promote"]
    log = place.home / "promotions.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    assert len(lines) == sum(one["promoted"] for one in outcomes)


def test_the_demo_leaves_the_platform_up_and_says_where(place: Place, first: str) -> None:
    for title in ("Seconds by task", "Test week by test week", "True value", "Requests to the"):
        assert title in first
    running = platform.status(place.settings)
    assert {"redis", "nginx", "mlflow", "evidently", "airflow-scheduler"} < running.keys()
    login = airflow_password(place.home)
    assert login is not None
    assert f"user {login[0]}, password {login[1]}" in first
    for name in PAGES:
        assert running[name].address in first
        assert get(running[name].address).status_code == 200


def test_airflow_shows_the_run_with_its_durations_and_how_far_it_was(
    place: Place, airflow: Airflow, first: str
) -> None:
    run = airflow.runs(DAG)[-1]
    assert (run["state"], run["conf"]) == ("success", {"source": "simulator", "week": "2026-W04"})
    state = airflow.state(DAG, run["dag_run_id"])
    assert {task.name for task in state.tasks} > set(STAGES)
    assert all(task.seconds > 0 for task in state.tasks)
    assert 0 < max(task.seconds for task in state.tasks) < state.seconds
    logs = "".join(line for name in STAGES for line in airflow.log(DAG, run["dag_run_id"], name))
    assert re.search(r"^\w+: .+ \(\d+ %\)$", logs, re.MULTILINE)


def test_trigger_pressed_in_a_browser_with_the_form_untouched_is_green(
    untouched: tuple[RunState, str],
) -> None:
    state, by = untouched
    assert state.state == "success", state
    if by.startswith("API"):
        pytest.skip(by.removeprefix("API: "))
    assert by == "browser, which saw Success"


def test_the_untouched_form_plays_the_next_week_with_what_is_on_trial(
    place: Place, untouched: tuple[RunState, str]
) -> None:
    assert untouched[0].named("success") == [task.name for task in untouched[0].tasks]
    digest = place.read("2026-W04", "data/promoted.json")["challenger"]
    path = place.run("2026-W05") / "data/raw/impressions/week=2026-W05/part-0.parquet"
    rows = pq.read_table(path, partitioning=None, columns=["arm", "policy_version", "propensity"])
    pairs = set(zip(*(rows[name].to_pylist() for name in rows.column_names[:2]), strict=True))
    assert pairs >= {("canary", digest[:12]), ("stable", "logging")}
    assert rows["propensity"].null_count == 0


def test_a_source_whose_newest_week_is_tested_is_skipped_with_that_sentence(
    place: Place, airflow: Airflow, tmp_path: Path
) -> None:
    for table in SCHEMAS:
        for week in Week.parse("2026-W33").window(4):
            folder = tmp_path / table / f"week={week}"
            folder.mkdir(parents=True)
            (folder / "part-0.parquet").touch()
    done = checkout_of(place.home, "files", "2026-W33") / "data"
    done.mkdir(parents=True)
    (done / "promoted.json").touch()
    run_id = airflow.trigger(DAG, {"source": "files", "data_folder": str(tmp_path)})
    state = airflow.follow(DAG, run_id, lambda _: None)
    assert set(state.named("skipped")) == {task.name for task in state.tasks}
    assert airflow.reason(DAG, run_id, "choose_week") == (
        "source files: its newest week is 2026-W33, and a finished run has tested 2026-W33; "
        "name a week to run it again"
    )


def test_a_wrong_week_fails_at_once_in_its_own_words(airflow: Airflow) -> None:
    run_id = airflow.trigger(DAG, {"source": "files", "week": "2026-W54"})
    state = airflow.follow(DAG, run_id, lambda _: None)
    assert (state.state, state.named("failed")) == ("failed", ["prepare"])
    assert "ingest" in state.named("upstream_failed")
    words = airflow.reason(DAG, run_id, "prepare")
    assert words is not None
    assert words.startswith("UnknownWeek: week '2026-W54'")
    assert words in fault(airflow, state)


def test_an_unset_folder_is_said_before_anything_is_started(place: Place, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "roiflow.cli.main", "demo", "--source", "files"],
        cwd=place.clone,
        env=place.environment | {"ROIFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ROIFLOW_DATA_FOLDER" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_service_answers_and_logs(place: Place, first: str) -> None:
    address = place.read("2026-W04", "data/deployed.json")["address"]
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
    assert "demo-2026-W04-0" in served


def test_a_second_demo_redoes_no_finished_work(
    place: Place, second: tuple[dict[str, dict[str, int]], str]
) -> None:
    before, said = second
    assert {week: place.outputs(week) for week in WEEKS} == before
    for week, tried in zip(WEEKS, ("no trial yet", "trial"), strict=True):
        assert f"{week}: {tried}" in said
    log = place.home / "promotions.jsonl"
    versions = (
        [json.loads(line)["version"] for line in log.read_text().splitlines()]
        if log.exists()
        else []
    )
    assert len(versions) == len(set(versions))


def test_no_artefact_names_a_place_of_this_machine(
    place: Place, second: tuple[dict[str, dict[str, int]], str]
) -> None:
    assert second
    assert naming(place.home, place.home, place.clone) == []


def test_the_first_decision_can_be_proven(place: Place, first: str) -> None:
    digest = place.read("2026-W04", "data/screen/decision.json")["digest"]
    assert f"proven: decision {digest}" in " ".join(place.roiflow("prove", "1").split())
    assert not list((place.home / "proofs").iterdir())


def test_down_ends_exactly_what_ran(place: Place, first: str) -> None:
    running = platform.status(place.settings)
    said = place.roiflow("down")
    assert sorted(said.removeprefix("ended:").replace(",", " ").split()) == sorted(running)
    assert platform.status(place.settings) == {}
    assert "nothing was running" in place.roiflow("down")
