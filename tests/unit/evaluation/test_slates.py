"""Logged slates, and a policy on them, against enumeration."""

from dataclasses import fields, replace
from itertools import permutations
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from roiflow.errors import ContractError
from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.evaluation.estimators.logger import chances_of_log
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.evaluation.roi import estimate_roi, roi
from roiflow.evaluation.slates import Slates, logged_slates
from roiflow.evaluation.target import (
    LoggedWeek,
    TargetOnLog,
    position_marginals,
    target_on_log,
)
from roiflow.evaluation.terms import ESTIMATORS, Terms, logged_terms, target_terms
from roiflow.features.table import Features, Floats, Impressions, Outcomes
from roiflow.labels.examination import Examination
from roiflow.params import load_params
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.ranking.value import CostShares
from tests.labels import planted_labels
from tests.worlds import ROOT

ALL_KNOWN = planted_labels([1.0], [])
SHARES = CostShares(impression=0.1, click=1.0, conversion=0.0)


def _features(**columns: Any) -> Features:
    n = len(columns["request"])
    blank: dict[str, Any] = {field.name: np.zeros(n, np.int64) for field in fields(Impressions)}
    log = Impressions(**{**blank, **{name: np.asarray(value) for name, value in columns.items()}})
    row = np.flatnonzero(log.revenue)
    features = SimpleNamespace(
        impressions=log,
        outcomes=Outcomes(row, np.zeros(row.size, np.int64), log.revenue[row]),
        attributes=np.zeros((50, 5), np.int32),
        known_until=(1, 1, 1, 1),
    )
    return cast("Features", features)


def test_slates_are_cut_to_the_slots_and_gaps_left_out() -> None:
    features = _features(
        request=[5, 5, 5, 7, 8, 8, 9],
        position=[2, 1, 3, 2, 1, 3, 2],
        slate_size=[3, 3, 3, 2, 3, 3, 1],
        user=[1, 1, 1, 2, 3, 3, 4],
        ad=[12, 11, 13, 21, 31, 33, 42],
        revenue=[2, 1, 3, 9, 9, 9, 4],
        propensity=[0.2, 0.1, 0.3, 0.9, 0.9, 0.9, 0.4],
        clicked=np.array([0, 1, 0, 0, 0, 0, 1], bool),
    )
    slates = logged_slates(features, ALL_KNOWN, np.arange(7), slots=2)
    np.testing.assert_array_equal(slates.row, [1, 6])
    np.testing.assert_array_equal(slates.user, [1, 4])
    np.testing.assert_array_equal(slates.ad, [[11, 12], [42, -1]])
    np.testing.assert_array_equal(slates.position, [[1, 2], [2, 1]])
    np.testing.assert_array_equal(slates.revenue, [[1.0, 2.0], [4.0, 0.0]])
    np.testing.assert_array_equal(slates.propensity, [[0.1, 0.2], [0.4, 1.0]])
    np.testing.assert_array_equal(slates.logged, [True, True])


def test_no_whole_slate_is_an_error() -> None:
    features = _features(request=[1], position=[2], slate_size=[3])
    with pytest.raises(ContractError, match="none of 1 slates"):
        logged_slates(features, ALL_KNOWN, np.arange(1), slots=2)


CHANCES = np.array([0.45, 0.30, 0.15, 0.10])
REVENUE = np.array([100.0, 40.0, 10.0, 400.0])
COST = np.array([30.0, 20.0, 25.0, 60.0])
BID = np.array([50, 50, 50, 50])
FACTORS = np.array([1.0, 0.5])


