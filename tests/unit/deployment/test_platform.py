"""What the platform's Airflow was started with, against what is set now."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from roiflow.deployment import platform, processes
from roiflow.deployment.processes import Server
from roiflow.errors import ServiceError
from roiflow.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home in which something runs as the scheduler, without a place of its own."""
    for name in [name for name in os.environ if name.startswith("ROIFLOW_")]:
        monkeypatch.delenv(name)
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    sleeper = Server(platform.SCHEDULER, command, "x", lambda: True, secrets=True)
    processes.start([sleeper], tmp_path)
    yield Settings(home=tmp_path)
    platform.down(Settings(home=tmp_path))


@pytest.mark.parametrize("name", ["ROIFLOW_SQL", "ROIFLOW_MLFLOW_URI"])
def test_another_place_than_the_scheduler_s_is_said_by_its_name_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "postgresql://me:hunter2@db/ads")
    with pytest.raises(ServiceError, match=f"with another {name} than is set now") as said:
        platform.require_same_places(settings)
    assert "hunter2" not in str(said.value)


def test_a_folder_is_handed_to_each_run_and_may_differ(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_DATA_FOLDER", "/elsewhere")
    monkeypatch.setenv("ROIFLOW_TEST_DATA", "/none/of/ours")
    platform.require_same_places(settings)


def test_where_no_airflow_runs_any_place_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_SQL", "postgresql://me:hunter2@db/ads")
    platform.require_same_places(Settings(home=tmp_path / "empty"))
    with pytest.raises(ServiceError, match="no Airflow runs here: roiflow up"):
        platform.open_airflow(Settings(home=tmp_path / "empty"))
