"""The Bento as bentoml builds it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Bentos, Promoted, Registered
from roiflow.bundle import build_bento, find_bento, requirements, store
from roiflow.deployment import local, processes
from roiflow.deployment.release import load_online
from roiflow.errors import PackageError, ServiceError
from roiflow.jobs import bundle
from roiflow.registry import Evidence, Registry
from roiflow.settings import Settings
from roiflow.stream import served_log
from tests.artefacts import artefacts, naming
from tests.records import leave, promoted
from tests.unit.serving.packages import tiny_world, write_package

NAME = "ad_ranker_simulator"
SERVICE = Path(__file__).parents[2] / "bentos" / "ad_ranker"
LIMITS = SERVICE.parents[1] / "deploy" / "base" / "limits.json"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bento")
    return write_package(folder / "package", tiny_world(folder)).folder


def test_built_once_by_content(package: Path, tmp_path: Path) -> None:
    first = build_bento(package, "7", SERVICE, tmp_path, {"source": "simulator"})
    written = (first.folder / "bento.yaml").stat().st_mtime_ns
    assert build_bento(package, "7", SERVICE, tmp_path, {"source": "simulator"}) == first
    assert (first.folder / "bento.yaml").stat().st_mtime_ns == written
    assert find_bento(first.tag, tmp_path) == first
    described = yaml.safe_load((first.folder / "bento.yaml").read_text())
    assert described["labels"] == {"model_version": "7", "source": "simulator"}
    names = {path.name for path in (first.folder / "src").rglob("*")}
    assert {"service.py", "schemas.py", "manifest.json", "recommender.py"} <= names
    assert not names & {"__pycache__", "registry.py", "cli.py", "simulator"}
    pinned = (first.folder / "env" / "python" / "requirements.txt").read_text()
    assert set(requirements().split()) <= set(pinned.split())
    assert not any(heavy in pinned for heavy in ("torch", "mlflow", "airflow"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_home_holds_no_place_of_this_machine(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
    registry = Registry(Settings().registry_uri, tmp_path)
    tags = {"source": "simulator", "week": "2026-W02", "commit": "c" * 40, "verdict": "pass"}
    made = registry.register(NAME, package, tags, Evidence({}, {}, (), "# Week"))
    registry.promote(made, None, "pass", "canary", "rule: evidence", 10.0)
    run = tmp_path / "runs" / "simulator-2026-W02"
    leave(run, made, promoted(champion=made.digest))
    read = (Registered, Decision, Promoted)
    registered, screen, promotion = (run / kind.place for kind in read)
    bundle.main(registered, screen, promotion, SERVICE, run / Bentos.place)
    assert Bentos.of(run).canary is None
    named = Bentos.of(run).stable
    assert find_bento(named.tag, tmp_path).digest == named.digest == made.digest
    assert len(list(artefacts(tmp_path))) > 100
    assert naming(tmp_path, tmp_path, SERVICE.parents[1]) == []


def test_an_altered_package_is_not_bundled(package: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    shutil.copytree(package, altered)
    (altered / "scorer.onnx").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"scorer\.onnx: altered"):
        build_bento(altered, "1", SERVICE, tmp_path, {})
    assert not (tmp_path / "bentoml").exists()


def test_a_service_that_does_not_import_is_reported(package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "service.py").write_text("import nothing_of_that_name\n")
    (broken / ".bentoignore").write_text("")
    with pytest.raises(ServiceError, match="nothing_of_that_name"):
        build_bento(package, "1", broken, tmp_path, {})
    assert not list((tmp_path / "bentoml").glob("bentos/ad_ranker/*/bento.yaml"))


def test_bentoml_serves_it(package: Path, tmp_path: Path) -> None:
    """The same slate route inside BentoML's own server, and through its API."""
    bento = build_bento(package, "7", SERVICE, tmp_path, {})
    (redis,) = processes.start([local.redis(tmp_path, processes.free_port())], tmp_path)
    # What can be shown is the store's, and no store began without a snapshot.
    assert load_online(bento, package.parent / "features" / "online", redis.address)
    port = processes.free_port()
    command = (sys.executable, "-m", "bentoml", "serve", bento.tag, "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    environment = {
        "BENTOML_HOME": str(store(tmp_path)),
        "ROIFLOW_HOME": str(tmp_path),
        "ROIFLOW_LIMITS": str(LIMITS),
        "ROIFLOW_REDIS_URL": redis.address,
    }
    server = processes.Server(
        "bento",
        (*command, "--host", "127.0.0.1"),
        address,
        processes.http_ready(f"{address}/readyz"),
        environment,
        seconds=120,
    )
    body = {"request_id": "r", "user_id": "u00", "placement": "search", "device": "phone"}
    try:
        processes.start([server], tmp_path)
        lean = httpx.post(f"{address}/v1/slate", json=body).json()
        through = httpx.post(f"{address}/slate", json={"request": body}).json()
        wrong = httpx.post(f"{address}/v1/slate", json=body | {"user_id": 7})
        early = body | {"event_time": 4_000_000_000_000_000}
        refused = httpx.post(f"{address}/slate", json={"request": early})
    finally:
        processes.stop_all(tmp_path)
    assert refused.status_code == 400
    assert "event_time is more than 60 s after known_time" in refused.text
    assert lean.keys() == through.keys()
    assert {ad["position"] for ad in lean["ads"]} == {1, 2, 3}
    assert wrong.status_code == 400
    assert "$.user_id" in wrong.json()["error"]
    logged = served_log.read(tmp_path / "served", 0, 1 << 60)["impressions"]
    assert logged.num_rows == 6


def test_a_service_without_its_package_ends_in_one_line(tmp_path: Path) -> None:
    for file in SERVICE.glob("*.py"):
        shutil.copyfile(file, tmp_path / file.name)
    (tmp_path / "requirements.txt").write_text(requirements())
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--factory", "service:app", "--port", "0"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(SERVICE.parents[1] / "src"),
            "ROIFLOW_LIMITS": str(LIMITS),
            "ROIFLOW_REDIS_URL": "redis://127.0.0.1:1/0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"PackageError: {tmp_path / 'package'}")
