"""One week of data to a served model: the stages of dvc.yaml and the effects, each when it can."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from _connection import uri_of
from _reason import in_one_line
from roiflow.weekly.effects import EFFECTS
from roiflow.weekly.steps import after, read_stages

if TYPE_CHECKING:
    from roiflow.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[1]
INGEST = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["ingest"]


def settings_of(params: dict[str, Any]) -> "Settings":
    """Where things are: the form's folder and connection, else the scheduler's environment."""
    from pydantic import SecretStr

    from roiflow.settings import Settings

    settings = Settings()
    if params["data_folder"]:
        settings = Settings(data_folder=params["data_folder"])
    if params["source"] != "sql" or settings.sql is not None or not params["sql_connection"]:
        return settings
    return settings.model_copy(update={"sql": SecretStr(uri_of(params["sql_connection"]))})


def in_run(work: Callable[[Path, Path], None]) -> None:
    """Call `work` with the run's checkout and the home of everything that outlives a run."""
    from roiflow.settings import Settings

    checkout = Path(get_current_context()["ti"].xcom_pull(task_ids="prepare"))
    with in_one_line():
        work(checkout, REPOSITORY / Settings().home)


@task(doc_md="Choose the week where none is named; skip the run where all is tested.")
def choose_week() -> str:
    """Where none is named, the newest that no finished run has tested."""
    from roiflow.stages.ingest import open_source
    from roiflow.weekly.choice import ingest_of, next_week

    params = get_current_context()["params"]
    if params["week"]:
        return str(params["week"])
    with in_one_line():
        settings = settings_of(params)
        ingest = ingest_of(REPOSITORY, params["source"])
        week = next_week(ingest, open_source(ingest, settings), REPOSITORY / settings.home)
    print(f"week: {week}")
    return str(week)


@task(doc_md="Simulated world: let the week before's champion and challenger fill the slates.")
def serve_week(week: str) -> str | None:
    """In the simulated world the week is played first; the serving policy's version."""
    from roiflow.data.weeks import Week
    from roiflow.settings import Settings
    from roiflow.weekly import serve
    from roiflow.weekly.choice import SIMULATOR

    source = get_current_context()["params"]["source"]
    if source != SIMULATOR:
        print(f"{source} is not a simulated world: nothing to serve")
        return None
    with in_one_line():
        version = serve.serve_week(REPOSITORY / Settings().home, Week.parse(week), print)
    print(f"{week} is served by {version or 'the logging policy'}")
    return version


@task(doc_md="Make the run's checkout from the code and parameters as they are now.")
def prepare(week: str) -> str:
    """The run's checkout; every later task works in it."""
    from roiflow.settings import Settings
    from roiflow.weekly.checkout import prepare as prepare_run

    source = get_current_context()["params"]["source"]
    with in_one_line():
        return str(prepare_run(REPOSITORY, REPOSITORY / Settings().home, source, week))


@task
def reproduce(stage: str) -> None:
    """One stage of dvc.yaml; only those that read the source are told where it is."""
    from roiflow.weekly.run import READERS, repro

    if stage not in READERS:
        in_run(lambda checkout, home: repro(checkout, home, [stage], print))
        return
    own = settings_of(get_current_context()["params"])
    folder, sql = own.data_folder, own.sql
    in_run(
        lambda checkout, home: repro(checkout, home, [stage], print, sql=sql, data_folder=folder)
    )


@task
def take_effect(name: str) -> None:
    """One effect."""
    from roiflow.weekly.effects import effect
    from roiflow.weekly.run import perform

    in_run(lambda checkout, home: perform(checkout, home, effect(name), print))


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

* **When a task fails** its XCom `reason` and its log's last line say why; earlier outputs are
  intact. Put right what it names and clear the task: finished stages are not run again.
* **No week named?** The newest that the source holds and no finished run has tested; the simulated
  world plays its next week. Where there is none, the tasks are skipped and `reason` says so.
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
            description="The ISO week to test on: 2026-W04. Empty: the newest that is not tested.",
        ),
        "data_folder": Param(
            None,
            type=["null", "string"],
            title="Folder or URL",
            description="Of the source's own files. Empty: the scheduler's ROIFLOW_DATA_FOLDER.",
        ),
        "sql_connection": Param(
            "roiflow_sql",
            type=["null", "string"],
            title="Connection",
            description="Airflow connection of the source sql's database; no other source asks it.",
        ),
    },
)
def weekly_training() -> None:
    """Render the stages of dvc.yaml and the effects: each after those whose outputs it reads."""
    week = choose_week()
    first = prepare(week)  # type: ignore[arg-type]
    served = serve_week(week)  # type: ignore[arg-type]
    first.set_upstream(served)
    stages = read_stages(REPOSITORY / "dvc.yaml")
    tasks: dict[str, Any] = {}
    for step in (*stages, *EFFECTS):
        kind = reproduce if step in stages else take_effect
        doc = f"{step.purpose}\n\n`{step.command}`".strip()
        tasks[step.name] = kind.override(task_id=step.name, doc_md=doc)(step.name)
    for name, before in after([*stages, *EFFECTS]).items():
        tasks[name].set_upstream([tasks[one] for one in before] or first)


weekly_training()
