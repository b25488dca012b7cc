"""A small week that two arms served, decided on by the jobs: and what must never promote."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.run import Lineage, Registered
from roiflow.artefacts.trial import Trial
from roiflow.data.weeks import Week
from roiflow.experiment import trials
from roiflow.features.folder import read
from roiflow.jobs import canary, promote
from roiflow.jobs.screen import target_file
from roiflow.jobs.simulate_week import OnTrial, simulate
from roiflow.labels.fit import fit
from roiflow.labels.model import Labels
from roiflow.params import CanaryParams, load_params
from roiflow.registry import CHAMPION, Evidence, Registry, tried_of
from roiflow.serving.package import Package
from roiflow.simulator.source import SimulatorSource
from tests.unit.serving.packages import ROOT, TinyWorld, rebuilt, tiny_world, write_package

NAME = "ad_ranker_simulator"
WEEK = Week.parse("2026-W03")
WEEKS = ("2026-W01", "2026-W02", "2026-W03")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Base:
    """What all worlds of this file begin with."""

    world: TinyWorld
    stable: Package
    challenger: Package
    store: Path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A world, two packages of it, and a store that has both: 1 is champion, 2 its challenger."""
    folder = tmp_path_factory.mktemp("base")
    world = tiny_world(folder / "world", users=120)
    stable = write_package(folder / "stable", world)
    challenger = write_package(folder / "challenger", world, temperature=0.5)
    store = folder / "store"
    registry = Registry(f"sqlite:///{store}/mlflow.db", store)
    for package in (stable, challenger):
        registered(registry, package)
    first = registry.get(NAME, 1)
    registry.promote(first, None, "pass", "canary", "rule: evidence", 1.0)
    return Base(world, stable, challenger, store)


def registered(registry: Registry, package: Package) -> Registered:
    tags = {"source": "simulator", "week": "2026-W02", "commit": "c" * 40, "recipe": "r" * 64}
    tags |= {"verdict": "pass", "rule": "none", "decision": "first", "champion_then": "none"}
    return registry.register(NAME, package.folder, tags, Evidence({}, {}, (), "# Week"))


@dataclass(frozen=True)
class Run:
    """A run's folder whose test week was on trial."""

    folder: Path
    home: Path
    registry: Registry

    def decide(self) -> TrialDecision:
        place = self.folder
        (place / "data").mkdir(exist_ok=True)
        canary.main(
            place / "validated", place / "features", place / "labels", place / "params.yaml",
            place / "data/canary",
        )  # fmt: skip
        return TrialDecision.of(place)

    @property
    def trial(self) -> Trial:
        found = trials.read(self.home / "lake", "simulator", WEEK)
        assert found is not None
        return found

    def rewrite(self, **changes: object) -> None:
        trials.write(self.home / "lake", "simulator", replace(self.trial, **changes))  # type: ignore[arg-type]


def limits(**changes: float) -> CanaryParams:
    """Of params.yaml, for a few hundred requests."""
    return load_params(ROOT / "params.yaml").canary.model_copy(
        update={
            "min_users": 5,
            "max_ece": 1.0,
            "start_hours": 12,
            "start_share": 0.3,
            **changes,
        }
    )


Serve = Callable[..., Run]


