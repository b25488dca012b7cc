"""What the demo says of a run while it follows it, and where the demo begins."""

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
        ("simulator", "2017-W13", UnknownWeek, "not 2017-W13: it holds 2017-W15 to 2017-W52"),
    ],
)
def test_a_place_that_is_not_set_is_said_before_anything_starts(
    settings: Settings, source: str, week: str | None, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        first_week(ROOT, settings, source, week)
    assert not list(settings.home.iterdir())
