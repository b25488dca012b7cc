"""What the demo says of a run while it follows it, and where the demo begins."""

import os
import subprocess
from pathlib import Path

import pytest

from roiflow.data.weeks import Week
from roiflow.demo.main import first_week
from roiflow.demo.weeks import doing
from roiflow.deployment.airflow import RunState, TaskState
from roiflow.errors import ParamsError, SourceError, UnknownWeek
from roiflow.settings import Settings

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("ROIFLOW_DATA_FOLDER", "ROIFLOW_SQL"):
        monkeypatch.delenv(name, raising=False)
    return Settings(home=tmp_path)


def run(state: str, **tasks: str) -> RunState:
    return RunState("x", state, 1.0, tuple(TaskState(*one, 0.0) for one in tasks.items()))


def test_it_names_the_tasks_that_run() -> None:
    assert doing(run("queued", ingest="")) == "waits for the run before it"
    both = run("running", ingest="success", train_candidates="running", train_ranker="running")
    assert doing(both) == "train_candidates, train_ranker"
    assert doing(run("running", ingest="success", validate="queued")) == "between two tasks"


@pytest.mark.parametrize(
    ("source", "week"), [("simulator", Week(2017, 20)), ("complete_journey", Week(2017, 52))]
)
def test_without_a_week_it_begins_with_the_newest(
    settings: Settings, source: str, week: Week
) -> None:
    assert first_week(ROOT, settings, source, None) == week
    assert first_week(ROOT, settings, source, "2017-W30") == Week(2017, 30)


@pytest.mark.parametrize(
    ("source", "week", "error", "words"),
    [
        ("files", "2026-W33", SourceError, "ROIFLOW_DATA_FOLDER"),
        ("sql", "2026-W33", SourceError, "ROIFLOW_SQL"),
        ("nowhere", None, ParamsError, "nowhere"),
        ("simulator", "2017-W54", UnknownWeek, "2017-W54"),
        ("simulator", "2017-W13", UnknownWeek, "not 2017-W13: it holds 2017-W19 to 2017-W52"),
    ],
)
def test_a_place_that_is_not_set_is_said_before_anything_starts(
    settings: Settings, source: str, week: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        first_week(ROOT, settings, source, week)
    assert not list(settings.home.iterdir())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "roiflow demo --source simulator"),
        (["SOURCE=files"], "roiflow demo --source files"),
        (["SOURCE=files", "WEEK=2026-W33"], "roiflow demo --source files --week 2026-W33"),
    ],
)
def test_make_hands_source_and_week_on(given: list[str], expected: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", "demo", *given]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == f".venv/bin/{expected}"