def _world() -> tuple[Slates, CandidateSets, Floats, Floats]:
    """All slates of 2 of 4 ads, the logging policy uniform; returns also the slates' chances."""
    pairs = np.array(list(permutations(range(4), 2)))
    n = len(pairs)
    examination = FACTORS
    slates = Slates(
        row=np.arange(n),
        user=np.arange(n, dtype=np.int32),
        ad=pairs.astype(np.int32) + 1,
        position=np.tile(np.array([1, 2], np.int32), (n, 1)),
        present=np.ones((n, 2), bool),
        clicked=np.ones((n, 2), bool),
        revenue=REVENUE[pairs] * examination,
        cost=0.1 * BID[pairs] + (COST - 0.1 * BID)[pairs] * examination,
        propensity=np.tile([1 / 4, 1 / 3], (n, 1)),
        expected=np.ones((n, 2)),
        known=np.where(pairs == 0, 0.6, 0.9),
        canary=np.zeros(n, bool),
    )
    wide = np.ones((n, 1))
    sets = CandidateSets(
        request=np.arange(n),
        user=np.arange(n, dtype=np.int32),
        ad=np.tile(np.arange(1, 5, dtype=np.int32), (n, 1)),
        click=wide * 0.1 * np.ones(4),
        conversion=wide * np.ones(4),
        revenue=wide * REVENUE,
        expected_cost=wide * COST,
        bid=np.tile(BID, (n, 1)),
        price=np.tile(BID, (n, 1)),
    )
    target = np.array([CHANCES[a] * CHANCES[b] / (1 - CHANCES[a]) for a, b in pairs])
    return slates, sets, wide * np.log(CHANCES), target


def _target(slates: Slates, sets: CandidateSets, logits: Floats, draws: int) -> TargetOnLog:
    return target_on_log(
        slates,
        sets,
        logits,
        SHARES,
        LoggedWeek(
            Examination(FACTORS),
            Examination(np.ones(1)),
            shown=np.array([False, True, True, True, False]),
            kind=np.array([0, 1, 1, 2, 2], np.int32),
        ),
        draws,
        np.random.default_rng(0),
    )


SHAPES = load_params(ROOT / "params.yaml").evaluate


def _terms(slates: Slates, target: TargetOnLog) -> dict[str, Terms]:
    return target_terms(slates, target, _logged(slates, target), SHAPES)


def _logged(slates: Slates, target: TargetOnLog) -> Chances:
    """All four ads are shown, whatever is said to test what a policy's support is."""
    return chances_of_log(slates, replace(target, ads=np.full(slates.row.size, 4)), 100)


def _enumerated(odds: Floats, slots: int) -> Floats:
    """P(ad at position) (slots, K), over every slate."""
    found = np.zeros((slots, odds.size))
    for slate in permutations(range(odds.size), slots):
        left, chance = odds.copy(), 1.0
        for ad in slate:
            chance *= left[ad] / left.sum()
            left[ad] = 0.0
        found[np.arange(slots), slate] += chance
    return found


@pytest.mark.parametrize(
    "odds", [CHANCES, np.array([1.0, 1e-9, 1e-12, 3e-12]), np.array([0.3, 0.3, 0.3, 0.1])]
)
def test_marginals_are_those_of_the_enumeration(odds: Floats) -> None:
    got = position_marginals(np.log(odds[None]), 4, 4000, np.random.default_rng(0))[0]
    expected = _enumerated(odds, 4)
    np.testing.assert_allclose(got[:3], expected[:3], rtol=1e-6)  # exact, however uneven
    np.testing.assert_allclose(got[3], expected[3], atol=0.02)  # by draws


def test_marginals_of_fewer_ads_than_slots() -> None:
    logits = np.array([[0.5, -np.inf, 0.1, -np.inf], [-np.inf, 0.0, -np.inf, -np.inf]])
    got = position_marginals(logits, 3, 1, np.random.default_rng(0))
    np.testing.assert_allclose(got.sum(axis=2), [[1, 1, 0], [1, 0, 0]])
    np.testing.assert_allclose(got[0, 1], got[0, 0][[2, 1, 0, 3]])


