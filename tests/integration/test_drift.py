"""The drift report by real Evidently, on data whose drift is planted."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roiflow.artefacts.monitoring import Drift
from roiflow.data.split import TEST, TRAIN
from roiflow.features.table import Events, Features, Impressions, Statistics
from roiflow.monitoring.drift import Watched, compare, load_watched, publish, save, summary
from roiflow.params import DriftParams

ROOT = Path(__file__).parents[2]
WHEN = datetime(2026, 1, 26, tzinfo=UTC)
ALL = Watched(context="all", attributes="all", money="all", outcomes="all", dense="all")
PARAMS = DriftParams(seed=7, sample_rows=20_000, method="psi", threshold=0.2, max_drifted_share=0.5)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def features(rows: int = 2000) -> Features:
    """Train and test halves of `rows` impressions each, drawn alike, but for two columns.

    Dense column `moved` is 3 standard deviations higher in the test week; half of the training
    impressions were clicked and a fifth of the test week's.
    """
    rng = np.random.default_rng(3)
    split = np.repeat([TRAIN, TEST], rows).astype(np.uint8)
    n = split.size
    dense = rng.normal(size=(n, 2)).astype(np.float32)
    dense[split == TEST, 1] += 3.0
    clicked = np.arange(n) % 10 < np.where(split == TRAIN, 5, 2)
    return Features(
        sizes={},
        dense_names=("still", "moved"),
        profile_names=(),
        history_length=5,
        events=Events(
            offsets=np.zeros(2, np.int64),
            ad=np.empty(0, np.int32),
            category=np.empty(0, np.int32),
            action=np.empty(0, np.int32),
            event_time=np.empty(0, np.int64),
            known_time=np.empty(0, np.int64),
        ),
        impressions=Impressions(
            request=np.arange(n),
            user=np.zeros(n, np.int32),
            ad=rng.integers(0, 4, n).astype(np.int32),
            event_time=np.arange(n),
            history_start=np.zeros(n, np.int64),
            history_end=np.zeros(n, np.int64),
            context=rng.integers(0, 3, (n, 4)).astype(np.int32),
            dense=dense,
            position=np.ones(n, np.int32),
            slate_size=np.ones(n, np.int32),
            bid=rng.integers(1, 10**6, n),
            cost=rng.integers(1, 10**6, n),
            revenue=np.zeros(n, np.int64),
            clicked=clicked,
            converted=np.arange(n) % 7 == 0,
            propensity=np.full(n, np.nan),
            split=split,
        ),
        profile=np.zeros((1, 0), np.int32),
        attributes=np.arange(20, dtype=np.int32).reshape(4, 5) % 3,
        catalogues=(),
        statistics=Statistics(*(np.full(2, value, np.float32) for value in (0, 1, 0, 1))),
    )


@pytest.fixture(scope="module")
def found() -> tuple[Any, Drift]:
    table = features()
    snapshot = compare(table, PARAMS, ALL, WHEN)
    return snapshot, summary(snapshot, table, PARAMS, "made")


def score(drift: Drift, column: str) -> float:
    return next(one.score for one in drift.columns if one.column == column)


def test_the_planted_columns_drift_and_no_other(found: tuple[Any, Drift]) -> None:
    _, drift = found
    assert {one.column for one in drift.columns if one.drifted} == {"moved", "clicked"}
    assert len(drift.columns) == 2 + 2 + 4 + 5 + 2
    assert drift.drifted_share == pytest.approx(2 / 15)
    assert not drift.drifted
    assert (drift.reference_rows, drift.current_rows) == (2000, 2000)


def test_the_score_of_a_share_is_its_closed_form(found: tuple[Any, Drift]) -> None:
    """PSI = sum (p - q) ln(p / q) of half against a fifth."""
    _, drift = found
    exact = 0.3 * math.log(0.5 / 0.2) - 0.3 * math.log(0.5 / 0.8)
    assert score(drift, "clicked") == pytest.approx(exact, rel=1e-6)


def test_the_share_that_is_allowed_decides() -> None:
    table, few = features(200), ALL.model_copy(update={"context": [], "attributes": []})
    strict = PARAMS.model_copy(update={"max_drifted_share": 0.1})
    snapshot = compare(table, strict, few, WHEN)
    drift = summary(snapshot, table, strict, "made")
    assert drift.drifted
    failed = [test for test in json.loads(snapshot.json())["tests"] if test["status"] == "FAIL"]
    assert len(failed) >= 1


def test_a_sample_has_the_same_rows_every_time() -> None:
    table, small = features(500), PARAMS.model_copy(update={"sample_rows": 100})
    one, two = (summary(compare(table, small, ALL, WHEN), table, small, "made") for _ in range(2))
    assert one == two
    assert (one.reference_rows, one.current_rows) == (100, 100)
    other = small.model_copy(update={"seed": 8})
    assert summary(compare(table, other, ALL, WHEN), table, other, "made") != one


def test_it_is_saved_as_page_and_numbers(found: tuple[Any, Drift], tmp_path: Path) -> None:
    snapshot, drift = found
    save(snapshot, drift, tmp_path)
    assert Drift.read(tmp_path / "drift.json") == drift
    assert drift.columns[0].column == "moved"
    assert "<html" in (tmp_path / "drift.html").read_text()[:2000]


def test_a_report_is_published_once_and_replaced_where_it_changed(
    found: tuple[Any, Drift], tmp_path: Path
) -> None:
    from evidently.ui.workspace import Workspace

    snapshot, drift = found
    for one in (drift, drift, replace(drift, drifted=True), drift):
        publish(snapshot, tmp_path, "simulator", "Week 2026-W04", one)
    publish(snapshot, tmp_path, "simulator", "Week 2026-W05", drift)
    store = Workspace(str(tmp_path))
    (project,) = store.search_project("simulator")
    assert len(store.list_runs(project.id)) == 2


def test_the_shipped_declaration_fits() -> None:
    watched = load_watched(ROOT / "monitoring" / "drift.yaml")
    assert watched.dense == "all"
    assert watched.attributes == ["category", "brand", "ad_type"]
