"""Decide on what was on trial in the test week, by the log of both arms.

Both packages are replayed on every slate of the week, each with the recalibrations that it had. A
trial that was decided before is decided again from what its version keeps of it, so that a second
attempt and a proof come to the same.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.artefacts.decision import Kind, TrialDecision
from roiflow.artefacts.evaluation import TrialEstimate
from roiflow.artefacts.run import Registered
from roiflow.artefacts.trial import Spent, Trial
from roiflow.data import served_features
from roiflow.data.split import RUN_UP, TEST
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import GateError, PackageError, RegistryError
from roiflow.evaluation.canary import decided, no_trial
from roiflow.evaluation.estimators.delta import ArmsOnLog, evidence
from roiflow.evaluation.replay import on_log
from roiflow.evaluation.served_clicks import click_ece
from roiflow.evaluation.slates import Slates, logged_slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.trial import Case, judge, split_checks
from roiflow.experiment import trials
from roiflow.experiment.budget import budget_of
from roiflow.features import folder as feature_store
from roiflow.features.engine import Engine, open_engine
from roiflow.features.rows import Window
from roiflow.features.table import Features, Floats, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.files import write_directory
from roiflow.jobs.screen import target_file
from roiflow.labels.model import Labels
from roiflow.labels.settled import settle
from roiflow.offline.build import VOCABULARY
from roiflow.offline.longer import lengthened, same_rows
from roiflow.params import Params, load_params
from roiflow.registry import CHAMPION, Registry, model_name, tried_of
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import kept
from roiflow.serving.recommender import Models
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.places import FEATURES, VALIDATED


def main(validated: Path, features: Path, labels: Path, params: Path, canary: Written) -> None:
    """Write the decision, and what both packages would have done on every slate of the week."""
    config, settings = load_params(params), Settings()
    registry = Registry(settings.registry_uri, settings.home)
    ledger = Ledger(registry.versions(model_name(config.ingest.source)), config.ingest.week)
    trial = ledger.trial or trials.read(
        settings.lake, config.ingest.source, Week.parse(config.ingest.week)
    )
    before = checkout_of(
        settings.home, config.ingest.source, str(Week.parse(config.ingest.week).plus(-1))
    )
    with write_directory(canary) as aside, TemporaryDirectory() as scratch:
        place = aside / TrialDecision.place.name
        if trial is None:
            no_trial(config.ingest.source, config.ingest.week).write(place)
            return
        folders = Folders(validated, features, labels, before, Path(scratch))
        week = ServedWeek(folders, config, settings.lake, trial)
        decide(week, registry, ledger, aside).write(place)


@dataclass(frozen=True)
class Ledger:
    """What the registry keeps of trials: of the week that is decided on, and of those before."""

    versions: Sequence[Registered]
    week: str

    @cached_property
    def tried(self) -> tuple[TrialDecision, ...]:
        """Decisions up to this week's, in their order. Raises ArtefactError on an edited tag."""
        found = [each.decision for one in self.versions for each in tried_of(one)]
        some = (one for one in found if one.week <= self.week)
        return tuple(sorted(some, key=lambda one: one.week))

    @property
    def this_week(self) -> TrialDecision | None:
        """The decision of this week where it was taken before."""
        return next((one for one in self.tried if one.week == self.week), None)

    @property
    def trial(self) -> Trial | None:
        """The trial of this week where it was decided on before."""
        found = self.this_week
        return found.trial if found else None

    @property
    def before(self) -> tuple[TrialDecision, ...]:
        """Decisions of the weeks before."""
        return tuple(one for one in self.tried if one.week < self.week)

    @property
    def spent(self) -> list[Spent]:
        """Of the year's error budget: every test that was made."""
        return [
            Spent(one.week, one.challenger, one.p, one.promote)
            for one in self.before
            if one.challenger is not None and one.p is not None
        ]

    def version(self, digest: str | None) -> Registered | None:
        """The version of a package, where the registry has it."""
        return next((one for one in self.versions if one.digest == digest), None)


