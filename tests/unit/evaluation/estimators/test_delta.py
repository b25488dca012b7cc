"""Two arms on every slate of two of four ads: what is known of them is known by enumeration."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from roiflow.artefacts.evaluation import TrialEstimate
from roiflow.evaluation.estimators.click_model import below_a_click
from roiflow.evaluation.estimators.delta import ArmsOnLog, evidence
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, target_on_log
from roiflow.features.table import Floats
from roiflow.labels.examination import Examination
from roiflow.params import load_params
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.policy.plackett_luce import conditional_propensities, sample
from roiflow.ranking.value import CostShares
from tests.worlds import ROOT

LIMITS = load_params(ROOT / "params.yaml").evaluate
OLD, NEW = np.array([0.45, 0.30, 0.15, 0.10]), np.array([0.15, 0.20, 0.20, 0.45])
CLICK = np.array([0.5, 0.2, 0.4, 0.3])
REVENUE = np.array([100.0, 40.0, 10.0, 400.0])
PER_CLICK, PER_VIEW, BID = 0.5, 0.1, 50.0
LOOKS = np.array([1.0, 0.5])
EVERY = np.array(list(permutations(range(4), 2)))


BELOW = np.array([0.15, 0.6])
"""Of the second position of a cascade: P(it is looked at) after a click, and after none."""


def looked(clicked_first: Floats) -> Floats:
    """P(looked at) of the second position of a cascade."""
    return BELOW[1] + (BELOW[0] - BELOW[1]) * clicked_first


def truth(odds: Floats, cascade: bool = False) -> tuple[float, float]:
    """Revenue and cost a request: the sum over all slates."""
    chance = conditional_propensities(np.log(odds)[None].repeat(12, 0), EVERY).prod(axis=1)
    clicks = LOOKS * CLICK[EVERY]
    if cascade:
        clicks[:, 1] = looked(CLICK[EVERY[:, 0]]) * CLICK[EVERY[:, 1]]
    revenue = (clicks * REVENUE[EVERY]).sum(axis=1)
    cost = (PER_CLICK * BID * clicks + PER_VIEW * BID).sum(axis=1)
    return float(chance @ revenue), float(chance @ cost)


def world(
    share: Floats,
    seed: int,
    new: Floats = NEW,
    model: float = 1.0,
    spread: float = 0.0,
    cascade: bool = False,
) -> ArmsOnLog:
    """Slates of one request a user, half of them or so in each arm.

    `model` is how many times the true click rate the models expect, `spread` how unequal users are.
    """
    rng, n = np.random.default_rng(seed), share.size
    canary = rng.random(n) < share
    odds = np.where(canary[:, None], new, OLD)
    ads, propensity = sample(np.log(odds), 2, rng)
    draw = rng.random((n, 2))
    clicked = draw < LOOKS * CLICK[ads]
    if cascade:
        clicked[:, 1] = draw[:, 1] < looked(clicked[:, 0]) * CLICK[ads[:, 1]]
    worth = np.exp(spread * rng.normal(size=(n, 1)) - spread**2 / 2)
    ones = np.ones((n, 2))
    slates = Slates(
        row=np.arange(n),
        user=np.arange(1, n + 1, dtype=np.int32),
        ad=ads.astype(np.int32) + 1,
        position=np.tile(np.array([1, 2], np.int32), (n, 1)),
        present=ones > 0,
        clicked=clicked,
        revenue=np.where(clicked, worth * REVENUE[ads], 0.0),
        cost=np.where(clicked, PER_CLICK * BID, 0.0) + PER_VIEW * BID,
        propensity=propensity,
        expected=ones,
        known=ones,
        canary=canary,
    )
    wide = np.ones((n, 1))
    sets = CandidateSets(
        request=slates.row,
        user=slates.user,
        ad=np.tile(np.arange(1, 5, dtype=np.int32), (n, 1)),
        click=wide * model * CLICK,
        conversion=wide * model * CLICK,
        revenue=wide * REVENUE,
        expected_cost=wide * (PER_CLICK * BID * model * CLICK + PER_VIEW * BID),
        bid=np.full((n, 4), int(BID)),
        price=np.full((n, 4), int(BID)),
    )
    champion, challenger = (_replayed(slates, sets, each) for each in (OLD, new))
    return ArmsOnLog(slates, share, canary, champion, challenger)


def _replayed(slates: Slates, sets: CandidateSets, odds: Floats) -> TargetOnLog:
    week = LoggedWeek.served(Examination(LOOKS), np.arange(5, dtype=np.int32))
    logits, rng = np.log(odds)[None].repeat(slates.row.size, 0), np.random.default_rng(1)
    shares = CostShares(PER_VIEW, PER_CLICK, 0.0)
    return target_on_log(slates, sets, logits, shares, week, 1, rng)


HALF = np.full(4000, 0.5)


def found(arms: ArmsOnLog, earlier: Floats | None = None) -> TrialEstimate:
    return evidence(arms, LIMITS, 1.0, earlier)


def kinds(estimate: TrialEstimate) -> set[str]:
    return {one.kind for one in estimate.findings}


@pytest.mark.parametrize("model", [1.0, 0.3])
def test_both_policies_and_their_difference_are_found(model: float) -> None:
    """With a model that is right and with one that expects a third of the clicks."""
    estimate = found(world(HALF, 3, model=model))
    assert estimate.verdict == "conclusive", estimate.findings
    (old_revenue, old_cost), (new_revenue, new_cost) = truth(OLD), truth(NEW)
    old, new = old_revenue - old_cost, new_revenue - new_cost
    for got, true in (
        (estimate.champion.value, old),
        (estimate.challenger.value, new),
        (estimate.delta, new - old),
        (estimate.champion.roi, old_revenue / old_cost - 1),
        (estimate.challenger.roi, new_revenue / new_cost - 1),
        (estimate.lift, new / old - 1),
        (estimate.roi_lift, new_revenue / new_cost / (old_revenue / old_cost) - 1),
    ):
        assert got is not None
        assert got.low < true < got.high
    assert estimate.delta.value == pytest.approx(
        estimate.challenger.value.value - estimate.champion.value.value
    )
    assert estimate.delta.error < 0.1 * (new - old)


def test_a_policy_against_itself_is_exactly_nothing() -> None:
    """Every weight is 1, Delta 0 and its error 0, and it is said."""
    estimate = found(world(HALF, 4, new=OLD, model=0.3, spread=0.5), np.arange(4000.0))
    for arm in (estimate.champion, estimate.challenger):
        assert arm.diagnostics is not None
        assert arm.diagnostics.max_weight == arm.diagnostics.mean_weight == 1.0
        assert arm.diagnostics.effective_sample_size == pytest.approx(4000)
    assert estimate.delta.value == estimate.delta.error == estimate.delta.low == 0.0
    assert kinds(estimate) == {"identical"}


def test_a_share_that_grows_is_allowed_for() -> None:
    """First a twentieth, then half: hours of the small share weigh no more than the others."""
    share = np.where(np.arange(6000) < 1500, 0.05, 0.5)
    estimate = found(world(share, 5))
    true = np.subtract(*truth(NEW)) - np.subtract(*truth(OLD))
    assert estimate.delta.low < true < estimate.delta.high
    assert estimate.challenger.diagnostics is not None
    assert estimate.challenger.diagnostics.max_weight <= 20
    assert estimate.challenger.diagnostics.mean_weight == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("share", [HALF, np.where(np.arange(4000) < 1000, 0.05, 0.5)])
def test_without_a_champion_to_replay_the_arms_are_compared(share: Floats) -> None:
    arms = replace(world(share, 6), champion=None)
    estimate = found(arms)
    assert estimate.estimator == "arms"
    assert estimate.champion.diagnostics is None
    true = np.subtract(*truth(NEW)) - np.subtract(*truth(OLD))
    assert estimate.delta.low < true < estimate.delta.high
    assert estimate.delta.error > 1.5 * found(world(share, 6)).delta.error


def test_the_difference_of_the_arms_at_half_is_that_of_their_means() -> None:
    arms = replace(world(HALF, 7), champion=None)
    value = (arms.slates.revenue - arms.slates.cost).sum(axis=1)
    new, old = value[arms.canary], value[~arms.canary]
    estimate = found(arms)
    assert estimate.delta.value == pytest.approx(new.mean() - old.mean())
    naive = np.sqrt(new.var() / new.size + old.var() / old.size)
    assert estimate.delta.error == pytest.approx(naive, rel=0.01)


def test_what_users_brought_before_narrows_the_difference_of_arms() -> None:
    arms = replace(world(HALF, 8, spread=1.0), champion=None)
    brought = arms.slates.revenue.sum(axis=1) + np.random.default_rng(0).normal(size=4000)
    assert found(arms, brought).delta.error < 0.5 * found(arms).delta.error


def test_bad_input_is_named_and_never_conclusive() -> None:
    arms = world(HALF, 9)
    slates, n = arms.slates, HALF.size

    def logged(value: float) -> Slates:
        p = slates.propensity.copy()
        p[7, 1] = value
        return replace(slates, propensity=p)

    same_user = np.where(np.arange(n) % 2, slates.user - 1, slates.user).astype(np.int32)
    young = replace(slates, known=0.2 * slates.known)
    none = np.zeros(n, bool)
    for spoilt, kind in (
        (replace(arms, slates=logged(0.0)), "propensity"),
        (replace(arms, slates=logged(np.nan)), "propensity"),
        (replace(arms, slates=replace(slates, propensity=0.5 * slates.propensity)), "replay"),
        (replace(arms, champion=arms.challenger), "replay"),
        (replace(arms, canary=none), "arm"),
        (replace(arms, canary=~none), "arm"),
        (replace(arms, share=np.where(np.arange(n) == 3, 1.2, HALF)), "shares"),
        (replace(arms, share=np.zeros(n)), "shares"),
        (replace(arms, slates=replace(slates, user=same_user)), "leak"),
        (replace(arms, slates=young), "maturity"),
    ):
        estimate = found(spoilt)
        assert kind in kinds(estimate), estimate.findings
        assert estimate.verdict == "inconclusive"
        assert np.isfinite(estimate.delta.value)


def test_the_first_row_that_does_not_match_is_named() -> None:
    arms = world(HALF, 10)
    first = int(np.flatnonzero(~arms.canary)[0])
    off = replace(arms.slates, propensity=arms.slates.propensity * 0.5)
    (one,) = (each for each in found(replace(arms, slates=off)).findings if "champion" in each.text)
    assert one.row == first
    assert one.count == int((~arms.canary).sum())
    assert f"first is impression row {first}, position 1" in one.text


def test_propensities_as_small_as_numbers_are_no_evidence() -> None:
    tiny = replace(world(HALF, 11).slates, propensity=np.full((4000, 2), 1e-110))
    assert "replay" in kinds(found(replace(world(HALF, 11), slates=tiny)))


def test_a_cascade_is_told_by_the_clicks_below_clicks() -> None:
    """Where looks below a click are a quarter of those below none, and where they are as many."""
    arms = world(HALF, 12, cascade=True)
    below = below_a_click(arms.slates, arms.challenger)
    assert below.cascade
    assert below.ratio == pytest.approx(BELOW[0] / BELOW[1], abs=4 * 0.25 * below.error)
    estimate = found(arms)
    assert estimate.estimator == "cascade_dr"
    (old_revenue, old_cost), (new_revenue, new_cost) = truth(OLD, True), truth(NEW, True)
    assert (
        estimate.delta.low < new_revenue - new_cost - old_revenue + old_cost < estimate.delta.high
    )
    ratio = new_revenue / new_cost / (old_revenue / old_cost)
    assert estimate.roi_lift is not None
    assert estimate.roi_lift.low < ratio - 1 < estimate.roi_lift.high
    plain = world(HALF, 12)
    alike = below_a_click(plain.slates, plain.challenger)
    assert not alike.cascade
    assert abs(np.log(alike.ratio)) < 3 * alike.error


def test_a_policy_against_itself_in_a_cascade_is_exactly_nothing() -> None:
    estimate = found(world(HALF, 13, new=OLD, cascade=True))
    assert estimate.estimator == "cascade_dr"
    assert estimate.delta.value == estimate.delta.error == 0.0
    assert estimate.challenger.diagnostics is not None
    assert estimate.challenger.diagnostics.max_weight == 1.0
    assert kinds(estimate) == {"identical"}
