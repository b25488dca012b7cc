"""The demo: starts the platform, triggers the weekly runs, asks the served model, tells what came.

Everything stays: the platform runs on until `roiflow down`, its pages show the runs, and a second
demo finds finished stages in DVC's cache, registered packages by digest and served weeks in the
lake.
"""

from pathlib import Path

from rich.console import Console

from roiflow.data.weeks import Week
from roiflow.demo.events import EventsDone, events_table, read_so_far, report_events
from roiflow.demo.requests import RequestsDone, requests_table, send_requests
from roiflow.demo.tables import headline, results_table, seconds_table
from roiflow.demo.truth import truth_by_week, truth_table
from roiflow.demo.weeks import DAG, WeekDone, run_week
from roiflow.deployment import platform
from roiflow.params import load_params
from roiflow.progress import Progress, progress
from roiflow.settings import Settings, absolute, without_login
from roiflow.stages.ingest import open_source
from roiflow.weekly.choice import SIMULATOR, ingest_of, named_week, newest_week
from roiflow.weekly.values import PARAMS

REQUESTS = 300
STARTED = 0.1
"""The done fraction once the platform is up."""


def demo(
    repository: Path,
    settings: Settings,
    source: str,
    week: str | None,
    further: int,
    console: Console,
) -> None:
    """Run the loop for one week and, in the simulated world, `further` ones; print what came of it.

    Without a week it is the newest that the source holds. Raises ParamsError, SourceError or
    UnknownWeek before anything is started where source or week are wrong, RunError with the failed
    task's own words, ServiceError where a server does not answer.
    """
    # Asked before anything starts, so that a wrong name costs a second and not the start of every
    # server.
    first = first_week(repository, settings, source, week)
    platform.require_same_places(settings)
    # Other worlds do not answer to a policy: their next week is not there to be run.
    weeks = [str(first.plus(number)) for number in range(1 + further * (source == SIMULATOR))]
    with progress("demo") as show:
        platform.up(settings, repository, lambda done, what: show(STARTED * done, f"start {what}"))
        done = run_weeks(settings, source, weeks, console, show)
        show(1.0, "requests to the served model")
        answered, events = ask(repository, settings, done[-1], show)
    print_results(done, answered, events, console)
    if source == SIMULATOR:
        print_truth(repository, settings, done, console)
    for what, place in places(settings, done, answered).items():
        console.print(f"{what:<24} {place}", soft_wrap=True, highlight=False)


def first_week(repository: Path, settings: Settings, source: str, week: str | None) -> Week:
    """The week named, or the newest that the source holds; it is asked in either case."""
    ingest = ingest_of(repository, source)
    opened = open_source(ingest, settings)
    return named_week(ingest, opened, week) if week else newest_week(ingest, opened)


def run_weeks(
    settings: Settings, source: str, weeks: list[str], console: Console, show: Progress
) -> list[WeekDone]:
    """One run of the DAG after the other; a line is printed as each ends."""
    conf = {"source": source}
    if settings.data_folder is not None:
        # With each run: a scheduler that runs already has the environment of whoever started it.
        conf["data_folder"] = absolute(settings.data_folder)
    done: list[WeekDone] = []
    with platform.open_airflow(settings) as airflow:
        show(STARTED, "Airflow reads the DAG")
        airflow.wait_for(DAG)
        airflow.unpause(DAG)
        for number, week in enumerate(weeks):
            part = _part(show, STARTED + (1 - STARTED) * number / len(weeks), len(weeks))
            done.append(run_week(airflow, settings, conf | {"week": week}, part))
            console.print(headline(done[-1]), highlight=False)
    return done


def _part(show: Progress, before: float, weeks: int) -> Progress:
    """Progress of one of so many weeks, as progress of the demo."""
    share = (1 - STARTED) / weeks
    return lambda done, what: show(before + share * done, what)


def ask(
    repository: Path, settings: Settings, done: WeekDone, show: Progress
) -> tuple[RequestsDone, EventsDone]:
    """Slates of the served model, and what users did with them, as the stream's consumer saw it."""
    # Before the slates, which are events as well.
    before = read_so_far(settings)
    answered = send_requests(done, REQUESTS)
    show(1.0, "what users did with the slates, to the stream")
    return answered, report_events(repository, settings, answered.address, answered.slates, before)


def print_results(
    done: list[WeekDone], answered: RequestsDone, events: EventsDone, console: Console
) -> None:
    """What came of the weeks and of the requests."""
    for table in (seconds_table(done), results_table(done)):
        console.print(table)
    console.print(requests_table(answered))
    console.print(events_table(events))


def print_truth(
    repository: Path, settings: Settings, done: list[WeekDone], console: Console
) -> None:
    """What the simulated world says of its own weeks."""
    with console.status("the world's own truth of each week"):
        truths = truth_by_week(load_params(repository / PARAMS), settings.lake, done)
    console.print(truth_table(truths))


def places(settings: Settings, done: list[WeekDone], answered: RequestsDone) -> dict[str, str]:
    """Where to look, and how to end it."""
    last = done[-1]
    return {
        **{f"run {one.week}": one.page for one in done},
        **platform.addresses(settings),
        "slates": f"POST {answered.address}/v1/slate",
        "weekly report": str(last.checkout / "data/report/report.html"),
        "drift report": str(last.checkout / "data/drift/drift.html"),
        "served log": str(settings.served),
        "registry": without_login(settings.registry_uri),
        "promotions": str(settings.home.absolute() / "promotions.jsonl"),
        "end it": "make down",
    }
