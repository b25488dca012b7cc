"""Pre-selection: value, narrowing, files."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import xgboost

from roiflow.candidates import logistic, trees
from roiflow.candidates import selector as candidates
from roiflow.candidates.design import Design
from roiflow.candidates.forest import Booster, Forest
from roiflow.candidates.selector import RevenueModel, Selector, best, fit_revenue, narrow
from roiflow.candidates.trees import Learner, Outcome
from roiflow.data.split import TEST, TRAIN
from roiflow.errors import PackageError
from roiflow.features.table import Longs
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import rate
from roiflow.ranking.metrics import log_loss
from tests.unit.ranking.worlds import (
    CANDIDATES,
    World,
    build,
    entropy,
    known_at_once,
    labels_of,
    requests_of,
)

PARAMS = CANDIDATES


@cache
def world() -> World:
    return build(users=150, per_user=40, behaviours=4)


@cache
def selector(kind: candidates.Kind) -> Selector:
    return candidates.fit(world().features, world().labels, PARAMS, kind)


@pytest.mark.parametrize("kind", candidates.KINDS)
def test_the_loss_nears_the_entropy_of_a_planted_world(kind: candidates.Kind) -> None:
    # dense_0 decides; the ad's own effect is not an attribute of few values
    features, log = world().features, world().features.impressions
    rows = features.rows(TEST)
    found = selector(kind).predict(features, rows, logged_position=True)
    base = entropy(np.full(rows.size, log.clicked[rows].mean()))
    truth = entropy(world().click[rows])
    assert log_loss(found.click, log.clicked[rows]) < truth + 0.5 * (base - truth)


def test_planted_coefficients_are_recovered() -> None:
    weights = selector("logistic").model.click  # type: ignore[attr-defined]
    assert weights.numbers == pytest.approx([0.9, 0, 0], abs=0.12)


@pytest.mark.parametrize("rows_in_memory", [0, 10**6])
def test_trees_learnt_in_pieces_are_those_of_the_whole_matrix(
    rows_in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "CHUNK_ROWS", 1000)
    features = world().features
    boosting = PARAMS.xgboost.model_copy(update={"rows_in_memory": rows_in_memory})
    params = PARAMS.model_copy(update={"xgboost": boosting})
    found = candidates.fit(features, world().labels, params, "xgboost")
    assert features.rows(TRAIN).size > 3000
    whole = PARAMS.xgboost.model_copy(update={"rows_in_memory": 10**6})
    monkeypatch.setattr(trees, "CHUNK_ROWS", 10**6)
    params = PARAMS.model_copy(update={"xgboost": whole})
    expected = candidates.fit(features, world().labels, params, "xgboost")
    for one, other in zip(boosters_of(found), boosters_of(expected), strict=True):
        assert one.content == other.content


def test_a_refit_on_the_same_rows_is_what_was_judged() -> None:
    """As many trees, from the same start: to the byte, though nothing held out ended them."""
    judged = selector("xgboost")
    again = candidates.refit(judged, world().features, world().labels, PARAMS)
    for one, other in zip(boosters_of(judged), boosters_of(again), strict=True):
        assert 0 < len(one.trees) < PARAMS.xgboost.rounds
        assert one.content == other.content
    assert again.calibrations == judged.calibrations


def boosters_of(chosen: Selector) -> tuple[Booster, Booster]:
    assert isinstance(chosen.model, trees.Trees)
    return chosen.model.boosters


def test_trees_of_exposure_one_are_the_librarys_own() -> None:
    """The same loss, slopes and curvature as `binary:logistic`, from the same start."""
    features, log = world().features, world().features.impressions
    design, rows = Design.of(features, 64), features.rows(TRAIN)
    whole = Outcome(rows, np.ones(rows.size, np.float32), log.clicked[rows])
    none = Outcome(rows[:0], whole.exposure[:0], whole.observed[:0])
    source = trees.Source(features, design, 256, None)
    found = Learner(source, PARAMS.xgboost.click, PARAMS.xgboost, 1).fit("click", whole, none)
    booster = xgboost.train(
        {
            "objective": "binary:logistic",
            "base_score": rate(whole.exposure, whole.observed),
            "max_depth": 3,
            "learning_rate": 0.2,
            "min_child_weight": 5.0,
            "seed": 1,
            "nthread": 1,
        },
        xgboost.QuantileDMatrix(
            trees.matrix(design.impressions(features, rows)), log.clicked[rows], nthread=1
        ),
        num_boost_round=60,
    )
    theirs = Booster.parse(bytes(booster.save_raw("json")), Path("theirs"))
    read = design.impressions(features, rows)
    (ours,), (expected,) = (Forest.of([one]).margins(read) for one in (found, theirs))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


def test_the_gradient_is_the_slope_of_the_loss_over_dense_one_hot_codes() -> None:
    features = world().features
    design, log, rows = Design.of(features, 64), features.impressions, features.rows(TRAIN)[::7]
    source, layout = logistic.source(features), logistic.layout(features, design, "z_score")
    weight = np.random.default_rng(0).normal(size=layout.starts[-1] + 1) / 4
    label = log.clicked[rows]
    exposure = np.random.default_rng(1).random(rows.size).astype(np.float32)
    loss, gradient = logistic.objective(source, layout, rows, exposure, label, weight)

    read = design.impressions(features, rows)
    hot = [np.eye(size)[codes] for size, codes in zip(design.code_sizes, read.codes.T, strict=True)]
    scaled = logistic.normalise(read.numbers, *features.statistics.scaling("z_score"))
    dense = np.column_stack([scaled, *hot, np.ones(rows.size)])
    p = 1 / (1 + np.exp(-dense @ weight))
    right = np.where(label, p, 1 - exposure * p)
    assert loss == pytest.approx(-np.log(right).sum(), rel=1e-6)
    slope = np.where(label, p - 1, exposure * p * (1 - p) / (1 - exposure * p))
    np.testing.assert_allclose(gradient, dense.T @ slope, rtol=1e-5, atol=1e-4)


def test_predictions_in_pieces_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    features, rows = world().features, world().features.rows(TRAIN)[:1000]
    whole = selector("xgboost").predict(features, rows)
    monkeypatch.setattr(candidates, "CHUNK_ROWS", 333)
    pieces = selector("xgboost").predict(features, rows)
    np.testing.assert_array_equal(pieces.conversion, whole.conversion)
    np.testing.assert_array_equal(pieces.click, whole.click)


def test_min_max_finds_the_same_slope_in_units_of_the_training_range() -> None:
    scaled = PARAMS.logistic.model_copy(update={"normalisation": "min_max", "click_l2": 1e-3})
    features = world().features
    chosen = candidates.fit(
        features, world().labels, PARAMS.model_copy(update={"logistic": scaled}), "logistic"
    )
    model = chosen.model
    assert model.centre == tuple(features.statistics.low.tolist())  # type: ignore[attr-defined]
    slope = model.click.numbers / features.statistics.span  # type: ignore[attr-defined]
    planted = np.array([0.9, 0, 0]) / features.statistics.std
    assert slope == pytest.approx(planted, abs=0.12)


def test_scores_are_expected_revenue_minus_expected_cost() -> None:
    features = world().features
    requests = requests_of(features, features.rows(TEST)[:20])
    chosen = replace(selector("logistic"), revenue=RevenueModel(0.0, 3e6))
    found, scores = chosen.score(features, requests), chosen.scores(features, requests)
    there = requests.ad >= 0
    # what is paid is half the bid of 1,000,000 for a click
    value = found.conversion.astype(np.float64) * 3e6 - 0.5 * found.click.astype(np.float64) * 1e6
    np.testing.assert_allclose(scores[there], value[there], rtol=1e-6)
    assert np.all(np.isneginf(scores[~there]))


def test_narrowing_keeps_the_best_in_order_and_absent_ads_last() -> None:
    features = world().features
    requests = requests_of(features, features.rows(TEST)[:3])
    scores = np.array([[1.0, 5, 3, 3, -np.inf], [2, 1, 4, 0, -np.inf], [0, 0, 0, 0, -np.inf]])
    kept = narrow(requests, best(scores, 3))
    columns = np.array([[1, 2, 3], [2, 0, 1], [0, 1, 2]])
    np.testing.assert_array_equal(kept.ad, np.take_along_axis(requests.ad, columns, 1))
    np.testing.assert_array_equal(
        kept.dense, np.take_along_axis(requests.dense, columns[:, :, None], 1)
    )
    np.testing.assert_array_equal(kept.user, requests.user)
    assert narrow(requests, best(scores, 9)).ad.shape == (3, 5)


@pytest.mark.parametrize("kind", candidates.KINDS)
def test_top_k_agrees_with_scores(kind: candidates.Kind) -> None:
    features = world().features
    requests = requests_of(features, features.rows(TEST)[:30])
    scores = selector(kind).scores(features, requests)
    kept = selector(kind).top_k(requests, 2)
    best = np.sort(scores, axis=1)[:, ::-1][:, :2]
    np.testing.assert_array_equal(selector(kind).scores(features, kept), best)


def test_revenue_follows_the_price_where_it_does() -> None:
    features = world().features
    log, rows = features.impressions, features.rows(TRAIN)
    price = (np.arange(12) * 1_000_000).astype(np.int64)

    def fitted(revenue: Longs) -> RevenueModel:
        sold = replace(features, impressions=replace(log, revenue=revenue))
        sold = replace(sold, outcomes=known_at_once(sold.impressions))
        examples = Examples.of(sold, labels_of(sold)).take(rows)
        return fit_revenue(sold, examples, price)

    found = fitted(np.where(log.converted, 3 * price[log.ad], 0))
    assert found.per_price == pytest.approx(3.0)
    assert found.constant == 0.0
    assert found.revenue(np.array([5])).tolist() == [15.0]
    found = fitted(np.where(log.converted, 7_000_000, 0))
    assert (found.per_price, found.constant) == (0.0, 7e6)
    # A conversion without revenue counts as one unit.
    assert fitted(np.zeros_like(log.revenue)) == RevenueModel(0.0, 1e6)


def test_attributes_of_many_values_are_left_out() -> None:
    features = world().features
    wide = replace(features, sizes={**features.sizes, "brand": 65})
    assert "brand" in Design.of(features, 64).code_names
    assert "brand" not in Design.of(wide, 64).code_names


def test_codes_newer_than_the_model_are_unknown() -> None:
    features = world().features
    requests = requests_of(features, features.rows(TEST)[:2])
    newer = replace(requests, context=requests.context + 1000)
    unknown = replace(requests, context=requests.context * 0)
    np.testing.assert_array_equal(
        selector("logistic").scores(features, newer),
        selector("logistic").scores(features, unknown),
    )


def test_the_folder_names_the_kind_that_is_used(tmp_path: Path) -> None:
    for kind in candidates.KINDS:
        selector(kind).save(tmp_path / kind)
    (tmp_path / candidates.CHOICE).write_text("logistic\n")
    assert candidates.load(tmp_path).kind == "logistic"
    assert candidates.load(tmp_path, "xgboost").kind == "xgboost"


def test_a_damaged_booster_is_named(tmp_path: Path) -> None:
    selector("xgboost").save(tmp_path / "model")
    (tmp_path / "model" / "click.json").write_text("{}")
    with pytest.raises(PackageError, match=r"click\.json"):
        candidates.load(tmp_path / "model")
