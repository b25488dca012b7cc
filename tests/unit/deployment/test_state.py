"""How the platform is, from files whose content is known."""

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from roiflow.artefacts.decision import Decision
from roiflow.data.events import EVENTS
from roiflow.deployment import processes
from roiflow.deployment.processes import Server
from roiflow.deployment.state import (
    Champion,
    Served,
    Stream,
    airflow_password,
    left,
    moment,
    platform_state,
)
from roiflow.settings import Settings
from roiflow.stream.journal import Journal, State
from tests.records import decision, leave
from tests.trials import tried
from tests.unit.deployment.homes import BENTO, DIGESTS, MODEL, write, write_home, write_run


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    yield Settings(
        home=tmp_path, redis_url=None, mlflow_uri=None, sql=SecretStr("postgres://u:p@h")
    )
    processes.stop_all(tmp_path)


def start(home: Path, name: str, address: str) -> None:
    processes.start([Server(name, ("sleep", "60"), address, lambda: True)], home)


def test_an_empty_home_says_what_to_do(settings: Settings) -> None:
    state = platform_state(settings, 0.0)
    assert (state.champions, state.served, state.runs, state.stream) == ((), (), (), None)
    assert not any(door.runs for door in state.doors)
    assert [hint.then for hint in state.hints] == [
        "roiflow up", "make demo, or trigger weekly_training in Airflow"
    ]  # fmt: skip


def test_runs_come_newest_first_with_what_their_jobs_wrote(settings: Settings) -> None:
    write_home(settings.home)
    last, first = platform_state(settings, 0.0).runs
    assert (first.week, first.rule, first.version) == ("2026-W04", "first model", 1)
    assert (last.week, last.verdict, last.finished) == ("2026-W05", "pass", True)
    assert last.trial == tried(0.02, 0.06)
    assert last.roi == (0.31, 0.12, 0.48)
    assert last.pages == ("report", "drift")
    assert last.page("report") == "/runs/simulator-2026-W05/report/report.html"


def test_the_champion_is_the_promotion_logs_where_mlflow_does_not_run(settings: Settings) -> None:
    write_home(settings.home)
    state = platform_state(settings, 0.0)
    assert state.champions == (
        Champion(MODEL, 1, "2026-W04", DIGESTS["2026-W04"], "the promotion log"),
    )
    assert state.served == (Served("stable", 100.0, BENTO, 1),)


def test_an_override_of_an_older_week_does_not_make_it_the_last(settings: Settings) -> None:
    write_home(settings.home)
    leave(settings.runs / "simulator-2026-W04", decision(verdict="fail"))
    last = platform_state(settings, 0.0).last
    assert last is not None
    assert last.week == "2026-W05"


