"""The week of a run that names none."""

from pathlib import Path

import pytest

from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week, span
from roiflow.errors import NothingNew, ParamsError, UnknownWeek
from roiflow.params import IngestParams
from roiflow.simulator.source import SimulatorSource
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.choice import finished_weeks, ingest_of, newest_week, next_week

ROOT = Path(__file__).parents[3]


class Held:
    """A source that holds these weeks."""

    def __init__(self, name: str, *weeks: str) -> None:
        self.name, self._weeks = name, [Week.parse(week) for week in weeks]

    def pull(self, week: Week, as_of: int) -> Tables:
        raise NotImplementedError

    def weeks(self) -> list[Week]:
        return self._weeks

    def state(self, weeks: object) -> str:
        raise NotImplementedError


def ingest(source: str, weeks: int = 1) -> IngestParams:
    found = ingest_of(ROOT, source)
    section = getattr(found, source).model_copy(update={"weeks": weeks})
    return found.model_copy(update={source: section})


def finish(home: Path, source: str, *weeks: str) -> None:
    for week in weeks:
        folder = checkout_of(home, source, week) / "data"
        folder.mkdir(parents=True)
        (folder / "promoted.json").touch()


def test_it_is_the_newest_that_is_held(tmp_path: Path) -> None:
    source = Held("files", "2026-W31", "2026-W32", "2026-W33")
    assert next_week(ingest("files"), source, tmp_path) == Week.parse("2026-W33")
    finish(tmp_path, "files", "2026-W31")
    finish(tmp_path, "files_of_another", "2026-W33")
    assert next_week(ingest("files"), source, tmp_path) == Week.parse("2026-W33")


def test_a_tested_week_is_not_tested_again_and_no_older_one_is(tmp_path: Path) -> None:
    source = Held("files", "2026-W31", "2026-W32", "2026-W33")
    finish(tmp_path, "files", "2026-W33")
    with pytest.raises(NothingNew, match=r"files: its newest week is 2026-W33, .* tested 2026-W33"):
        next_week(ingest("files"), source, tmp_path)
    assert newest_week(ingest("files"), source) == Week.parse("2026-W33")
    more = Held("files", "2026-W31", "2026-W32", "2026-W33", "2026-W34")
    assert next_week(ingest("files"), more, tmp_path) == Week.parse("2026-W34")


def test_a_run_that_did_not_get_to_a_decision_has_tested_nothing(tmp_path: Path) -> None:
    checkout_of(tmp_path, "files", "2026-W33").mkdir(parents=True)
    assert finished_weeks(tmp_path, "files") == []
    finish(tmp_path, "files", "2026-W32", "2025-W52")
    assert list(map(str, finished_weeks(tmp_path, "files"))) == ["2025-W52", "2026-W32"]
    source = Held("files", "2026-W33")
    assert next_week(ingest("files"), source, tmp_path) == Week.parse("2026-W33")


def test_only_a_week_with_its_whole_window_can_be_tested(tmp_path: Path) -> None:
    source = Held("files", "2026-W30", "2026-W31", "2026-W33")
    assert next_week(ingest("files", 2), source, tmp_path) == Week.parse("2026-W31")
    said = r"no 3 weeks in a row .*files.weeks of params.yaml.*: 2026-W30, 2026-W31, 2026-W33"
    with pytest.raises(UnknownWeek, match=said):
        next_week(ingest("files", 3), source, tmp_path)
    with pytest.raises(UnknownWeek, match="it holds: none"):
        next_week(ingest("files"), Held("files"), tmp_path)


def test_the_simulated_world_begins_as_shipped_plays_on_and_ends(tmp_path: Path) -> None:
    params = ingest_of(ROOT, "simulator")
    world = SimulatorSource(params.simulator, tmp_path / "lake")
    played = []
    for _ in range(3):
        played.append(str(next_week(params, world, tmp_path)))
        finish(tmp_path, "simulator", played[-1])
    assert played == ["2017-W20", "2017-W21", "2017-W22"]
    finish(tmp_path, "simulator", "2017-W52")
    with pytest.raises(NothingNew, match="source simulator: its newest week is 2017-W52"):
        next_week(params, world, tmp_path)


def test_a_week_of_another_source_is_none_of_the_world_s(tmp_path: Path) -> None:
    params = ingest_of(ROOT, "simulator").model_copy(update={"week": "2026-W33"})
    world = SimulatorSource(params.simulator, tmp_path / "lake")
    assert next_week(params, world, tmp_path) == Week.parse("2017-W19")


def test_every_week_of_the_panel_can_be_asked_for() -> None:
    from roiflow.data.sources.complete_journey import CompleteJourney

    params = ingest_of(ROOT, "complete_journey")
    source = CompleteJourney.installed(params.complete_journey.history_weeks)
    assert source.weeks() == span(Week(2017, 9), Week(2017, 52))
    assert newest_week(params, source) == Week(2017, 52)


def test_an_unknown_source_is_named() -> None:
    with pytest.raises(ParamsError, match=r"ingest\.source.*nowhere"):
        ingest_of(ROOT, "nowhere")
