"""How the platform is: what runs where, who is champion, what came of the last weeks.

Read from the files that servers, runs and jobs leave under `home`. MLflow itself is asked for the
champion where it runs, since a person may have moved the alias there; all else needs no server.
"""

import json
import re
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.evaluation import PRIMARY, Report
from roiflow.artefacts.record import Artefact
from roiflow.artefacts.run import Bentos, Promoted, Registered
from roiflow.deployment import placed, processes
from roiflow.deployment.processes import Running
from roiflow.errors import ArtefactError
from roiflow.registry import CHAMPION, Registry, model_name
from roiflow.settings import Settings, without_login
from roiflow.weekly.checkout import is_finished

DOORS = (
    ("Airflow", "airflow-api-server", "/dags/weekly_training", "runs, logs, the form for one more"),
    ("MLflow", "mlflow", "/#/models", "model versions, metrics, champion and challenger"),
    ("Evidently", "evidently", "/", "drift of each week against the training data"),
    ("Slate service", "nginx", "", "POST /v1/slate and /v1/events; this page"),
    ("Redis", "redis", "", "online features"),
    ("Stream", "stream-consume", "", "events into Redis and the lake"),
)
"""Title, name of the process, path of its first page where it has any, and what it is for."""

ASK_SECONDS = 2.0
"""MLflow has so long to name a champion."""

A = TypeVar("A", bound=Artefact)
_RUN = re.compile(r"(.+)-(\d{4}-W\d{2})")


@dataclass(frozen=True)
class Door:
    """A server and where it is found."""

    title: str
    about: str
    address: str
    """Empty where it never ran here."""
    page: str
    """Address of its first page; empty where it does not run or has none."""
    runs: bool
    log: str
    """Empty where somebody else runs it."""


@dataclass(frozen=True)
class Champion:
    """The version that the alias `champion` names."""

    model: str
    version: int
    week: str
    digest: str
    said_by: str
    """MLflow, or the promotion log where MLflow does not run."""


@dataclass(frozen=True)
class Served:
    """A share of the users and what answers them."""

    arm: str
    percent: float
    tag: str
    version: int | None
    """Registered version in the Bento; None where no run names it any more."""


@dataclass(frozen=True)
class Run:
    """One weekly run, as far as it is."""

    source: str
    week: str
    folder: Path
    started: float
    """When its checkout was made ready last, in seconds since the epoch."""
    finished: bool
    verdict: str
    """Of the screen of what the run made; empty before it."""
    reason: str
    trial: TrialDecision | None
    """Of what was on trial in the week; None before it was decided."""
    rule: str
    """What promoted in the run: evidence, first model, override, none."""
    version: int | None
    roi: tuple[float, float, float] | None
    """Doubly robust estimate with its interval; None without one."""
    pages: tuple[str, ...]
    """Which of `report` and `drift` were written."""

    def page(self, kind: str) -> str:
        """Path of its `report` or `drift` behind the edge."""
        return f"/runs/{self.source}-{self.week}/{kind}/{kind}.html"

    @property
    def report(self) -> Path:
        """The weekly report's file, whether it is there or not."""
        return self.folder / "data/report/report.html"


@dataclass(frozen=True)
class Stream:
    """What the consumer has taken since the beginning, and up to when it knows the world."""

    taken: int
    known: float
    """Seconds since the epoch; in a simulated world its own time."""


@dataclass(frozen=True)
class Hint:
    """What to look at, and what to do about it."""

    what: str
    then: str
    page: str = ""
    """Path of a page behind the edge that says more."""


@dataclass(frozen=True)
class State:
    """The platform at one moment."""

    now: float
    doors: tuple[Door, ...]
    champions: tuple[Champion, ...]
    served: tuple[Served, ...]
    runs: tuple[Run, ...]
    """The newest first."""
    stream: Stream | None

    @property
    def last(self) -> Run | None:
        """The newest run that got to a decision."""
        return next((run for run in self.runs if run.finished), None)

    @property
    def hints(self) -> tuple[Hint, ...]:
        """What to look at first; none where all is well."""
        return tuple(_hints(self))