@pytest.fixture(scope="module")
def played(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run whose week two packages served; each served once."""
    known: dict[str, Path] = {}

    def play(**changes: float) -> Path:
        name = str(changes)
        if name not in known:
            known[name] = run_of(base, tmp_path_factory.mktemp("played"), limits(**changes))
        return known[name]

    return play


def run_of(base: Base, folder: Path, params: CanaryParams) -> Path:
    home = folder / "home"
    shutil.copytree(base.store, home)
    simulate(
        base.stable.folder,
        base.world.features / "online",
        SimulatorSource(base.world.params, home / "lake"),
        WEEK,
        on_trial=OnTrial(base.challenger.folder, params),
    )
    rebuilt(folder, base.world, home / "lake", WEEKS)
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"] |= {"source": "simulator", "week": str(WEEK)}
    content["canary"] = params.model_dump()
    content["evaluate"]["min_effective_sample_size"] = 20.0
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    labels = fit(read(folder / "features"), load_params(ROOT / "params.yaml").fit_labels).labels
    labels.write(folder / "labels" / Labels.place.name)
    return folder


@pytest.fixture
def serve(played: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A run of its own, of a week that two packages served."""

    def play(**changes: float) -> Run:
        place = tmp_path / "run"
        shutil.copytree(played(**changes), place)
        home = place / "home"
        monkeypatch.setenv("ROIFLOW_HOME", str(home))
        monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
        return Run(place, home, Registry(f"sqlite:///{home}/mlflow.db", home))

    return play


def failed(decision: TrialDecision) -> dict[str, str]:
    return {one.name: one.reason for one in decision.checks if one.verdict == "fail"}


def test_both_arms_are_replayed_and_the_decision_is_the_same_again(
    serve: Serve, base: Base
) -> None:
    run = serve()
    found = run.decide()
    assert (found.kind, found.challenger, found.champion) == (
        "refresh",
        base.challenger.digest,
        base.stable.digest,
    )
    assert failed(found) == {} or found.verdict == "fail"
    (estimate,) = found.estimates
    assert estimate.estimator == "balanced_dr"
    assert not [one for one in estimate.findings if one.kind in ("replay", "leak", "propensity")]
    assert found.click_ece is not None
    assert found.budget is not None
    for package in (base.stable, base.challenger):
        assert (run.folder / "data/canary" / target_file(package.digest)).exists()
    assert run.decide() == found
    # Its version keeps it. Then neither the lake nor who is champion by now matters any more.
    lineage = Lineage("simulator", str(WEEK), "d" * 40, "r" * 64)
    tried = run.registry.get(NAME, 2)
    promote.conclude(run.registry, tried, replace(found, promote=True), lineage)
    (kept,) = tried_of(run.registry.get(NAME, 2))
    assert (kept.commit, kept.decision.digest) == ("d" * 40, found.digest)
    champion = run.registry.by_alias(NAME, CHAMPION)
    assert champion is not None
    assert champion.version == 2
    trials.forget(run.home / "lake", "simulator", WEEK)
    assert run.decide().digest == found.digest


def test_another_recipe_needs_a_gain_and_goes_on_while_none_is_shown(serve: Serve) -> None:
    run = serve()
    run.registry.set_tag(run.registry.get(NAME, 2), "recipe", "s" * 64)
    found = run.decide()
    assert found.kind == "new recipe"
    assert found.again == (found.verdict == "inconclusive")
    (lift,) = (one for one in found.checks if one.name == "value_lift")
    assert lift.threshold == 0.0


def swapped(run: Run, base: Base) -> None:
    run.rewrite(challenger=base.stable.digest, champion=base.challenger.digest)


def alike(run: Run, base: Base) -> None:
    run.rewrite(champion=base.challenger.digest)


def unknown_champion(run: Run, base: Base) -> None:
    run.rewrite(champion="f" * 64)


def unknown_challenger(run: Run, base: Base) -> None:
    run.rewrite(challenger="f" * 64)


def other_salt(run: Run, base: Base) -> None:
    run.rewrite(salt="another")


def moved(run: Run, base: Base) -> None:
    third = write_package(run.folder / "third", base.world, temperature=2.0)
    run.registry.set_alias(registered(run.registry, third), CHAMPION)


def stopped(run: Run, base: Base) -> None:
    phases = (*run.trial.phases, replace(run.trial.phases[-1], share=0.0, since=WEEK.end - 1))
    run.rewrite(phases=phases)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (swapped, "log_replay"),
        (alike, "packages"),
        (unknown_champion, "packages"),
        (unknown_challenger, "evidence"),
        (other_salt, "misassigned"),
        (moved, "packages"),
        (stopped, "harm"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_what_is_wrong_is_named_and_promotes_nothing(
    serve: Serve, base: Base, spoil: Callable[[Run, Base], None], check: str
) -> None:
    run = serve()
    spoil(run, base)
    found = run.decide()
    assert (found.verdict, found.promote, found.again) == ("fail", False, False)
    assert check in failed(found)
    assert check in found.reason
    assert found.todo


def test_an_arm_that_nobody_was_sent_to(serve: Serve) -> None:
    found = serve(start_share=1e-9, share=2e-9).decide()
    assert (found.verdict, found.promote) == ("fail", False)
    assert failed(found)["log_arm"] == "the canary arm served no slate"


def test_a_week_without_a_trial_leaves_the_champion(serve: Serve) -> None:
    run = serve()
    trials.forget(run.home / "lake", "simulator", WEEK)
    found = run.decide()
    assert (found.verdict, found.promote) == ("no trial", False)
    assert "roiflow approve" in found.todo