def test_marginals_of_one_and_two_slots_are_the_first_of_three() -> None:
    logits = np.log(CHANCES[None])
    three = position_marginals(logits, 3, 1, np.random.default_rng(0))
    for slots in (1, 2):
        got = position_marginals(logits, slots, 1, np.random.default_rng(0))
        assert got.shape == (1, slots, 4)
        np.testing.assert_array_equal(got, three[:, :slots])


@pytest.mark.parametrize(
    ("estimator", "tolerance"),
    # The log is the enumeration itself, so all are exact.
    [
        ("dm", 1e-9),
        ("dr", 1e-9),
        ("rips", 1e-9),
        ("cascade_dr", 1e-9),
        ("ips", 1e-9),
        ("switch_dr", 1e-9),
        ("shrunk_dr", 1e-9),
        ("examination", 0.05),  # cost is charged at the impression, too
    ],
)
def test_every_estimator_finds_the_enumerated_value(estimator: str, tolerance: float) -> None:
    slates, sets, logits, chance = _world()
    terms = _terms(slates, _target(slates, sets, logits, 1000))[estimator]
    revenue, cost = chance @ slates.revenue.sum(axis=1), chance @ slates.cost.sum(axis=1)
    got = terms.revenue_and_cost(terms.columns.sum(axis=0))
    np.testing.assert_allclose(np.array(got) / 12, [revenue, cost], rtol=tolerance)


def test_weights_have_mean_one() -> None:
    slates, sets, logits, _ = _world()
    target = _target(slates, sets, logits, 1000)
    logged = _logged(slates, target)
    by_position = ratio(target.chances.marginal, logged.marginal)
    np.testing.assert_allclose(by_position.mean(axis=0), 1.0)
    looks = FACTORS * ratio(target.chances.exposure, logged.exposure)
    assert looks.sum(axis=1).mean() == pytest.approx(FACTORS.sum())
    slate = slate_weights(target.propensity, slates.propensity)
    np.testing.assert_allclose(slate.mean(axis=0), 1.0)


def test_the_control_variate_is_exact_for_two_slots() -> None:
    slates, sets, logits, chance = _world()
    target = _target(slates, sets, logits, 1)
    revenue, cost = chance @ slates.revenue.sum(axis=1), chance @ slates.cost.sum(axis=1)
    np.testing.assert_allclose(target.revenue.cascade_target[:, 0], revenue)
    np.testing.assert_allclose(target.cost.cascade_target[:, 0], cost)
    np.testing.assert_allclose(target.cost.cascade_logged[:, 1], slates.cost[:, 1])
    np.testing.assert_allclose(target.cost.logged, slates.cost)


def test_support_is_the_mass_on_ads_the_log_shows() -> None:
    slates, sets, logits, _ = _world()
    np.testing.assert_allclose(_target(slates, sets, logits, 1).support, 0.9)


def test_slates_are_drawn_from_the_policy() -> None:
    """One of each request: pairs come as often as the enumeration says."""
    slates, sets, logits, chance = _world()
    many = np.repeat(np.arange(12), 500)
    drawn = _target(slates.take(many), sets.take(many), logits[many], 1).drawn
    for pair, expected in zip(permutations(range(1, 5), 2), chance, strict=True):
        share = np.mean((drawn == pair).all(axis=1))
        assert share == pytest.approx(expected, abs=4 * np.sqrt(expected / many.size))


def test_an_ad_outside_the_candidates_has_weight_zero_from_there_down() -> None:
    slates, sets, logits, _ = _world()
    narrowed = CandidateSets(
        **{
            field.name: getattr(sets, field.name)[:, :3]
            if getattr(sets, field.name).ndim == 2
            else getattr(sets, field.name)
            for field in fields(CandidateSets)
        }
    )
    target = _target(slates, narrowed, logits[:, :3], 100)
    logged = _logged(slates, target)
    outside = slates.ad == 4
    weight = ratio(target.chances.exposure, logged.exposure)
    slate_weight = slate_weights(target.propensity, slates.propensity)
    assert (weight[outside] == 0).all()
    assert (slate_weight[outside] == 0).all()
    assert (slate_weight[outside[:, 0], 1] == 0).all()
    assert (weight[outside[:, 0], 1] > 0).all()
    assert (slate_weight[~outside.any(axis=1)] > 0).all()


