"""Who becomes champion, on a real MLflow store: cut short at every step, and by a person's name."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roiflow import registry as registry_module
from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.run import Lineage, Promoted, Registered
from roiflow.errors import GateError, RegistryError
from roiflow.jobs import approve, promote
from roiflow.registry import CHAMPION, Evidence, Registry, tried_of
from roiflow.serving.package import Package
from tests import records
from tests.records import leave, promoted
from tests.unit.evaluation.weeks import PARAMS
from tests.unit.serving.packages import ROOT, tiny_world, write_package

NAME = "ad_ranker_simulator"
WEEKS = {"A": "2026-W03", "B": "2026-W04"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Cut(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables; making them takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    Registry(f"sqlite:///{folder}/mlflow.db", folder).by_alias(NAME, CHAMPION)
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    folder = tmp_path_factory.mktemp("packages")
    world = tiny_world(folder / "world")
    return {
        "A": write_package(folder / "a", world),
        "B": write_package(folder / "b", world, temperature=3.0),
    }


@pytest.fixture
def home(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copyfile(tables, tmp_path / "mlflow.db")
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
    return tmp_path


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry(f"sqlite:///{home}/mlflow.db", home)


@pytest.fixture
def versions(home: Path, registry: Registry, packages: dict[str, Package]) -> dict[str, Registered]:
    """Two finished runs without propensities, whose packages are registered: 1 is A, 2 is B."""
    return {name: finished(home, registry, packages[name], WEEKS[name]) for name in WEEKS}


def finished(home: Path, registry: Registry, package: Package, week: str) -> Registered:
    run = home / "runs" / f"simulator-{week}"
    leave(run, records.report(propensities_logged=False, models={}))
    (run / "data/package").symlink_to(package.folder)
    shutil.copyfile(ROOT / "params.yaml", run / "params.yaml")
    tags = {"source": "simulator", "week": week, "commit": "c" * 40, "verdict": "inconclusive",
            "rule": "none", "decision": "first", "champion_then": "none"}  # fmt: skip
    return registry.register(NAME, package.folder, tags, Evidence({}, {}, (), "# Week"))


def decision(version: Registered, over: Registered | None) -> Decision:
    champion = over.digest if over else None
    return records.decision(challenger=version.digest, champion=champion)


def champion(registry: Registry) -> int | None:
    found = registry.by_alias(NAME, CHAMPION)
    return None if found is None else found.version


def log(registry: Registry) -> list[tuple[int, int | None, str]]:
    return [(line.version, line.previous, line.by) for line in registry.promotions(NAME)]


@contextmanager
def ends_at(owner: object, step: str, how: BaseException | None = None) -> Iterator[None]:
    """The block does not get past a step of promoting."""
    end = how or Cut()

    def fail(*_: object) -> None:
        raise end

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(type(end)):
            yield


STEPS = {
    "before it is written down": (registry_module, "_json"),
    "before the alias moves": (Registry, "set_alias"),
    "before the line": (Registry, "_keep"),
}


class TestCutShort:
    """One step is not reached; the retry comes to the same as one run would have."""

    @pytest.mark.parametrize("step", STEPS)
    def test_a_retry_moves_the_alias_and_logs_it_once(
        self, registry: Registry, versions: dict[str, Registered], step: str
    ) -> None:
        with ends_at(*STEPS[step]):
            promote.promote(registry, versions["A"], decision(versions["A"], None))
        for _ in range(2):
            promote.promote(registry, versions["A"], decision(versions["A"], None))
            assert champion(registry) == 1
            assert log(registry) == [(1, None, "screen")]

    def test_a_line_that_was_written_and_not_ticked_off_stays_one(
        self, registry: Registry, versions: dict[str, Registered], home: Path
    ) -> None:
        promote.promote(registry, versions["A"], decision(versions["A"], None))
        shutil.copyfile(home / "promotions.jsonl", home / "promotion.begun.json")
        promote.promote(registry, versions["B"], decision(versions["B"], versions["A"]))
        assert log(registry) == [(1, None, "screen"), (2, 1, "screen")]

    def test_a_move_that_nobody_retries_is_logged_by_the_next(
        self, registry: Registry, versions: dict[str, Registered]
    ) -> None:
        with ends_at(Registry, "_keep"):
            promote.promote(registry, versions["A"], decision(versions["A"], None))
        promote.promote(registry, versions["B"], decision(versions["B"], versions["A"]))
        assert champion(registry) == 2
        assert log(registry) == [(1, None, "screen"), (2, 1, "screen")]

    def test_a_refused_move_is_no_line(
        self, registry: Registry, versions: dict[str, Registered]
    ) -> None:
        with ends_at(Registry, "set_alias", RegistryError("the store is locked")):
            promote.promote(registry, versions["A"], decision(versions["A"], None))
        assert log(registry) == []
        promote.promote(registry, versions["B"], decision(versions["B"], None))
        assert log(registry) == [(2, None, "screen")]


def test_a_repeated_run_does_not_turn_back_later_weeks(
    registry: Registry, versions: dict[str, Registered]
) -> None:
    first = decision(versions["A"], None)
    promote.promote(registry, versions["A"], first)
    promote.promote(registry, versions["B"], decision(versions["B"], versions["A"]))
    promote.promote(registry, versions["A"], first)
    assert champion(registry) == 2
    assert len(log(registry)) == 2


class TestTrial:
    """What was on trial becomes champion by its trial's decision, and what is tried next."""

    LINEAGE = Lineage("simulator", "2026-W05", "d" * 40, "r" * 64)

    def trial(self, versions: dict[str, Registered], **changed: Any) -> TrialDecision:
        """B beside A, in the week after both."""
        found = {"challenger": versions["B"].digest, "champion": versions["A"].digest}
        passed = {"verdict": "pass", "promote": True, "reason": "", "kind": "refresh"}
        found |= {"week": "2026-W05"}
        return records.trial_decision(**{**found, **passed, **changed})

    def next_up(
        self, versions: dict[str, Registered], trial: TrialDecision, **decision: Any
    ) -> str | None:
        """Who is tried after it, where the week's own package is C."""
        made = Registered(NAME, 3, "c" * 64, {"source": "simulator"})
        whole = {"challenger": made.digest, "promote": False, "rule": "none", **decision}
        return promote.outcome(made, records.decision(**whole), trial, versions["B"]).challenger

    def test_evidence_promotes_once_and_is_kept_with_the_version(
        self, registry: Registry, versions: dict[str, Registered], home: Path
    ) -> None:
        from mlflow import MlflowClient

        promote.promote(registry, versions["A"], decision(versions["A"], None))
        for _ in range(2):
            assert not promote.conclude(registry, versions["B"], self.trial(versions), self.LINEAGE)
            assert champion(registry) == 2
            assert log(registry)[1:] == [(2, 1, "canary")]
        (tried,) = tried_of(registry.get(NAME, 2))
        assert (tried.commit, tried.decision) == ("d" * 40, self.trial(versions))
        assert registry.promotions(NAME)[-1].why == "rule: evidence"
        page = MlflowClient(f"sqlite:///{home}/mlflow.db").get_model_version(NAME, "2").description
        assert page is not None
        assert page.startswith("# Week\n\n## On trial in 2026-W05\n\n**pass**; a refresh beside")
        assert page.count("## On trial") == 1

    @pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
    def test_nothing_else_promotes(
        self, registry: Registry, versions: dict[str, Registered], verdict: str
    ) -> None:
        promote.promote(registry, versions["A"], decision(versions["A"], None))
        found = self.trial(versions, verdict=verdict, promote=False)
        assert promote.conclude(registry, versions["B"], found, self.LINEAGE) == ""
        assert champion(registry) == 1
        assert registry.get(NAME, 2).tags["verdict_of_trial"] == verdict

    def test_a_champion_that_somebody_chose_meanwhile_stays(
        self, registry: Registry, versions: dict[str, Registered]
    ) -> None:
        promote.promote(registry, versions["A"], decision(versions["A"], None))
        found = self.trial(versions, champion="e" * 64)
        held = promote.conclude(registry, versions["B"], found, self.LINEAGE)
        assert held == f"the champion was changed by hand: the trial was against {'e' * 64}"
        assert champion(registry) == 1

    def test_the_newest_package_is_tried_next_unless_a_trial_goes_on(
        self, versions: dict[str, Registered]
    ) -> None:
        over = {"champion": versions["A"].digest}
        passed = self.trial(versions)
        assert self.next_up(versions, passed, **over) == "c" * 64
        assert self.next_up(versions, passed, **over, verdict="inconclusive") == "c" * 64
        assert self.next_up(versions, passed, **over, verdict="fail") is None
        more = self.trial(versions, verdict="inconclusive", promote=False, again=True)
        assert self.next_up(versions, more, **over) == versions["B"].digest
        # Beside the world's own policy a first model is tried; where nothing serves, it is not.
        assert self.next_up(versions, records.trial_decision(), champion=None) == "c" * 64
        made = Registered("ad_ranker_files", 1, "c" * 64, {"source": "files"})
        first = records.decision(challenger="c" * 64, promote=False, rule="none")
        alone = promote.outcome(made, first, records.trial_decision(), None)
        assert (alone.champion, alone.challenger) == (None, None)


