"""The start page says what the state says, and stands alone."""

import re
from dataclasses import replace
from pathlib import Path

from roiflow.deployment.start_page import RUNS, render, write_start_page
from roiflow.deployment.state import State, Stream, platform_state
from roiflow.settings import Settings
from tests.unit.deployment.homes import write_home


def state_of(home: Path) -> State:
    write_home(home)
    return platform_state(Settings(home=home, redis_url=None, mlflow_uri=None), 86_400.0)


def test_it_links_reports_and_names_champion_verdict_and_hints(tmp_path: Path) -> None:
    html = render(replace(state_of(tmp_path), stream=Stream(1534, 86_305.0)))
    for said in (
        "as of 1970-01-02 00:00 UTC",
        "ad_ranker_simulator",
        "the promotion log",
        "Look at first",
        "value_lift: +2.00% (-7.87% to +11.87%): a loss over 3.0% is not ruled out",
        "promoted by rule: first model",
        'href="/runs/simulator-2026-W05/report/report.html"',
        'href="/runs/simulator-2026-W04/drift/drift.html"',
        "1,534 events and knows the world up to 1970-01-01 23:58 UTC, 95 s ago",
        "roiflow check",
    ):
        assert said in html, said
    assert "+31.0&nbsp;%" in html


def test_it_needs_nothing_beside_it(tmp_path: Path) -> None:
    html = render(state_of(tmp_path))
    assert not re.findall(r'(?:src=|url\(|@import|<script|href="(?:https?:)?//)', html)


def test_a_server_that_runs_is_a_link_to_its_first_page(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    page = "http://127.0.0.1:8080/dags/weekly_training"
    airflow = replace(state.doors[0], page=page, runs=True)
    assert f'href="{page}"' in render(replace(state, doors=(airflow, *state.doors[1:])))
    assert page not in render(state)


def test_text_of_a_run_is_text(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    runs = (replace(state.runs[0], reason="<b>bold</b>"),)
    assert "<b>bold</b>" not in render(replace(state, runs=runs))


def test_only_the_last_runs_are_listed(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    html = render(replace(state, runs=state.runs[:1] * (RUNS + 5)))
    assert html.count(">report</a>") == RUNS


def test_an_empty_platform_has_a_page_too(tmp_path: Path) -> None:
    path = write_start_page(Settings(home=tmp_path, redis_url=None, mlflow_uri=None))
    assert path == tmp_path / "edge/pages/index.html"
    html = path.read_text()
    assert "No version is champion yet." in html
    assert "slates are refused with 503" in html