def platform_state(settings: Settings, now: float) -> State:
    """How the platform of a home is at `now`, in seconds since the epoch."""
    home = settings.home.absolute()
    records = {record.name: record for record in processes.recorded(home)}
    alive = processes.running(home)
    runs = sorted(_runs(settings.runs), key=lambda run: run.started, reverse=True)
    mlflow = alive.get("mlflow")
    return State(
        now=now,
        doors=tuple(_doors(settings, records, alive)),
        champions=tuple(_champions(settings, runs, mlflow.address if mlflow else "")),
        served=tuple(_served(home, runs)),
        runs=tuple(runs),
        stream=_stream(settings.stream / "journal"),
    )


def _doors(
    settings: Settings, records: dict[str, Running], alive: dict[str, Running]
) -> Iterator[Door]:
    # A server that somebody else runs has no record here and is taken to run: to ask it would cost
    # the start page its timeout.
    named = {"redis": settings.redis_url, "mlflow": settings.mlflow_uri}
    for title, name, path, about in DOORS:
        record, runs = records.get(name), name in alive
        # Without a record it never ran here: then it is somebody else's, or not there at all.
        if record is None and (elsewhere := named.get(name)):
            yield Door(title, about, without_login(elsewhere), page="", runs=True, log="")
        else:
            address, log = (record.address, record.log) if record else ("", "")
            page = f"{address}{path}" if runs and path else ""
            yield Door(title, about, address, page, runs, log)


def _runs(folder: Path) -> Iterator[Run]:
    for checkout in folder.glob("*"):
        if match := _RUN.fullmatch(checkout.name):
            yield _run(checkout, match[1], match[2])


def _run(checkout: Path, source: str, week: str) -> Run:
    data = checkout / "data"
    decision, registered = left(Decision, checkout), left(Registered, checkout)
    promoted = left(Promoted, checkout)
    params = checkout / "params.yaml"
    return Run(
        source=source,
        week=week,
        folder=checkout,
        # A run that is repeated keeps its folder; params.yaml is written anew each time.
        started=params.stat().st_mtime if params.exists() else 0.0,
        finished=is_finished(checkout),
        verdict=decision.verdict if decision else "",
        reason=decision.reason if decision else "",
        trial=left(TrialDecision, checkout),
        rule=promoted.rule if promoted and promoted.promoted else "none",
        version=registered.version if registered else None,
        roi=_roi(left(Report, checkout)),
        pages=tuple(
            kind for kind in ("report", "drift") if (data / kind / f"{kind}.html").exists()
        ),
    )


def _roi(report: Report | None) -> tuple[float, float, float] | None:
    found = report.roi.get(PRIMARY) if report else None
    if found is None or found.roi.value is None or found.roi.low is None or found.roi.high is None:
        return None
    return found.roi.value, found.roi.low, found.roi.high


def left(kind: type[A], checkout: Path) -> A | None:
    """What a step of a run left; None where it is not there or cannot be read.

    One run's broken file, or one of an earlier version of the code, must not hide how all else is.
    """
    try:
        return kind.of(checkout)
    except ArtefactError:
        return None


def _champions(settings: Settings, runs: list[Run], mlflow: str) -> Iterator[Champion]:
    registry = Registry(settings.registry_uri, settings.home)
    for name in dict.fromkeys(model_name(run.source) for run in runs):
        # MLflow is asked where it runs, as the alias may have been moved or taken away in its UI;
        # an empty answer is an answer. Else the promotion log says what this platform did last.
        # None: MLflow is silent, so the log has to do. An empty list is an answer: no champion.
        asked = _ask(mlflow, name) if mlflow else None
        if asked is not None:
            if asked:
                yield asked[0]
            continue
        if moves := registry.promotions(name):
            last = moves[-1]
            week = next((run.week for run in runs if _holds(run, last.digest)), "")
            yield Champion(name, last.version, week, last.digest, "the promotion log")