class TestOverride:
    def replaced(self, registry: Registry, versions: dict[str, Registered]) -> None:
        promote.promote(registry, versions["A"], decision(versions["A"], None))
        promote.promote(registry, versions["B"], decision(versions["B"], versions["A"]))

    def test_it_returns_to_an_earlier_champion_once(
        self, registry: Registry, versions: dict[str, Registered], home: Path
    ) -> None:
        self.replaced(registry, versions)
        newest = home / "runs" / "simulator-2026-W04"
        leave(newest, promoted(champion=versions["B"].digest, challenger="c" * 64))
        for _ in range(2):
            approve.main("simulator", 1, "Ada", "B shows nothing new")
            assert champion(registry) == 1
            assert log(registry) == [(1, None, "screen"), (2, 1, "screen"), (1, 2, "Ada")]
        tags = registry.get(NAME, 1).tags
        assert (tags["override_who"], tags["champion_then"]) == ("Ada", versions["B"].digest)
        run = home / "runs" / "simulator-2026-W03"
        assert Decision.of(run).digest == tags["decision"]
        # The next week's serving looks into the newest run: another champion, the same challenger.
        left = Promoted.of(newest)
        assert (left.champion, left.challenger) == (versions["A"].digest, "c" * 64)
        assert (left.version, left.rule, left.reason) == (1, "override", "B shows nothing new")

    def test_there_and_back_with_the_same_words(
        self, registry: Registry, versions: dict[str, Registered]
    ) -> None:
        self.replaced(registry, versions)
        for version in (1, 2, 1, 2):
            approve.main("simulator", version, "Ada", "the other is worse")
            assert champion(registry) == version
        assert [line[0] for line in log(registry)] == [1, 2, 1, 2, 1, 2]

    @pytest.mark.parametrize("step", STEPS)
    def test_cut_short_it_is_finished_by_the_same_signature(
        self, registry: Registry, versions: dict[str, Registered], step: str
    ) -> None:
        self.replaced(registry, versions)
        with ends_at(*STEPS[step]):
            approve.main("simulator", 1, "Ada", "B shows nothing new")
        assert registry.get(NAME, 1).tags["decision"] == "first"
        approve.main("simulator", 1, "Ada", "B shows nothing new")
        assert champion(registry) == 1
        assert log(registry)[2:] == [(1, 2, "Ada")]
        assert registry.get(NAME, 1).tags["override_who"] == "Ada"

    def test_refused_it_leaves_tags_and_champion(
        self, registry: Registry, versions: dict[str, Registered], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.replaced(registry, versions)
        before = registry.get(NAME, 1).tags
        other = PARAMS.model_copy()
        monkeypatch.setattr(approve, "load_params", lambda path: self.meanwhile(registry, other))
        with pytest.raises(RegistryError, match="the champion now is"):
            approve.main("simulator", 1, "Ada", "B shows nothing new")
        assert registry.get(NAME, 1).tags == before
        assert champion(registry) == 3
        assert len(log(registry)) == 2

    def meanwhile(self, registry: Registry, params: Any) -> Any:
        """Somebody moves the alias by hand while the gate is at work."""
        home = Path(registry.package(registry.get(NAME, 2))).parent
        folder = home / "third"
        folder.mkdir()
        (folder / "manifest.json").write_text(json.dumps({"digest": "third"}))
        tags = registry.get(NAME, 1).tags
        made = registry.register(NAME, folder, tags, Evidence({}, {}, (), ""))
        registry.set_alias(made, CHAMPION)
        return params

    def test_the_champion_needs_no_other_signature(
        self, registry: Registry, versions: dict[str, Registered]
    ) -> None:
        self.replaced(registry, versions)
        approve.main("simulator", 1, "Ada", "B shows nothing new")
        with pytest.raises(GateError, match="version 1: is the champion already"):
            approve.main("simulator", 1, "Grace", "me too")
        assert len(log(registry)) == 3