@dataclass(frozen=True)
class Folders:
    """What is read of a run and of the one before it."""

    validated: Path
    features: Path
    labels: Path
    before: Path
    """The checkout of the run before, from whose snapshot the week was served."""
    scratch: Path


@dataclass(frozen=True)
class ServedWeek:
    """A week that two arms served, as the run's stages left it."""

    folders: Folders
    params: Params
    lake: Path
    trial: Trial

    @cached_property
    def features(self) -> Features:
        """Of the whole window."""
        return feature_store.read(self.folders.features)

    @cached_property
    def as_served(self) -> tuple[Features, Engine]:
        """The same week with all that serving knew; the run's own where the one before is gone."""
        folders = self.folders
        before = folders.before / VALIDATED
        if not (before / "impressions").exists():
            print(f"{folders.before}: is gone: its weeks are missing in what is replayed")
            return self.features, open_engine(folders.features)
        vocabulary = Vocabulary.read(folders.features / VOCABULARY)
        built = lengthened(
            before,
            folders.validated,
            vocabulary,
            self.params.build_features,
            folders.scratch,
        )
        # Whom the week itself brought, serving knew by nothing but what they did.
        known = open_engine(folders.features).plan.known_before_test["user"]
        profile = np.array(built.features.profile)
        profile[known:] = 0
        # In the snapshot an ad's past counts for its users by the category that it had then.
        then = feature_store.read(folders.before / FEATURES).attributes
        log = built.engine.user_log
        start = Week.parse(self.params.ingest.week).start
        engine = replace(built.engine, user_log=log.categorised(then, log.known_time < start))
        return replace(built.features, profile=profile), engine

    @cached_property
    def labels(self) -> Labels:
        """Of the window."""
        return Labels.read(self.folders.labels / Labels.place.name)

    def slates(self, slots: int) -> Slates:
        """Every whole slate of the test week."""
        return logged_slates(self.features, self.labels, self.features.rows(TEST), slots)

    @property
    def slots(self) -> int:
        """Of the longest slate of the test week."""
        rows = self.features.rows(TEST)
        return int(self.features.impressions.slate_size[rows].max(initial=1))

    def times(self, slates: Slates) -> Longs:
        """(B,) micros UTC of each slate's request."""
        return self.features.impressions.event_time[slates.row]

    def replay(self, package: Package, slates: Slates) -> TargetOnLog:
        """What a package would have done, with what it was recalibrated by at each time."""
        in_force = kept(self.lake, self.params.ingest.source, package.digest)
        week = LoggedWeek.of(self.features, self.labels)
        threads = len(os.sched_getaffinity(0))
        config = self.params.evaluate
        models, (features, engine) = Models(package, in_force), self.as_served
        asked = replace(slates, row=same_rows(self.features, features, slates.row))
        found = on_log(models, features, engine, asked, week, config, threads)
        return replace(found, row=slates.row)

    def users(self, slates: Slates) -> list[str | None]:
        """(B,) ids; None of a user whom the vocabulary does not know."""
        names = Vocabulary.read(self.folders.features / VOCABULARY).ids("user").to_pylist()
        return [names[user - 1] if user else None for user in slates.user.tolist()]

    def earlier(self, slates: Slates) -> Floats:
        """(B,) micros of revenue that each slate's user brought in the window's earlier weeks."""
        log = self.features.impressions
        rows = np.flatnonzero((log.split != TEST) & (log.split != RUN_UP))
        revenue = settle(self.labels, self.features, rows).revenue
        users = int(log.user.max(initial=0)) + 1
        by_user: Floats = np.bincount(log.user[rows], revenue, users).astype(np.float64)
        return by_user[slates.user]

    @property
    def click_ece(self) -> float | None:
        """Of the challenger's clicks on its own users, once it was recalibrated on them."""
        since, week = self.trial.started(), Week.parse(self.trial.week)
        served = served_features.read(self.lake, self.params.ingest.source, week)
        if since is None or served is None:
            return None
        later = since + self.params.canary.start_hours * MICROS_PER_HOUR
        own = pc.and_(
            pc.equal(served[c.POLICY_VERSION], self.trial.challenger[:12]),
            pc.greater_equal(served[c.EVENT_TIME].cast("int64"), later),
        )
        names = [c.REQUEST, c.POSITION, c.CLICKED]
        shown = Window(self.folders.validated).read("impressions", week, names)
        bins = self.params.evaluate.calibration_bins
        return click_ece(served.filter(own), shown, self.labels, bins)


