"""One week of data to a served model: the stages of dvc.yaml, then the effects."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from _connection import uri_of
from _dvc import read_stages

if TYPE_CHECKING:
    from roiflow.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
INGEST = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["ingest"]
EFFECTS = (
    (
        "commit",
        "commit params.yaml data/lineage.json",
        "Commit params.yaml and dvc.lock of the run: the lineage key of its model.",
    ),
    (
        "check_parity",
        "check_parity data/validated params.yaml data/parity/report.json",
        "Compare what serving was given in the week with what the offline engine makes of its log.",
    ),
    (
        "gate",
        "decide data/package params.yaml data/gate/decision.json",
        "Compare the challenger with the champion: pass, fail or inconclusive.",
    ),
    (
        "register",
        "register data/package data/features data/evaluation metrics plots "
        "data/gate/decision.json data/lineage.json params.yaml data/registered.json",
        "Register the package in MLflow with its lineage; publish the vocabulary.",
    ),
    (
        "promote",
        "promote data/gate/decision.json data/registered.json data/promoted.json",
        "Move the alias `champion` where the gate allows it.",
    ),
    (
        "bundle",
        "bundle data/registered.json bentos/ad_ranker data/bento.json",
        "Build the Bento from the registered champion.",
    ),
    (
        "deploy",
        "deploy data/bento.json data/features/online data/deployed.json",
        "Load the online features and serve the Bento.",
    ),
    (
        "report_drift",
        "report_drift data/features monitoring/drift.yaml data/drift params.yaml",
        "Compare the week's data with the training reference (Evidently).",
    ),
    (
        "report",
        "report data/lineage.json data/drift/drift.html data/report/report.html",
        "Write the weekly report.",
    ),
)
"""Task, the job it calls with its arguments, and what it is for."""


def week_of(params: dict[str, Any], run_after: datetime) -> str:
    """The week asked for, or else the ISO week that ended last before the run."""
    year, number, _ = (run_after - timedelta(days=7)).isocalendar()
    return str(params["week"] or f"{year:04d}-W{number:02d}")


def settings_of(params: dict[str, Any]) -> "Settings":
    """Where things are; the database is the Airflow connection's unless ROIFLOW_SQL names one."""
    from pydantic import SecretStr

    from roiflow.settings import Settings

    settings = Settings()
    if params["source"] != "sql" or settings.sql is not None:
        return settings
    return settings.model_copy(update={"sql": SecretStr(uri_of(params["sql_connection"]))})


def in_run(work: Callable[[Path, Path], None]) -> None:
    """Call `work` with the run's checkout and the home of everything that outlives a run."""
    from roiflow.run import checkout_of
    from roiflow.settings import Settings

    context = get_current_context()
    home = REPOSITORY / Settings().home
    week = week_of(context["params"], context["dag_run"].run_after)
    work(checkout_of(home, context["params"]["source"], week), home)


@dag(
    schedule=CronTriggerTimetable("0 6 * * 1", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["training", "weekly"],
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    doc_md="""
### A week of data to a served model
Pulls a week, runs the stages of `dvc.yaml` in a checkout of the run's own, decides, registers the
model package in MLflow, and serves it.

* **When a task fails** its last line says why; earlier outputs are intact. Put right what it names
  and clear the task: finished stages are not run again.
* **Ran before?** The same week, code and parameters change nothing.
* **By hand**: `dvc repro` runs the same stages; `roiflow demo` triggers this DAG.
""",
    params={
        "source": Param(
            INGEST["source"],
            type="string",
            enum=[name for name, section in INGEST.items() if isinstance(section, dict)],
            title="Source",
            description="Where the data comes from; its window is in params.yaml.",
        ),
        "week": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-W\d{2}$",
            title="Week",
            description="The ISO week to test on: 2026-W04. Empty: the week that ended last.",
        ),
        "sql_connection": Param(
            "roiflow_sql",
            type="string",
            title="Connection",
            description="Airflow connection of the source sql's database; no other source asks it.",
        ),
    },
)
def weekly_training() -> None:
    """Render the stages of dvc.yaml, then the effects, as one chain of tasks."""

    @task(doc_md="Make the run's checkout from the code and parameters as they are now.")
    def prepare() -> str:
        from roiflow.run import prepare as prepare_run
        from roiflow.settings import Settings

        context = get_current_context()
        home = REPOSITORY / Settings().home
        source = context["params"]["source"]
        week = week_of(context["params"], context["dag_run"].run_after)
        return str(prepare_run(REPOSITORY, home, source, week))

    @task
    def reproduce(stage: str) -> None:
        from roiflow.run import READERS, repro

        params = get_current_context()["params"]
        sql = settings_of(params).sql if stage in READERS else None
        in_run(lambda checkout, home: repro(checkout, home, [stage], print, sql=sql))

    @task
    def effect(command: str) -> None:
        from roiflow.run import job

        name, *arguments = command.split()
        in_run(lambda checkout, home: job(checkout, home, name, arguments, print))

    first = prepare()
    done: dict[str, Any] = {}
    for stage in read_stages(REPOSITORY / "dvc.yaml"):
        step = reproduce.override(task_id=stage.name, doc_md=f"`{stage.command}`")(stage.name)
        step.set_upstream([done[name] for name in stage.after] or first)
        done[stage.name] = step
    last: Any = list(done.values())
    for name, command, doc in EFFECTS:
        step = effect.override(task_id=name, doc_md=f"{doc}\n\n`{command}`")(command)
        step.set_upstream(last)
        last = step


weekly_training()
