"""Pull the window's weeks from the source into the run's own folder."""

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from roiflow.catalogue.catalogue import with_changes
from roiflow.data import lake
from roiflow.data.pulled import Pulled, write_pulled
from roiflow.data.sources.places import local_folder, open_folder
from roiflow.data.sources.protocol import Source, Tables
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.files import write_directory
from roiflow.params import IngestParams, load_params
from roiflow.progress import progress
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run

VOCABULARY = pa.schema([("kind", pa.string()), ("id", pa.string()), ("index", pa.int32())])


def main(raw: Written, params: Path) -> None:
    """The weeks' tables, the vocabulary published before them, and what was pulled."""
    config = load_params(params).ingest
    settings = Settings()
    weeks = Week.parse(config.week).window(config.weeks)
    # The same for all the weeks: an earlier week is read as it is known at the end of the window,
    # late conversions included, and nothing from after it.
    as_of = weeks[-1].end
    source = open_source(config, settings)
    with progress("ingest") as show, write_directory(raw) as aside:
        for number, week in enumerate(weeks):
            show(number / len(weeks), f"{config.source} {week}")
            for table, rows in _pull(source, week, weeks).items():
                lake.write(aside, table, week, rows)
        published = vocabulary_before(settings, config.source, weeks[-1])
        # Copied into the run's own data, so that a run that is reproduced has the one of then.
        vocabulary = lake.read_parquet(published) if published else VOCABULARY.empty_table()
        lake.write_parquet(aside / "vocabulary.parquet", vocabulary)
        write_pulled(aside, Pulled(config.source, weeks, as_of))


def _pull(source: Source, week: Week, weeks: Sequence[Week]) -> Tables:
    """One week of the window. Raises UnknownWeek that says why an earlier week is asked for."""
    try:
        return source.pull(week, weeks[-1].end)
    except UnknownWeek as error:
        if week == weeks[-1]:
            raise
        raise UnknownWeek(
            f"{error}; it is asked for because the window that ends with {weeks[-1]} has "
            f"{len(weeks)} weeks (ingest.{source.name}.weeks of params.yaml)"
        ) from None


def open_source(config: IngestParams, settings: Settings) -> Source:
    """The source that params.yaml names.

    Raises SourceError, naming the environment variable, where its folder is not set or not there.
    """
    # Each source is imported where it is asked for: some need drivers that are not installed where
    # they are not used, and all take time to load.
    match config.source:
        case "simulator":
            from roiflow.simulator.source import SimulatorSource

            return SimulatorSource(config.simulator, settings.lake)
        case "complete_journey":
            from roiflow.data.sources.complete_journey import CompleteJourney

            return CompleteJourney.installed(config.complete_journey.history_weeks)
        case "kuairand":
            from roiflow.data.sources.kuairand import KuaiRand

            return KuaiRand(_local(config, settings))
        case "open_bandit":
            from roiflow.data.sources.open_bandit import OpenBandit

            return OpenBandit(_local(config, settings))
        case "files":
            from roiflow.data.sources.files import Files

            return Files(_folder(config, settings), now=time.time_ns() // 1_000)
        case "sql":
            from roiflow.data.sources.sql import Sql

            return Sql(config.sql, settings.sql)
        case "stream":
            from roiflow.data.sources.stream import Stream

            return Stream(settings.lake, _folder(config, settings), with_changes)


def _named(config: IngestParams, settings: Settings) -> str:
    if not settings.data_folder:
        raise SourceError(
            f"source {config.source}: set the environment variable ROIFLOW_DATA_FOLDER to the "
            "folder that holds its files"
        )
    return settings.data_folder


def _folder(config: IngestParams, settings: Settings) -> str:
    place = _named(config, settings)
    open_folder(place).require()
    return place


def _local(config: IngestParams, settings: Settings) -> Path:
    return local_folder(_named(config, settings))


def vocabulary_before(settings: Settings, source: str, week: Week) -> Path | None:
    """The newest vocabulary published for a week before `week`."""
    published = (settings.lake / source / "vocabulary").glob("week=*.parquet")
    weeks = {Week.parse(path.stem.removeprefix("week=")): path for path in published}
    # Strictly before: a week that is run again must not find the numbers that its first run gave.
    earlier = [one for one in weeks if one < week]
    return weeks[max(earlier)] if earlier else None


if __name__ == "__main__":
    run(main)