def decide(week: ServedWeek, registry: Registry, ledger: Ledger, out: Path) -> TrialDecision:
    """The decision; both replays are left in the folder `out`."""
    trial, params = week.trial, week.params.canary
    then, tried, stood = (
        ledger.this_week,
        ledger.version(trial.challenger),
        ledger.version(trial.champion),
    )
    now = registry.by_alias(model_name(week.params.ingest.source), CHAMPION)
    champion = then.champion if then else now.digest if now else None
    before = [one for one in ledger.before if one.challenger == trial.challenger]
    packages = [_package(registry, one) for one in (tried, stood)]
    slots = packages[0].description.slate_size if packages[0] else week.slots
    slates = week.slates(slots)
    estimate = _estimate(week, slates, packages, out)
    known = [(at, user) for at, user in enumerate(week.users(slates)) if user is not None]
    rows = np.array([at for at, _ in known], np.int64)
    split = split_checks(
        [user for _, user in known],
        week.times(slates)[rows],
        slates.canary[rows],
        trial,
        params,
    )
    case = Case(
        trial=trial,
        challenger=trial.challenger,
        champion=champion,
        refresh=_kind(tried, stood) == "refresh",
        split=split,
        estimates=(
            *(one.estimates[-1] for one in before if one.estimates),
            *([estimate] if estimate else []),
        ),
        click_ece=week.click_ece,
        max_ece=params.max_ece,
        budget=budget_of(Week.parse(trial.week), ledger.spent, trial.challenger, params.budget),
    )
    return decided(case, _kind(tried, stood), judge(case, params))


def _kind(challenger: Registered | None, champion: Registered | None) -> Kind:
    if champion is None:
        return "first"
    # A version of before recipes were kept is of none that is known.
    same = challenger and challenger.tags.get("recipe") == champion.tags.get("recipe")
    return "refresh" if same and champion.tags.get("recipe") else "new recipe"


def _package(registry: Registry, version: Registered | None) -> Package | None:
    """None where the registry has none that is whole: it cannot be replayed."""
    if version is None:
        return None
    try:
        return Package.load(registry.package(version))
    except (RegistryError, PackageError) as error:
        print(f"cannot be replayed: {error}")
        return None


def _estimate(
    week: ServedWeek, slates: Slates, packages: Sequence[Package | None], out: Path
) -> TrialEstimate | None:
    """Of both arms; None where the challenger cannot be replayed."""
    replayed = [_replay(week, slates, one, out) for one in packages]
    challenger, champion = replayed
    if challenger is None or packages[0] is None:
        return None
    arms = ArmsOnLog(
        slates, week.trial.share_at(week.times(slates)), slates.canary, champion, challenger
    )
    cost_weight = packages[0].description.cost_weight
    return evidence(arms, week.params.evaluate, cost_weight, week.earlier(slates))


def _replay(
    week: ServedWeek, slates: Slates, package: Package | None, out: Path
) -> TargetOnLog | None:
    if package is None:
        return None
    try:
        found = week.replay(package, slates)
    except (GateError, PackageError) as error:
        print(f"cannot be replayed: {error}")
        return None
    found.write(out / target_file(package.digest))
    return found


if __name__ == "__main__":
    run(main)
