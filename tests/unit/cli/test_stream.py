"""`roiflow stream` without a server: the served log into journal, dead letters and lake."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roiflow.cli import main as cli
from roiflow.data import event_lake
from roiflow.errors import ServiceError
from roiflow.stream.journal import last_state
from roiflow.stream.served_log import EventLog
from tests.unit.stream.streams import behaviour, click

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path))
    for name in ("KAFKA", "REDIS_URL"):
        monkeypatch.delenv(f"ROIFLOW_{name}", raising=False)
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, ["stream", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def write(home: Path, *names: str) -> None:
    log, now = EventLog(home / "served"), time.time_ns() // 1000
    for name in names:
        log.write([behaviour(name, "u", "a", now)])
    log.write([click("r:1", now - 30 * 86_400_000_000, now)])
    log.close()


def test_what_is_in_the_log_is_taken_once(home: Path) -> None:
    write(home, "b1", "b2")
    assert "behaviour 2, late 1" in call("consume", "--until-idle", "0.1")
    write(home, "b2", "b3")
    assert "behaviour 3, duplicate 1, late 2" in call("consume", "--until-idle", "0.1")
    assert "2 parts in the lake" in call("status")
    parts = event_lake.parts(home / "lake")
    assert sum(part.read().num_rows for part in parts) == 3
    letters = "".join(path.read_text() for path in (home / "stream/dead-letters").iterdir())
    assert letters.count('"reason":"late"') == 2


def test_status_before_the_first_event(home: Path) -> None:
    assert "nothing was taken" in call("status")


def test_without_a_broker_nothing_is_sent(home: Path) -> None:
    with pytest.raises(ServiceError, match="ROIFLOW_KAFKA"):
        call("forward")


def test_a_consumer_that_is_asked_to_stop_puts_all_into_the_lake(home: Path) -> None:
    write(home, "b1", "b2")
    command = [sys.executable, "-m", "roiflow.cli.main", "stream", "consume"]
    environment = os.environ | {"ROIFLOW_HOME": str(home)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not last_state(home / "stream/journal").counts and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(ServiceError, match=f"process {process.pid} consumes already"):
            call("consume")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"behaviour 2" in said
    assert len(event_lake.parts(home / "lake")) == 1


def test_a_deployment_that_cannot_be_followed_is_said_and_events_are_taken(home: Path) -> None:
    arm = {"arm": "stable", "percent": 100.0, "tag": "ad_ranker:gone", "limits": "0f3a"}
    (home / "deployment.json").write_text(json.dumps({"arms": [arm]}))
    write(home, "b1")
    said = call("consume", "--until-idle", "1.5")
    assert said.count("what is deployed: no online store: set ROIFLOW_REDIS_URL") == 1
    assert "behaviour 1" in said
    with pytest.raises(ServiceError, match="ROIFLOW_REDIS_URL"):
        call("status")