def _holds(run: Run, digest: str) -> bool:
    registered = left(Registered, run.folder)
    return registered is not None and registered.digest == digest


def _ask(mlflow: str, name: str) -> list[Champion] | None:
    """The champion as MLflow has it, an empty list where it has none; None where it is silent."""
    address = f"{mlflow}/api/2.0/mlflow/registered-models/alias?name={quote(name)}&alias={CHAMPION}"
    try:
        found = json.loads(processes.ask(address, ASK_SECONDS))["model_version"]
    except urllib.error.HTTPError as error:
        return [] if error.code in (400, 404) else None
    except (OSError, ValueError, KeyError):
        return None
    tags = {tag["key"]: tag["value"] for tag in found.get("tags", ())}
    week, digest = tags.get("week", ""), tags.get("digest", "")
    return [Champion(name, int(found["version"]), week, digest, "MLflow")]


def _served(home: Path, runs: list[Run]) -> Iterator[Served]:
    left_by = [bentos for run in runs if (bentos := left(Bentos, run.folder))]
    built = [one for bentos in left_by for one in (bentos.stable, bentos.canary) if one]
    versions = {bento.tag: bento.version for bento in built}
    for arm in placed.current(home):
        yield Served(arm.arm, arm.percent, arm.tag, versions.get(arm.tag))


def _stream(journal: Path) -> Stream | None:
    if not journal.is_dir():
        return None
    from roiflow.stream.journal import last_state

    state = last_state(journal)
    if not state.stamp:
        return None
    return Stream(sum(state.counts.values()), state.stamp / 1e6)


def _hints(state: State) -> Iterator[Hint]:
    ended = [door for door in state.doors if door.address and not door.runs]
    running = [door for door in state.doors if door.runs and door.log]
    if not running:
        yield Hint("nothing runs", "roiflow up")
    # Where nothing runs, each that ended would say the same once more.
    for door in ended if running else ():
        yield Hint(f"{door.title} has ended by itself", f"its log: {door.log}; then roiflow up")
    if not state.runs:
        yield Hint("there is no run yet", "make demo, or trigger weekly_training in Airflow")
        return
    newest, last = state.runs[0], state.last
    if not newest.finished:
        what = f"the run of {newest.source} {newest.week} has not finished"
        yield Hint(what, "its tasks and their logs: Airflow")
    if last and last.verdict == "fail":
        what = f"the screen refused what {last.source} {last.week} made: {last.reason}"
        yield Hint(what, _where(last), _page(last))
    if last and last.trial and last.trial.verdict in ("fail", "inconclusive"):
        found = last.trial
        what = f"trial {found.verdict} in {last.source} {last.week}: {found.reason}"
        yield Hint(what, f"{found.todo}; {_where(last)}", _page(last))
    if last and not state.champions:
        yield Hint("no version is champion", "its trial makes it that, or roiflow approve")


def _where(run: Run) -> str:
    return f"report: {run.report}" if "report" in run.pages else f"its checkout: {run.folder}"


def _page(run: Run) -> str:
    return run.page("report") if "report" in run.pages else ""


def airflow_password(home: Path) -> tuple[str, str] | None:
    """User and generated password of the Airflow UI, once it has started."""
    path = home.absolute() / "airflow" / "simple_auth_manager_passwords.json.generated"
    if not path.exists():
        return None
    user, password = next(iter(json.loads(path.read_text()).items()))
    return str(user), str(password)


def moment(seconds: float, now: float) -> str:
    """A time of the past: 2017-05-22 00:05 UTC, and how long before `now` where that is near."""
    said = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    for unit, name in ((3_600.0, "h"), (60.0, "min"), (1.0, "s")):
        if 2 * unit <= now - seconds < 48 * 3_600.0:
            return f"{said}, {(now - seconds) / unit:.0f} {name} ago"
    return said
