"""One run of the DAG, triggered and followed by Airflow's API, and what it left."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from roiflow.artefacts.record import Artefact
from roiflow.deployment import platform
from roiflow.deployment.airflow import Airflow, RunState
from roiflow.errors import RunError, ServiceError
from roiflow.progress import Progress
from roiflow.settings import Settings
from roiflow.weekly.checkout import checkout_of

DAG = "weekly_training"
A = TypeVar("A", bound=Artefact)


@dataclass(frozen=True)
class WeekDone:
    """One run of the DAG and what it left in its checkout."""

    week: str
    seconds: dict[str, float]
    """By task."""
    all_seconds: float
    """From the run's start to its end: tasks run side by side, and Airflow hands them on."""
    checkout: Path
    page: str = ""
    """Where Airflow shows the run."""

    def left(self, kind: type[A]) -> A:
        """What a step of the run left; raises ArtefactError, naming the file."""
        return kind.of(self.checkout)


def run_week(
    airflow: Airflow, settings: Settings, conf: dict[str, str], show: Progress
) -> WeekDone:
    """Trigger the DAG for `conf`'s source and week, and follow it to its end.

    Raises RunError with the failed task's own words, ServiceError where Airflow ends meanwhile.
    """
    source, week = conf["source"], conf["week"]
    run_id = airflow.trigger(DAG, conf)

    def told(run: RunState) -> None:
        # Airflow's API answers on when its scheduler is gone, and the run would stay as it is for
        # ever.
        if platform.SCHEDULER not in platform.status(settings):
            log = settings.logs / f"{platform.SCHEDULER}.log"
            raise ServiceError(f"{platform.SCHEDULER}: ended while {week} ran; see {log}")
        done = len(run.named("success")) / max(1, len(run.tasks))
        show(done, f"{week}: {doing(run)}")

    run = airflow.follow(DAG, run_id, told)
    page = airflow.page(DAG, run_id)
    if run.state != "success":
        raise RunError(f"{DAG} {week}: {fault(airflow, run)}")
    seconds = {task.name: task.seconds for task in run.tasks}
    return WeekDone(week, seconds, run.seconds, checkout_of(settings.home, source, week), page)


def doing(run: RunState) -> str:
    """What a run does now."""
    if run.state == "queued":
        return "waits for the run before it"
    # Airflow hands tasks on every few seconds: no task runs for a moment, and nothing is wrong.
    return ", ".join(run.named("running")) or "between two tasks"


def fault(airflow: Airflow, run: RunState) -> str:
    """Which task failed, in its own words, and where its log is."""
    failed = run.named("failed")
    if not failed:
        return f"the run failed: {airflow.page(DAG, run.run_id)}"
    words = airflow.reason(DAG, run.run_id, failed[0]) or "it did not say why"
    return f"task {failed[0]}: {words} (log: {airflow.page(DAG, run.run_id, failed[0])})"