class Aliases(http.server.BaseHTTPRequestHandler):
    """MLflow's answer on an alias that a person moved to version 2, or that there is none."""

    moved = True

    def do_GET(self) -> None:
        self.send_response(200 if self.moved else 404)
        self.end_headers()
        tags = [{"key": "week", "value": "2026-W05"}, {"key": "digest", "value": "b" * 64}]
        found = {"model_version": {"version": "2", "tags": tags}}
        self.wfile.write(json.dumps(found if self.moved else {}).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mlflow(settings: Settings) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Aliases) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        start(settings.home, "mlflow", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("mlflow")
def test_the_champion_is_mlflows_where_it_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_home(settings.home)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of the world outside
    monkeypatch.setattr(Aliases, "moved", True)
    found = platform_state(settings, 0.0).champions
    assert found == (Champion(MODEL, 2, "2026-W05", "b" * 64, "MLflow"),)


@pytest.mark.usefixtures("mlflow")
def test_an_alias_that_was_taken_away_is_no_champion(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_home(settings.home)
    monkeypatch.setattr(Aliases, "moved", False)
    state = platform_state(settings, 0.0)
    assert state.champions == ()
    assert state.hints[-1].what == "no version is champion"


def test_a_trial_that_did_not_pass_is_what_to_look_at(settings: Settings) -> None:
    write_home(settings.home)
    start(settings.home, "redis", "redis://127.0.0.1:6390/0")
    (hint,) = platform_state(settings, 0.0).hints
    assert hint.what.startswith("trial inconclusive in simulator 2026-W05: value_lift: +2.00%")
    assert "the next challenger takes its place" in hint.then
    assert hint.then.endswith(
        f"report: {settings.runs / 'simulator-2026-W05/data/report/report.html'}"
    )
    assert hint.page == "/runs/simulator-2026-W05/report/report.html"


def test_a_passed_week_leaves_nothing_to_look_at(settings: Settings) -> None:
    write_home(settings.home)
    write_run(settings.home, "2026-W05", 3000.0, verdict="pass", promote=True, rule="first model")
    start(settings.home, "redis", "redis://127.0.0.1:6390/0")
    assert platform_state(settings, 0.0).hints == ()


def test_a_refused_package_is_what_to_look_at(settings: Settings) -> None:
    write_home(settings.home)
    why = "test_full_click_auc: 0.54 is under 0.55"
    write_run(settings.home, "2026-W05", 3000.0, verdict="fail", promote=False, rule="none",
              reason=why)  # fmt: skip
    start(settings.home, "redis", "redis://127.0.0.1:6390/0")
    (hint,) = platform_state(settings, 0.0).hints
    assert hint.what == f"the screen refused what simulator 2026-W05 made: {why}"


def test_an_unfinished_run_and_a_dead_server_are_named(settings: Settings) -> None:
    write_home(settings.home)
    write_run(settings.home, "2026-W06", 3000.0)
    start(settings.home, "redis", "redis://127.0.0.1:6390/0")
    start(settings.home, "evidently", "http://127.0.0.1:8000")
    record = settings.home / "servers" / "evidently.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"born": "another boot"}))
    state = platform_state(settings, 0.0)
    ended, unfinished, doubt = state.hints
    assert ended.what == "Evidently has ended by itself"
    assert str(settings.logs / "evidently.log") in ended.then
    assert unfinished.what == "the run of simulator 2026-W06 has not finished"
    assert state.last is not None
    assert state.last.week == "2026-W05"
    assert doubt.what.startswith("trial inconclusive in simulator 2026-W05")


def test_servers_of_others_are_shown_without_their_passwords(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, redis_url="redis://:secret@cache:6379/0", mlflow_uri=None)
    (redis,) = [door for door in platform_state(settings, 0.0).doors if door.title == "Redis"]
    assert (redis.address, redis.runs) == ("redis://cache:6379/0", True)


def test_a_broken_file_of_one_run_hides_nothing_else(settings: Settings) -> None:
    write_home(settings.home)
    broken = settings.runs / "simulator-2026-W05"
    write(broken / Decision.place, '{"verdict": "pa')
    last, first = platform_state(settings, 0.0).runs
    assert left(Decision, broken) is None
    assert (last.verdict, last.version, first.verdict) == ("", 2, "inconclusive")


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (1.0, ""),
        (119.0, ", 119 s ago"),
        (300.0, ", 5 min ago"),
        (7200.0, ", 2 h ago"),
        (172_800.0, ""),
        (-5.0, ""),
    ],
)
def test_a_moment_says_how_long_ago_where_it_is_near(before: float, said: str) -> None:
    assert moment(1000.0, 1000.0 + before) == f"1970-01-01 00:16 UTC{said}"


def test_the_stream_is_as_far_as_its_journal(settings: Settings) -> None:
    journal = Journal(settings.stream / "journal")
    journal.open(0)
    journal.append(EVENTS.empty_table(), State(5_000_000, {}, {"slate": 2, "click": 1}))
    journal.close()
    assert platform_state(settings, 0.0).stream == Stream(3, 5.0)


def test_airflows_login_is_the_generated_one(tmp_path: Path) -> None:
    assert airflow_password(tmp_path) is None
    write(tmp_path / "airflow/simple_auth_manager_passwords.json.generated", {"admin": "p"})
    assert airflow_password(tmp_path) == ("admin", "p")


def test_a_state_is_read_without_the_feature_engine() -> None:
    code = "import sys, roiflow.deployment.state; print({'numba', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
