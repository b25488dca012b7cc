"""What `roiflow status` prints of a state."""

from dataclasses import replace
from pathlib import Path

from roiflow.cli.status import lines
from roiflow.deployment.state import Stream, platform_state
from roiflow.settings import Settings
from tests.trials import tried
from tests.unit.deployment.homes import write_home, write_run

LOGIN = ("admin", "pass[word]")


def test_every_line_of_a_platform_that_does_not_run(tmp_path: Path) -> None:
    write_home(tmp_path)
    state = platform_state(Settings(home=tmp_path, redis_url=None, mlflow_uri=None), 0.0)
    report = tmp_path / "runs/simulator-2026-W05/data/report/report.html"
    found = tried(0.02, 0.06)
    assert list(lines(replace(state, stream=Stream(7, 0.0)), LOGIN, tmp_path / "logs")) == [
        "look first      nothing runs (roiflow up)",
        f"                trial inconclusive in simulator 2026-W05: {found.reason} "
        f"({found.todo}; report: {report})",
        "airflow         does not run",
        "mlflow          does not run",
        "evidently       does not run",
        "slate service   does not run",
        "redis           does not run",
        "stream          does not run",
        f"logs            {tmp_path / 'logs'}",
        "champion        ad_ranker_simulator version 1, week 2026-W04, package aaaaaaaaaaaa, "
        "as the promotion log says",
        "serves          stable 100 %: version 1, ad_ranker:0123456789ab",
        "last week       simulator 2026-W05: screen pass",
        f"                trial inconclusive: {found.reason}; not promoted",
        "                error budget 0.065 of 0.1 left for 2026",
        f"                report {report}",
        "events          7, known up to 1970-01-01 00:00 UTC",
    ]


def test_airflows_login_is_beside_its_address(tmp_path: Path) -> None:
    state = platform_state(Settings(home=tmp_path, redis_url=None, mlflow_uri=None), 0.0)
    airflow = replace(state.doors[0], address="http://127.0.0.1:8080", runs=True)
    said = list(lines(replace(state, doors=(airflow,)), LOGIN, tmp_path))
    assert "airflow         http://127.0.0.1:8080  user admin, password pass[word]" in said


def test_an_unfinished_run_is_no_last_week(tmp_path: Path) -> None:
    write_run(tmp_path, "2026-W06", 5.0)
    state = platform_state(Settings(home=tmp_path, redis_url=None, mlflow_uri=None), 0.0)
    said = list(lines(state, None, tmp_path))
    assert "last week       none has finished yet" in said
    assert "champion        none yet" in said
    assert "the run of simulator 2026-W06 has not finished" in said[1]
