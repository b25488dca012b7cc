"""Recalibration: planted maps come back, and a map is a value with a digest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import ArtefactError
from roiflow.features.table import Flags, Floats
from roiflow.params import RecalibrateParams, load_params
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.recalibration import (
    IDENTITY,
    NONE,
    Learned,
    Observed,
    Platt,
    Recalibration,
    Recalibrations,
    fit,
    given_click,
    logit,
    sigmoid,
)

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml").recalibrate
LEARNED = Learned(0, 3600, 7, 300, 20, 3, 0.8)
ONE = Recalibration("a" * 64, 100, Platt(0.5, 1.0), Platt(0.0, 2.0), LEARNED)


def weak(**more: object) -> RecalibrateParams:
    """Almost no prior."""
    return PARAMS.model_copy(update={"prior_events": 1e-6, **more})


def world(map_: Platt, rows: int, exposure: Floats | float, seed: int = 0) -> Observed:
    """Predictions that are wrong by `map_`, of which a share is seen."""
    rng = np.random.default_rng(seed)
    predicted = sigmoid(rng.normal(-3.0, 0.8, rows))
    seen = np.broadcast_to(np.asarray(exposure, np.float64), (rows,))
    happened = (rng.random(rows) < map_.apply(predicted)) & (rng.random(rows) < seen)
    return Observed(predicted, happened, seen)


def test_a_map_and_its_undoing() -> None:
    map_ = Platt(0.7, 0.5)
    # logit 0.5 is 0: the intercept alone is left of it.
    assert map_.apply(np.array([0.5])) == pytest.approx([1 / (1 + np.exp(-0.7))])
    some = np.array([0.0, 1e-6, 0.03, 0.5, 0.99, 1.0])
    np.testing.assert_allclose(map_.undo(map_.apply(some)), some, rtol=1e-9)
    assert map_.apply(some)[[0, -1]].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(IDENTITY.apply(some), some, rtol=1e-12)


def test_an_intercept_alone_has_a_closed_form() -> None:
    """All rows predicted alike: the map sends the prediction to the rate that was seen."""
    happened = np.arange(1000) < 40
    found = fit(Observed(np.full(1000, 0.02), happened, np.ones(1000)), weak())
    assert found.apply(np.array([0.02])) == pytest.approx([0.04], rel=1e-4)
    # Half of them could be seen: twice as many happened.
    found = fit(Observed(np.full(1000, 0.02), happened, np.full(1000, 0.5)), weak())
    assert found.apply(np.array([0.02])) == pytest.approx([0.08], rel=1e-4)


@pytest.mark.parametrize("planted", [Platt(-0.6, 0.7), Platt(0.3, 1.2)])
def test_a_planted_map_comes_back(planted: Platt) -> None:
    rng = np.random.default_rng(1)
    exposure = rng.choice([1.0, 0.6, 0.46], 400_000)
    found = fit(world(planted, 400_000, exposure), weak())
    wanted = [planted.intercept, planted.slope]
    np.testing.assert_allclose([found.intercept, found.slope], wanted, atol=0.07)


def test_what_could_not_be_seen_says_nothing() -> None:
    seen = world(Platt(-0.5, 1.0), 5_000, 1.0)
    blind = world(Platt(3.0, 1.0), 5_000, 0.0, seed=2)
    both = Observed(*(np.concatenate([vars(seen)[name], vars(blind)[name]]) for name in vars(seen)))
    assert fit(both, weak()) == fit(seen, weak())
    assert fit(blind, PARAMS) == IDENTITY
    none: Flags = np.zeros(0, np.bool_)
    assert fit(Observed(np.zeros(0), none, np.zeros(0)), PARAMS) == IDENTITY


def test_a_prior_of_many_events_changes_nothing_and_a_slope_always_rises() -> None:
    observed = world(Platt(1.0, 1.0), 2_000, 1.0)
    held = fit(observed, weak(prior_events=1e9))
    assert (held.intercept, held.slope) == pytest.approx((0.0, 1.0), abs=1e-5)
    # The other way round: the likelier, the rarer. The order is kept even so.
    turned = Observed(observed.predicted, observed.predicted < 0.03, np.ones(2_000))
    assert fit(turned, weak(min_slope=0.2)).slope == pytest.approx(0.2)


def test_predictions_are_changed_and_nothing_stays_nothing() -> None:
    click = np.array([[0.2, 0.0]], np.float32)
    predictions = Predictions(click, click / np.float32(4), np.full((1, 2), 5e6, np.float32))
    found = ONE.apply(predictions)
    odds = 0.25 * np.exp(0.5)
    assert found.click[0] == pytest.approx([odds / (1 + odds), 0.0])
    # P(conversion | click) is 1 / 4: odds of 1 / 3, squared.
    assert found.conversion[0] == pytest.approx([found.click[0, 0] * (1 / 9) / (10 / 9), 0.0])
    assert found.revenue is predictions.revenue
    assert found.click.dtype == found.conversion.dtype == np.float32


def test_each_request_has_what_is_in_force_at_its_time() -> None:
    later = replace(ONE, since=200, click=Platt(-1.0, 1.0))
    both = Recalibrations.of((later, ONE))
    assert [one.since for one in both.each] == [100, 200]
    times = np.array([99, 100, 199, 200])
    assert both.at(times).tolist() == [-1, 0, 0, 1]
    assert both.digests(times) == [None, ONE.digest, ONE.digest, later.digest]
    half = np.full((4, 1), 0.5, np.float32)
    predictions = Predictions(half, half / np.float32(2), half)
    shown = both.apply(predictions, times).click[:, 0]
    assert shown == pytest.approx(sigmoid(np.array([0.0, 0.5, 0.5, -1.0])))
    assert NONE.apply(predictions, times) is predictions
    assert NONE.digests(times) == [None] * 4


def test_a_conversion_is_given_a_click() -> None:
    found = given_click(np.array([0.5, 0.0, 0.1]), np.array([0.1, 0.0, 0.100001]))
    assert found == pytest.approx([0.2, 0.0, 1.0])
    assert np.isneginf(logit(np.array([0.0])))


def test_the_digest_is_of_all_its_content() -> None:
    assert Recalibration.of(ONE.content(), "x") == ONE
    assert Recalibration.of(ONE.content(), "x").digest == ONE.digest
    others = [
        replace(ONE, package="b" * 64),
        replace(ONE, since=101),
        replace(ONE, click=Platt(0.5, 1.1)),
        replace(ONE, learned=replace(LEARNED, clicks=21)),
    ]
    assert len({one.digest for one in (ONE, *others)}) == 5


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"format": 0}, "x: format 0, not 1"),
        ({"extra": 1}, "x: not a recalibration: keys are not"),
        ({"click": {"intercept": 0.0}}, "x: not a recalibration: .*slope"),
        ({"click": {"intercept": 0.0, "slope": -1.0}}, "x: click is .*: no rising line"),
    ],
)
def test_what_is_no_recalibration_is_named(more: dict[str, object], words: str) -> None:
    with pytest.raises(ArtefactError, match=words):
        Recalibration.of({**ONE.content(), **more}, "x")
