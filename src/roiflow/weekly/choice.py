"""Which week a run tests on where nobody names one: the newest that no finished run has tested."""

from pathlib import Path

from roiflow.data.sources.protocol import Source
from roiflow.data.weeks import Week, window_ends
from roiflow.errors import NothingNew, RunError, UnknownWeek
from roiflow.params import IngestParams, parse_params
from roiflow.weekly.checkout import checkout_of, is_finished
from roiflow.weekly.values import PARAMS, with_run

SIMULATOR = "simulator"


def serves_without_a_package(source: str) -> bool:
    """Whether something serves, and logs propensities, before a package of ours is champion.

    Beside it even a first model can be tried: the simulated world has a logging policy of its own.
    """
    return source == SIMULATOR


def finished_weeks(home: Path, source: str) -> list[Week]:
    """The weeks of a source that a finished run has tested, oldest first."""
    folders = checkout_of(home, source, "*")
    runs = [folder for folder in folders.parent.glob(folders.name) if is_finished(folder)]
    return sorted(Week.parse(folder.name.removeprefix(f"{source}-")) for folder in runs)


def last_finished(home: Path, source: str) -> Week:
    """The newest week that a finished run has tested. Raises RunError where there is none."""
    if tested := finished_weeks(home, source):
        return tested[-1]
    runs = checkout_of(home, source, "*")
    raise RunError(f"{runs}: no finished run; run a week first: roiflow demo --source {source}")


def ingest_of(repository: Path, source: str) -> IngestParams:
    """The section `ingest` of the repository's params.yaml with another source.

    Raises ParamsError, naming the value, where there is no such source.
    """
    text = (repository / PARAMS).read_text()
    # Any valid week would do: which one a source holds is what is about to be asked.
    week = parse_params(text, PARAMS).ingest.week
    return parse_params(with_run(text, source, week), PARAMS).ingest


def newest_week(ingest: IngestParams, source: Source) -> Week:
    """The newest week that can be tested; of the simulated world, where its story begins.

    That is `ingest.week`, or the first whole window where params.yaml means another source's week.
    Raises UnknownWeek where the source has none.
    """
    held = _testable(ingest, source)
    if source.name != SIMULATOR:
        return held[-1]
    week = Week.parse(ingest.week)
    return week if week in held else held[0]


def named_week(ingest: IngestParams, source: Source, name: str) -> Week:
    """The week of that name. Raises UnknownWeek where it is none, or its window is not held."""
    week, held = Week.parse(name), _testable(ingest, source)
    if week in held:
        return week
    raise UnknownWeek(
        f"source {source.name}: not {week}: it holds {held[0]} to {held[-1]} with the "
        f"{ingest.weeks - 1} weeks before (ingest.{source.name}.weeks of params.yaml)"
    )


def next_week(ingest: IngestParams, source: Source, home: Path) -> Week:
    """The newest week of a source that no finished run has tested; never one before a tested one.

    The simulated world plays on: it is the week after the last that was tested. Raises NothingNew
    where there is none, and as `newest_week`.
    """
    tested = finished_weeks(home, source.name)
    if not tested:
        return newest_week(ingest, source)
    last, held = tested[-1], _testable(ingest, source)
    # A real source may have given several weeks since: only the newest is tested.
    week = last.plus(1) if source.name == SIMULATOR else held[-1]
    if last < week <= held[-1]:
        return week
    raise NothingNew(
        f"source {source.name}: its newest week is {held[-1]}, and a finished run has tested "
        f"{last}; name a week to run it again"
    )


def _testable(ingest: IngestParams, source: Source) -> list[Week]:
    held = source.weeks()
    if ends := window_ends(held, ingest.weeks):
        return ends
    listed = ", ".join(map(str, held)) or "none"
    raise UnknownWeek(
        f"source {source.name}: no {ingest.weeks} weeks in a row that end with one to test on "
        f"(ingest.{source.name}.weeks of params.yaml); it holds: {listed}"
    )
