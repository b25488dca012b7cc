"""Let a package serve the next week of the simulated world, and keep the week in the lake."""

from dataclasses import dataclass
from pathlib import Path

from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.labels.model import Labels
from roiflow.online.snapshot import load_snapshot
from roiflow.params import RecalibrateParams, load_params
from roiflow.progress import progress
from roiflow.serving import recalibrate
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import Recalibrator
from roiflow.serving.recommender import Recommender
from roiflow.settings import Settings
from roiflow.simulator.planted import write_planted
from roiflow.simulator.run import Progress
from roiflow.simulator.source import SimulatorSource
from roiflow.stages.command import run
from roiflow.stages.ingest import open_source


@dataclass(frozen=True)
class Recalibrating:
    """What a package is recalibrated by while it serves."""

    labels: Labels
    params: RecalibrateParams


def main(package: Path, online: Path, labels: Path, params: Path) -> None:
    """Serve the week after params.yaml's `ingest.week`, from the snapshot at that week's end.

    What was planted in the world is left beside its weeks, in truth.json. Raises SourceError where
    the source is not the simulator: no other world answers.
    """
    every, settings = load_params(params), Settings()
    config = every.ingest
    source = open_source(config, settings)
    if not isinstance(source, SimulatorSource):
        raise SourceError(f"{params}: only the source simulator can be served, not {source.name}")
    week = Week.parse(config.week).plus(1)
    with progress("simulate_week") as show:
        learning = Recalibrating(Labels.read(labels / Labels.place.name), every.recalibrate)
        simulate(package, online, source, week, learning, show)
    write_planted(settings.lake / source.name, source.world, week)


def simulate(
    package: Path,
    online: Path,
    source: SimulatorSource,
    week: Week,
    learning: Recalibrating | None = None,
    show: Progress | None = None,
) -> int:
    """Serve `week` with the package in this process; the number of impressions.

    What the slates were made from is kept in the lake.

    Serving a week again replaces it; the same package gives the same rows.
    """
    recommender = Recommender(Package.load(package))
    recalibrator = recalibrating(recommender, source, week, learning) if learning else None
    # In memory and from the snapshot alone: a week that is served again starts from the same state,
    # and touches no store that serves real users.
    store = recommender.memory_store()
    load_snapshot(store, online)
    chooser = ServedChooser(recommender, store, source.world, recalibrator)
    # The week's tables come first. A crash before the vectors are kept leaves a week that lacks
    # them, which is then served again (see weekly.serve).
    tables = source.serve_week(week, chooser, show)
    if recalibrator:
        recalibrate.forget(source.lake, source.name, recommender.digest, week.start)
        for one in recalibrator.fitted:
            recalibrate.keep(source.lake, source.name, one)
    served_features.write(source.lake, source.name, week, chooser.served)
    return int(tables["impressions"].num_rows)


def recalibrating(
    recommender: Recommender, source: SimulatorSource, week: Week, learning: Recalibrating
) -> Recalibrator:
    """Goes on with what the package had and what was known of its slates when the week began."""
    models, digest = recommender.models, recommender.digest
    models.recalibrations = recalibrate.kept(source.lake, source.name, digest, week.start)
    before, known = week.plus(-1), recalibrate.NOTHING
    served = served_features.read(source.lake, source.name, before)
    if served is not None:
        known = known.joined([served], [source.pull(before, before.end)])
    return Recalibrator(models, digest, learning.labels, learning.params, known)


if __name__ == "__main__":
    run(main)
