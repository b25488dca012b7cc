"""The registry against a real MLflow store in sqlite."""

import json
import math
import socket
from pathlib import Path

import pytest

from roiflow.artefacts.decision import Check, Override, TrialDecision
from roiflow.artefacts.run import Lineage, Promoted
from roiflow.errors import RegistryError
from roiflow.jobs import promote as promote_job
from roiflow.jobs import register as register_job
from roiflow.registry import (
    CHALLENGER,
    CHAMPION,
    Evidence,
    Registry,
    flatten,
    read_digest,
)
from tests.records import decision, trial_decision

NAME = "ad_ranker_simulator"
TAGS = {"source": "simulator", "week": "2026-W04", "commit": "c" * 40, "verdict": "pass"}

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def package(folder: Path, digest: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"digest": digest}))
    (folder / "candidates").mkdir()
    (folder / "candidates" / "trees.json").write_text(digest * 2)
    return folder


def evidence(*files: Path) -> Evidence:
    # A category's name may hold what MLflow refuses in the name of a metric.
    metrics = {"evaluate.click_auc": 0.75, "fit_labels.mean_delay_hours.CANDY (BARS)": 2.5}
    return Evidence({"ingest.week": "2026-W04"}, metrics, files, "# Week")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of one store; making its tables takes seconds."""
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(store: Path) -> Registry:
    return Registry(f"sqlite:///{store}/mlflow.db", store)


def test_one_digest_is_one_version(registry: Registry, tmp_path: Path) -> None:
    folder = package(tmp_path / "package", "one-digest")
    first = registry.register(NAME, folder, TAGS, evidence(folder / "manifest.json"))
    again = registry.register(NAME, folder, {**TAGS, "week": "2026-W05"}, evidence())
    assert again == first
    assert first.tags == {**TAGS, "digest": "one-digest"}
    other = registry.register(NAME, package(tmp_path / "other", "other"), TAGS, evidence())
    assert other.version == first.version + 1
    assert registry.get(NAME, first.version) == first


def test_the_page_of_a_version_shows_metrics_and_parameters(
    registry: Registry, store: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    made = registry.register(NAME, package(tmp_path / "p", "page"), TAGS, evidence())
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    version = client.get_model_version(NAME, str(made.version))
    assert version.source
    assert version.run_id
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    assert version.description == "# Week"
    assert {metric.key: metric.value for metric in model.metrics or ()} == {
        "evaluate.click_auc": 0.75,
        "fit_labels.mean_delay_hours.CANDY _BARS_": 2.5,
    }
    assert model.params == {"ingest.week": "2026-W04"}
    assert client.get_run(version.run_id).info.status == "FINISHED"


def test_a_package_comes_back_whole_and_once(
    registry: Registry, store: Path, tmp_path: Path
) -> None:
    import mlflow

    folder = package(tmp_path / "package", "whole")
    made = registry.register("ad_ranker_whole", folder, TAGS, evidence())
    registry.set_alias(made, CHAMPION)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/another_process.db")
    found = Registry(f"sqlite:///{store}/mlflow.db", store).champion("ad_ranker_whole")
    assert found is not None
    version, back = found
    assert version == made.version
    assert read_digest(back) == "whole"
    names = sorted(path.relative_to(back) for path in back.rglob("*"))
    assert names == sorted(path.relative_to(folder) for path in folder.rglob("*"))
    before = back.stat().st_mtime_ns
    assert registry.package(made) == back
    assert back.stat().st_mtime_ns == before


def test_a_home_that_was_moved_still_gives_its_packages(tmp_path: Path) -> None:
    then, now = tmp_path / "then", tmp_path / "now"
    folder = package(tmp_path / "package", "moved")
    made = Registry(f"sqlite:///{then}/mlflow.db", then).register(NAME, folder, TAGS, evidence())
    then.rename(now)
    back = Registry(f"sqlite:///{now}/mlflow.db", now).package(made)
    assert (back / "candidates" / "trees.json").read_text() == "moved" * 2


def test_no_champion_before_the_first(registry: Registry) -> None:
    assert registry.champion("ad_ranker_none") is None
    assert registry.by_alias(NAME, "nobody") is None


def test_an_altered_stored_package_is_refused(
    registry: Registry, store: Path, tmp_path: Path
) -> None:
    made = registry.register("ad_ranker_alter", package(tmp_path / "p", "good"), TAGS, evidence())
    for manifest in (store / "artifacts").rglob("manifest.json"):
        if "good" in manifest.read_text():
            manifest.write_text(json.dumps({"digest": "bad"}))
    with pytest.raises(RegistryError, match="digest bad, registered was good"):
        registry.package(made)
    assert not (store / "packages" / "good").exists()


def test_a_promotion_is_logged_once(registry: Registry, tmp_path: Path) -> None:
    name = "ad_ranker_log"
    first, second = (
        registry.register(name, package(tmp_path / digest, digest), TAGS, evidence())
        for digest in ("d1", "d2")
    )
    assert registry.promote(first, None, "pass", "canary", "rule: evidence", 10.0)
    assert not registry.promote(first, None, "pass", "canary", "rule: evidence", 11.0)
    assert registry.promote(second, "d1", "inconclusive", "Ada", "holiday week", 12.0)
    lines = [
        (line.version, line.previous, line.by, line.time) for line in registry.promotions(name)
    ]
    assert lines == [(1, None, "canary", 10.0), (2, 1, "Ada", 12.0)]
    found = registry.by_alias(name, CHAMPION)
    assert found is not None
    assert found.version == 2


def test_a_missing_version_is_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=f"{NAME} version 99"):
        registry.get(NAME, 99)


class TestAway:
    """A store that cannot be asked is one line with its place, and no password."""

    def refused(self, uri: str, home: Path) -> str:
        with pytest.raises(RegistryError) as caught:
            Registry(uri, home).by_alias(NAME, CHAMPION)
        line = str(caught.value)
        assert "\n" not in line
        assert line.startswith(f"looking up {NAME}@champion: ")
        return line

    def test_a_server_that_does_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        line = self.refused(f"http://me:hunter2@127.0.0.1:{port}", tmp_path)
        assert f"http://127.0.0.1:{port}" in line
        assert "hunter2" not in line

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text("words " * 1000)
        line = self.refused(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)
        assert f"{tmp_path}/mlflow.db: file is not a database: see that ROIFLOW_MLFLOW_URI" in line

    @pytest.mark.parametrize("driver", ["postgresql", "postgresql+nobody"])
    def test_a_database_whose_driver_is_not_installed(self, driver: str, tmp_path: Path) -> None:
        line = self.refused(f"{driver}://me:hunter2@127.0.0.1/mlflow", tmp_path)
        assert "hunter2" not in line
        assert "127.0.0.1/mlflow" in line


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"manifest\.json"):
        read_digest(tmp_path)


def test_flatten_gives_dotted_leaves_in_order() -> None:
    assert list(flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [3]})) == [
        ("a.b", 1),
        ("a.c.d", 2),
        ("e", [3]),
    ]


class TestJobs:
    """Register and promote as the DAG calls them."""

    @pytest.fixture
    def run(self, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("ROIFLOW_HOME", str(store))
        monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
        monkeypatch.chdir(tmp_path)
        package(tmp_path / "package", tmp_path.name)
        for folder in ("features", "evaluation", "metrics", "plots"):
            (tmp_path / folder).mkdir()
        (tmp_path / "features" / "vocabulary.parquet").write_bytes(b"words")
        (tmp_path / "evaluation" / "report.json").write_text("{}")
        (tmp_path / "metrics" / "evaluate.json").write_text(
            json.dumps({"auc": 0.75, "roi": {"low": math.nan}, "note": "text", "ok": True})
        )
        (tmp_path / "params.yaml").write_text("gate: {seed: 7}\n")
        Lineage(tmp_path.name[:20], "2026-W04", "a" * 40, "f" * 64).write(tmp_path / "lineage.json")
        return tmp_path

    def decide(self, run: Path, **values: object) -> None:
        check = Check("auc", 0.75, 0.7, 0.8, 0.6, "pass", "")
        whole = {"checks": (check,), "challenger": run.name, "digest": "decision"}
        decision(**{**whole, **values}).write(run / "gate.json")

    def call(self, trial: TrialDecision | None = None) -> None:
        (trial or trial_decision()).write(Path("trial.json"))
        folders = "package features evaluation metrics plots"
        files = "gate.json lineage.json params.yaml registered.json"
        register_job.main(*map(Path, f"{folders} {files}".split()))
        files = "trial.json gate.json lineage.json registered.json promoted.json"
        promote_job.main(*map(Path, files.split()))

    def test_twice_is_once(self, run: Path, registry: Registry, store: Path) -> None:
        self.decide(run)
        name = f"ad_ranker_{run.name[:20]}"
        self.call()
        first = (run / "promoted.json").read_text()
        self.call()
        assert (run / "promoted.json").read_text() == first
        assert [(line.version, line.why) for line in registry.promotions(name)] == [
            (1, "rule: first model")
        ]
        for alias in (CHAMPION, CHALLENGER):
            found = registry.by_alias(name, alias)
            assert found is not None
            assert found.tags["decision"] == "decision"
        published = store / "lake" / run.name[:20] / "vocabulary" / "week=2026-W04.parquet"
        assert published.read_bytes() == b"words"

    def test_a_refused_package_moves_no_alias(
        self, run: Path, registry: Registry, store: Path
    ) -> None:
        self.decide(run, verdict="fail", promote=False, rule="none", reason="auc is low")
        self.call()
        name = f"ad_ranker_{run.name[:20]}"
        assert registry.by_alias(name, CHALLENGER) is None
        assert registry.by_alias(name, CHAMPION) is None
        assert Promoted.read(run / "promoted.json").reason == "auc is low"
        assert "No version is champion yet." in (store / "edge/pages/index.html").read_text()

    def test_an_override_is_signed(self, run: Path, registry: Registry) -> None:
        self.decide(
            run,
            verdict="inconclusive",
            rule="override",
            override=Override("Ada", "holiday week"),
        )
        self.call()
        (line,) = registry.promotions(f"ad_ranker_{run.name[:20]}")
        assert (line.by, line.why, line.verdict) == ("Ada", "holiday week", "inconclusive")

    def test_a_decision_on_another_package_is_refused(self, run: Path) -> None:
        self.decide(run, challenger="someone else")
        with pytest.raises(RegistryError, match="decides on someone else"):
            self.call()

    def test_a_champion_that_changed_meanwhile_stops_the_promotion(self, run: Path) -> None:
        self.decide(run, champion="an older champion")
        with pytest.raises(
            RegistryError, match="the champion now is None: clear the run's tasks from canary on"
        ):
            self.call()

    def test_metrics_are_the_finite_numbers(self, run: Path) -> None:
        assert dict(register_job.numbers(run / "metrics")) == {
            "evaluate.auc": 0.75,
            "evaluate.ok": 1.0,
        }
