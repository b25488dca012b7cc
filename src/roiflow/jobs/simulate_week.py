"""Let packages serve the next week of the simulated world, and keep the week in the lake."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.artefacts.run import Promoted
from roiflow.artefacts.trial import Trial
from roiflow.data import served_features
from roiflow.data.weeks import Week
from roiflow.errors import RegistryError, SourceError
from roiflow.evaluation.looks import Looking
from roiflow.experiment import trials
from roiflow.experiment.assignment import salt_of
from roiflow.labels.model import Labels
from roiflow.online.snapshot import load_snapshot
from roiflow.params import CanaryParams, RecalibrateParams, load_params
from roiflow.progress import progress
from roiflow.registry import Registry, model_name, package_folder, read_digest
from roiflow.serving import recalibrate
from roiflow.serving.arms import TwoArms, Watch, ramp
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import Recalibrator
from roiflow.serving.recommender import Models, Recommender
from roiflow.settings import Settings
from roiflow.simulator.planted import write_planted
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.run import Progress, SlateChooser
from roiflow.simulator.source import SimulatorSource
from roiflow.stages.command import run
from roiflow.stages.ingest import open_source


@dataclass(frozen=True)
class Recalibrating:
    """What a package is recalibrated by while it serves."""

    labels: Labels
    params: RecalibrateParams


@dataclass(frozen=True)
class OnTrial:
    """A challenger that serves a share of the users."""

    package: Path
    params: CanaryParams
    watch: Callable[[Models | None, Models], Watch] | None = None
    """Makes the one who looks, of what the stable arm (None: the logging policy) and it know."""


def main(promoted: Path, package: Path, online: Path, labels: Path, params: Path) -> None:
    """Serve the week after params.yaml's `ingest.week`, from the snapshot at that week's end.

    By the champion that the run left, or by the logging policy, and beside it by the challenger
    that it put on trial. What was planted in the world is left beside its weeks, in truth.json.
    Raises SourceError where the source is not the simulator: no other world answers.
    """
    every, settings = load_params(params), Settings()
    config = every.ingest
    source = open_source(config, settings)
    if not isinstance(source, SimulatorSource):
        raise SourceError(f"{params}: only the source simulator can be served, not {source.name}")
    week, who = Week.parse(config.week).plus(1), Promoted.read(promoted)
    stable, challenger = (
        digest and _package(digest, package, settings, source.name)
        for digest in (who.champion, who.challenger)
    )
    learnt = Labels.read(labels / Labels.place.name)
    looking = Looking(week, learnt, every.canary, every.evaluate, every.finetune_policy.cost_weight)
    on_trial = OnTrial(challenger, every.canary, looking.watch) if challenger else None
    with progress("simulate_week") as show:
        learning = Recalibrating(learnt, every.recalibrate)
        simulate(stable or None, online, source, week, learning, show, on_trial)
    write_planted(settings.lake / source.name, source.world, week)


def _package(digest: str, own: Path, settings: Settings, source: str) -> Path:
    """Where a package lies: downloaded before, the run's own, or else in the registry."""
    folder = package_folder(settings.home, digest)
    if folder.exists():
        return folder
    if own.exists() and read_digest(own) == digest:
        return own
    registry, name = Registry(settings.registry_uri, settings.home), model_name(source)
    known = registry.find(name, digest)
    if known is None:
        raise RegistryError(f"{name}: no version of package {digest[:12]}, which is to serve")
    return registry.package(known)


def simulate(
    stable: Path | None,
    online: Path,
    source: SimulatorSource,
    week: Week,
    learning: Recalibrating | None = None,
    show: Progress | None = None,
    on_trial: OnTrial | None = None,
) -> int:
    """Serve `week` with packages in this process; the number of impressions.

    `stable` serves those whom the challenger on trial does not; None: the logging policy. What the
    slates were made from is kept in the lake, and the trial.

    Serving a week again replaces it; the same packages give the same rows.
    """
    arms = [
        _arm(package, online, source, week, learning)
        for package in (stable, on_trial and on_trial.package)
        if package
    ]
    chooser: ServedChooser | TwoArms = (
        _two(arms, source, week, on_trial) if on_trial else arms[0].chooser
    )
    # The week's tables come before what tells how they were made, of which nothing older may stay:
    # a crash in between leaves a week that lacks it, which is then served again (weekly.serve).
    trials.forget(source.lake, source.name, week)
    served_features.path_of(source.lake, source.name, week).unlink(missing_ok=True)
    tables = source.serve_week(week, chooser, show)
    for arm in arms:
        _keep(arm, source, week)
    served_features.write(source.lake, source.name, week, chooser.served)
    if isinstance(chooser, TwoArms):
        trials.write(source.lake, source.name, chooser.trial)
    return int(tables["impressions"].num_rows)


@dataclass(frozen=True)
class _Arm:
    recommender: Recommender
    recalibrator: Recalibrator | None
    chooser: ServedChooser


def _arm(
    package: Path,
    online: Path,
    source: SimulatorSource,
    week: Week,
    learning: Recalibrating | None,
) -> _Arm:
    recommender = Recommender(Package.load(package), remembers=True)
    recalibrator = recalibrating(recommender, source, week, learning) if learning else None
    # In memory and from the snapshot alone: a week that is served again starts from the same state,
    # and touches no store that serves real users.
    store = recommender.memory_store()
    load_snapshot(store, online)
    chooser = ServedChooser(recommender, store, source.world, recalibrator)
    return _Arm(recommender, recalibrator, chooser)


def _two(arms: list[_Arm], source: SimulatorSource, week: Week, on_trial: OnTrial) -> TwoArms:
    *before, challenger = arms
    champion = before[0] if before else None
    stable: SlateChooser = champion.chooser if champion else logging_policy(source.world)
    trial = Trial(
        week=str(week),
        challenger=challenger.recommender.digest,
        champion=champion.recommender.digest if champion else None,
        salt=salt_of(str(week)),
        phases=ramp(week, on_trial.params),
        looks=(),
    )
    watch = on_trial.watch and on_trial.watch(
        champion.recommender.models if champion else None, challenger.recommender.models
    )
    return TwoArms(stable, challenger.chooser, source.world, trial, watch)


def _keep(arm: _Arm, source: SimulatorSource, week: Week) -> None:
    """The recalibrations of a week, in the place of those of a time before."""
    if arm.recalibrator:
        recalibrate.forget(source.lake, source.name, arm.recommender.digest, week.start)
        for one in arm.recalibrator.fitted:
            recalibrate.keep(source.lake, source.name, one)


def recalibrating(
    recommender: Recommender, source: SimulatorSource, week: Week, learning: Recalibrating
) -> Recalibrator:
    """Goes on with what the package had and what was known of its slates when the week began."""
    models, digest = recommender.models, recommender.digest
    models.recalibrations = recalibrate.kept(source.lake, source.name, digest, week.start)
    before, known = week.plus(-1), recalibrate.NOTHING
    served = served_features.read(source.lake, source.name, before)
    if served is not None:
        # Its own: another package's slates say nothing of when this one began.
        own = served.filter(pc.equal(served[c.POLICY_VERSION], recommender.policy_version))
        if own.num_rows:
            known = known.joined([own], [source.pull(before, before.end)])
    return Recalibrator(models, digest, learning.labels, learning.params, known)


if __name__ == "__main__":
    run(main)
