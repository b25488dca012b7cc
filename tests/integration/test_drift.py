"""The drift report by real Evidently, on data whose drift is planted."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roiflow.artefacts.monitoring import ColumnDrift, Drift
from roiflow.data.split import TEST, TRAIN
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features.table import (
    Events,
    Features,
    Impressions,
    LaterLabels,
    Outcomes,
    Statistics,
)
from roiflow.monitoring.drift import (
    Watched,
    count,
    judge,
    load_watched,
    publish,
    save,
    show,
)
from roiflow.params import DriftParams, load_params
from tests.labels import planted_labels

ROOT = Path(__file__).parents[2]
WHEN = datetime(2026, 1, 26, tzinfo=UTC)
ALL_KNOWN = planted_labels([1.0], [])
ALL = Watched(context="all", attributes="all", money="all", outcomes="all", dense="all")
PARAMS = load_params(ROOT / "params.yaml").report_drift

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
            canary=np.zeros(n, np.bool_),
            split=split,
        ),
        outcomes=Outcomes(*(np.empty(0, np.int64) for _ in range(3))),
        later_labels=LaterLabels(
            np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool), np.empty(0, np.int64)
        ),
        validation_start=rows,
        known_until=(rows, rows, n, 0),
        profile=np.zeros((1, 0), np.int32),
        attributes=np.arange(20, dtype=np.int32).reshape(4, 5) % 3,
        catalogues=(),
        statistics=Statistics(*(np.full(2, value, np.float32) for value in (0, 1, 0, 1))),
    )


def drift_of(table: Features, watched: Watched = ALL, params: DriftParams = PARAMS) -> Drift:
    return judge(count(table, ALL_KNOWN, watched, params.bins), params, "made")


@pytest.fixture(scope="module")
def found() -> tuple[Any, Drift]:
    counted = count(features(), ALL_KNOWN, ALL, PARAMS.bins)
    drift = judge(counted, PARAMS, "made")
    return show(drift, counted.shares, PARAMS, WHEN), drift


def one(drift: Drift, column: str) -> ColumnDrift:
    return next(one for one in drift.columns if one.column == column)


def test_the_planted_columns_drift_and_no_other(found: tuple[Any, Drift]) -> None:
    _, drift = found
    assert {one.column for one in drift.columns if one.drifted} == {"moved", "clicked"}
    assert len(drift.columns) == 2 + 2 + 4 + 5 + 2
    assert drift.drifted_share == pytest.approx(2 / 15)
    assert not drift.drifted


def test_the_score_of_a_share_is_its_closed_form(found: tuple[Any, Drift]) -> None:
    """PSI = sum (p - q) ln(p / q) of half against a fifth."""
    _, drift = found
    exact = 0.3 * math.log(0.5 / 0.2) - 0.3 * math.log(0.5 / 0.8)
    assert one(drift, "clicked").score == pytest.approx(exact, rel=1e-12)


def test_evidently_shows_the_verdicts_of_all_rows(found: tuple[Any, Drift]) -> None:
    """Its own over the rows that stand for all of them would be another number."""
    snapshot, drift = found
    content = json.loads(snapshot.json())
    total, *each = content["metrics"]
    assert total["value"] == {"count": 2.0, "share": pytest.approx(2 / 15)}
    shown = {metric["config"]["column"]: metric["value"] for metric in each}
    assert shown == {one.column: pytest.approx(one.score) for one in drift.columns}
    failed = {test["name"] for test in content["tests"] if test["status"] == "FAIL"}
    assert failed == {f"Value Drift for column {name}" for name in ("moved", "clicked")}


def test_two_percent_of_the_rows_that_moved_are_seen() -> None:
    """Psi alone is 0.1 then; a draw of 20,000 of them had no more to go by."""
    table = features(20_000)
    dense, tests = table.impressions.dense.copy(), table.rows(TEST)
    dense[tests[::50], 0] += 100.0
    moved = replace(table, impressions=replace(table.impressions, dense=dense))
    assert not one(drift_of(table), "still").drifted
    still = one(drift_of(moved), "still")
    assert (still.unseen, still.drifted) == (0.02, True)
    assert still.score < PARAMS.threshold


def test_the_share_that_is_allowed_decides() -> None:
    table, few = features(200), ALL.model_copy(update={"context": [], "attributes": []})
    assert not drift_of(table, few).drifted
    assert drift_of(table, few, PARAMS.model_copy(update={"max_drifted_share": 0.1})).drifted


def test_young_conversions_are_no_drift() -> None:
    """Of the test week's half is known by its end, and as many are seen: 1 in 14 and not in 7."""
    table = features()
    tests, log = table.rows(TEST), table.impressions
    converted = log.converted.copy()
    converted[tests[log.converted[tests]][::2]] = False
    # An hour old at the end, where half is known; the training rows are older.
    hour, end = MICROS_PER_HOUR, 100 * MICROS_PER_HOUR
    young = replace(
        table,
        impressions=replace(
            log, event_time=np.where(log.split == TEST, end - hour, 0), converted=converted
        ),
        known_until=(50 * hour, 50 * hour, end, 50 * hour),
    )
    half = planted_labels([1.0], [0.0, 0.5])
    as_it_is = one(judge(count(young, ALL_KNOWN, ALL, PARAMS.bins), PARAMS, "made"), "converted")
    found = judge(count(young, half, ALL, PARAMS.bins), PARAMS, "made")
    assert as_it_is.score > 0.03
    assert one(found, "converted").score < 1e-4


def test_a_side_without_rows_is_named() -> None:
    table = features(100)
    split = np.full_like(table.impressions.split, TRAIN)
    alone = replace(table, impressions=replace(table.impressions, split=split))
    with pytest.raises(ContractError, match="the test week has no impression"):
        drift_of(alone)


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
    for changed in (drift, drift, replace(drift, drifted=True), drift):
        publish(snapshot, tmp_path, "simulator", "Week 2026-W04", changed)
    publish(snapshot, tmp_path, "simulator", "Week 2026-W05", drift)
    store = Workspace(str(tmp_path))
    (project,) = store.search_project("simulator")
    assert len(store.list_runs(project.id)) == 2


def test_the_shipped_declaration_fits() -> None:
    watched = load_watched(ROOT / "monitoring" / "drift.yaml")
    assert watched.dense == "all"
    assert watched.attributes == ["category", "brand", "ad_type"]
