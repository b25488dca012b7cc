"""Let a package serve the next week of the simulated world, and keep the week in the lake."""

from pathlib import Path

from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.online.snapshot import load_snapshot
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.settings import Settings
from roiflow.simulator.planted import write_planted
from roiflow.simulator.run import Progress
from roiflow.simulator.source import SimulatorSource
from roiflow.stages.command import run
from roiflow.stages.ingest import open_source


def main(package: Path, online: Path, params: Path) -> None:
    """Serve the week after params.yaml's `ingest.week`, from the snapshot at that week's end.

    What was planted in the world is left beside its weeks, in truth.json. Raises SourceError where
    the source is not the simulator: no other world answers.
    """
    config, settings = load_params(params).ingest, Settings()
    source = open_source(config, settings)
    if not isinstance(source, SimulatorSource):
        raise SourceError(f"{params}: only the source simulator can be served, not {source.name}")
    week = Week.parse(config.week).plus(1)
    with progress("simulate_week") as show:
        simulate(package, online, source, week, show)
    write_planted(settings.lake / source.name, source.world, week)


def simulate(
    package: Path,
    online: Path,
    source: SimulatorSource,
    week: Week,
    show: Progress | None = None,
) -> int:
    """Serve `week` with the package in this process; the number of impressions.

    What the slates were made from is kept in the lake.

    Serving a week again replaces it; the same package gives the same rows.
    """
    recommender = Recommender(Package.load(package))
    # In memory and from the snapshot alone: a week that is served again starts from the same state,
    # and touches no store that serves real users.
    store = recommender.memory_store()
    load_snapshot(store, online)
    chooser = ServedChooser(recommender, store, source.world)
    # The week's tables come first. A crash before the vectors are kept leaves a week that lacks
    # them, which is then served again (see weekly.serve).
    tables = source.serve_week(week, chooser, show)
    served_features.write(source.lake, source.name, week, chooser.served)
    return int(tables["impressions"].num_rows)


if __name__ == "__main__":
    run(main)
