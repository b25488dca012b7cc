"""The DAG files under real Airflow, with heavy packages out of reach."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from roiflow.params import SourceName
from roiflow.weekly.effects import EFFECTS
from roiflow.weekly.steps import after, read_stages

ROOT = Path(__file__).parents[2]
SECONDS = 1.0

# Runs in a process of its own: Airflow wants a home, and what is blocked must not be imported yet.
DESCRIBE = """
import importlib.abc, json, sys, time

HEAVY = {
    "bentoml", "dvc", "evidently", "kubernetes", "matplotlib", "mlflow", "numba", "onnxruntime",
    "pandas", "pyarrow", "pydantic_settings", "sklearn", "torch", "xgboost",
}

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"a DAG file imports {name} when it is parsed")
        return None

from airflow.sdk import DAG, dag, task
from airflow.providers.standard.decorators.python import python_task
sys.path.insert(0, sys.argv[1])
for name in [name for name in sys.modules if name.partition(".")[0] in HEAVY]:
    del sys.modules[name]
sys.meta_path.insert(0, Blocked())
started = time.process_time()
import weekly_training
seconds = time.process_time() - started
made = weekly_training.weekly_training()
print(json.dumps({
    "seconds": seconds,
    "dag_id": made.dag_id,
    "doc": made.doc_md,
    "tags": sorted(made.tags),
    "max_active_runs": made.max_active_runs,
    "catchup": made.catchup,
    "params": {name: made.params.get_param(name).schema | {"default": made.params[name]}
               for name in made.params},
    "tasks": {one.task_id: {"after": sorted(one.upstream_task_ids), "retries": one.retries,
                            "delay": one.retry_delay.total_seconds(), "doc": one.doc_md}
              for one in made.tasks},
    "order": [one.task_id for one in made.topological_sort()],
    "repository": str(weekly_training.REPOSITORY),
    "effects": [step.command for step in weekly_training.EFFECTS],
    "ours": sorted(name for name in sys.modules if name.partition(".")[0] == "roiflow"),
}))
"""


def environment(home: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="module")
def described(home: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, str(ROOT / "dags")],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return content


def test_it_parses_in_under_a_second_and_imports_nothing_heavy(described: dict[str, Any]) -> None:
    assert described["seconds"] < SECONDS
    assert described["ours"] == [
        "roiflow", "roiflow.weekly", "roiflow.weekly.effects", "roiflow.weekly.steps"
    ]  # fmt: skip


def test_it_explains_itself(described: dict[str, Any]) -> None:
    assert described["dag_id"] == "weekly_training"
    assert "When a task fails" in described["doc"]
    assert described["tags"] == ["training", "weekly"]
    assert all(task["doc"] for task in described["tasks"].values())


def test_runs_do_not_overlap_and_tasks_are_retried(described: dict[str, Any]) -> None:
    assert described["max_active_runs"] == 1
    assert described["catchup"] is False
    for task in described["tasks"].values():
        assert (task["retries"], task["delay"]) == (1, 10.0)


def test_the_form_can_be_sent_as_it_stands(described: dict[str, Any]) -> None:
    source, week = described["params"]["source"], described["params"]["week"]
    assert set(source["enum"]) == set(get_args(SourceName))
    assert source["default"] == "simulator"
    assert week["default"] is None
    assert re.fullmatch(week["pattern"], "2026-W04")
    assert not re.fullmatch(week["pattern"], "2026-4")
    for name in described["params"].keys() - {"source"}:
        assert "null" in described["params"][name]["type"], f"{name} is asked of every source"


def test_every_task_waits_for_those_whose_outputs_it_reads(described: dict[str, Any]) -> None:
    tasks = described["tasks"]
    assert tasks["choose_week"]["after"] == []
    assert tasks["serve_week"]["after"] == ["choose_week"]
    assert tasks["prepare"]["after"] == ["choose_week", "serve_week"]
    waits = after([*read_stages(ROOT / "dvc.yaml"), *EFFECTS])
    assert tasks.keys() == {"choose_week", "serve_week", "prepare", *waits}
    for name, before in waits.items():
        assert tasks[name]["after"] == sorted(before or ("prepare",)), name
    assert [name for name in waits if not any(name in some for some in waits.values())] == [
        "report"
    ]


def test_every_effect_is_a_job_that_takes_these_arguments(described: dict[str, Any]) -> None:
    for command in described["effects"]:
        name, *arguments = command.split()
        source = ast.parse((ROOT / "src/roiflow/jobs" / f"{name}.py").read_text())
        functions = [one for one in source.body if isinstance(one, ast.FunctionDef)]
        (main,) = (one for one in functions if one.name == "main")
        assert len(main.args.args) == len(arguments), command


def test_the_repository_is_the_one_of_the_dag_file(described: dict[str, Any]) -> None:
    assert Path(described["repository"]) == ROOT