class _Limits:
    min_effective_sample_size = 1.0
    max_weight = 100.0
    mean_weight_tolerance = 0.2
    min_support = 0.5
    min_maturity = 0.5


def _estimates(slates: Slates, target: TargetOnLog) -> dict[str, Any]:
    return estimate_roi(
        np.unique(slates.user),
        logged_terms(slates),
        _terms(slates, target),
        resamples=200,
        confidence=0.95,
        limits=_Limits(),
        cost_weight=1.0,
        rng=np.random.default_rng(1),
    )


def test_lift_is_the_ratio_of_roas() -> None:
    slates, sets, logits, _ = _world()
    estimates = _estimates(slates, _target(slates, sets, logits, 50))
    assert set(estimates) == {"logged", *ESTIMATORS}
    base = 1 + estimates["logged"].roi.value
    assert base == pytest.approx(slates.revenue.sum() / slates.cost.sum())
    for each in estimates.values():
        assert 1 + each.lift.value == pytest.approx((1 + each.roi.value) / base)
    assert estimates["logged"].lift.value == 0
    assert estimates["logged"].lift.low == estimates["logged"].lift.high == 0
    assert estimates["ips"].roi.verdict == "conclusive"
    assert estimates["dm"].roi.verdict == "inconclusive"
    assert estimates["dm"].roi.model_based


def test_each_estimate_says_what_share_of_its_conversions_is_known() -> None:
    """A quarter of the places hold ad 1, of which 60 % are known, of the others 90 %."""
    slates, sets, logits, _ = _world()
    estimates = _estimates(slates, _target(slates, sets, logits, 50))
    assert estimates["logged"].maturity == pytest.approx(0.25 * 0.6 + 0.75 * 0.9)
    assert estimates["dm"].maturity is None
    # The target shows ad 1 more often than a quarter.
    assert estimates["rips"].maturity < estimates["logged"].maturity
    assert estimates["ips"].maturity == pytest.approx(estimates["rips"].maturity, abs=0.01)


def test_an_estimate_of_young_conversions_is_inconclusive() -> None:
    slates, sets, logits, _ = _world()
    young = replace(slates, known=0.5 * slates.known)
    estimates = _estimates(young, _target(young, sets, logits, 50))
    assert estimates["logged"].roi.verdict == "inconclusive"
    assert estimates["logged"].roi.reason == "maturity 0.412 under 0.5"
    assert estimates["dr"].roi.reason.startswith("maturity 0.3")


def test_without_propensities_only_the_model_answers() -> None:
    slates, sets, logits, _ = _world()
    blind = Slates(
        **{
            **{field.name: getattr(slates, field.name) for field in fields(Slates)},
            "propensity": np.full((12, 2), np.nan),
        }
    )
    target = _target(blind, sets, logits, 5)
    assert set(_terms(blind, target)) == {"dm"}


def test_no_cost_has_no_roi() -> None:
    slates, sets, logits, _ = _world()
    free = Slates(
        **{
            **{field.name: getattr(slates, field.name) for field in fields(Slates)},
            "cost": np.zeros((12, 2)),
        }
    )
    found = _estimates(free, _target(free, sets, logits, 5))["ips"]
    assert found.roi.value is None
    assert found.roi.verdict == "inconclusive"
    assert "not positive" in found.roi.reason


def test_roi_by_hand() -> None:
    got = roi(np.array([150.0, 1.0, 5.0]), np.array([100.0, 2.0, 0.0]))
    np.testing.assert_allclose(got, [0.5, -0.5, np.nan])
