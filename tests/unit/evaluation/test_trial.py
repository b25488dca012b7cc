"""What a trial comes to: the rule by hand-worked numbers, and bad input, none of which promotes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.artefacts.decision import Check
from roiflow.artefacts.evaluation import Diagnostics, Finding, FindingKind, Interval
from roiflow.artefacts.trial import Look, Phase
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.evaluation.trial import (
    Case,
    Judgement,
    early_p,
    half_width,
    judge,
    split_checks,
)
from roiflow.experiment.assignment import in_canary
from roiflow.experiment.boundaries import tail
from roiflow.experiment.group_sequential import critical_values
from roiflow.features.table import Flags, Longs
from roiflow.params import load_params
from tests.trials import BUDGET, CHALLENGER, TRIAL, WEEK, arm, case, estimate, interval

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml").canary


def check(found: Judgement, name: str) -> Check:
    return next(one for one in found.checks if one.name == name)


def test_a_refresh_passes_with_a_loss_over_the_margin_ruled_out() -> None:
    found = judge(case(), PARAMS)
    assert (found.verdict, found.reason, found.more_requests) == ("pass", "", None)
    # P(Z > (2 + 3) / 1.8), and the one-sided bound 2 - 1.645 x 1.8.
    assert found.p == pytest.approx(0.002737, abs=1e-6)
    assert found.lift is not None
    assert found.lift.low == pytest.approx(0.02 - 1.644854 * 0.018)


@pytest.mark.parametrize(
    ("lift", "error", "verdict", "words"),
    [
        (0.001, 0.018, "inconclusive", "value_lift: +0.10% (-2.86% to +3.06%)|error_budget: p"),
        (-0.001, 0.018, "inconclusive", "the estimate is -0.10%, not over 0"),
        (-0.05, 0.018, "fail", "a loss: -5.00%, at most -2.04%"),
        (0.005, 0.03, "inconclusive", "a loss over 3.0% is not ruled out"),
    ],
)
def test_a_refresh_that_has_shown_too_little(
    lift: float, error: float, verdict: str, words: str
) -> None:
    found = judge(case(estimates=(estimate(lift, error),)), PARAMS)
    assert found.verdict == verdict
    assert any(word in found.reason for word in words.split("|"))


def test_a_new_recipe_has_to_gain() -> None:
    found = judge(case(refresh=False), PARAMS)
    assert found.verdict == "inconclusive"
    assert "that it is no gain is not ruled out" in found.reason
    assert judge(case(refresh=False, estimates=(estimate(0.05),)), PARAMS).verdict == "pass"


def test_weeks_of_a_new_recipe_are_pooled_by_what_they_know() -> None:
    # Weights 1 and 4: (2 x 1 + 4 x 4) / 5 = 3.6 %, error 1 / sqrt(1/4 + 1) = 0.894 %.
    weeks = (estimate(0.02, 0.02), estimate(0.04, 0.01))
    found = judge(case(refresh=False, estimates=weeks), PARAMS)
    assert found.lift is not None
    assert found.lift.value == pytest.approx(0.036)
    assert found.lift.error == pytest.approx(0.00894427)
    assert found.verdict == "pass"


def test_inconclusive_says_how_many_requests_would_tell() -> None:
    # At +1 % the loss over 3 % is ruled out at the budget's level (2.2 standard errors) once the
    # error is 4 / 2.2 = 1.818 %; it is 2.5 % with 18,000: (1.375^2 - 1) of them are lacking.
    found = judge(case(estimates=(estimate(0.01, 0.025),)), PARAMS)
    assert found.more_requests == pytest.approx(18000 * (1.375**2 - 1), rel=1e-3)
    assert f"about {found.more_requests:,} more requests would tell" in found.reason


def test_a_spent_budget_promotes_nothing_however_good() -> None:
    spent = replace(BUDGET, level=0.0, left=0.0)
    found = judge(case(budget=spent, estimates=(estimate(0.5),)), PARAMS)
    assert found.verdict == "inconclusive"
    assert found.more_requests is None
    assert "the 2026 budget (0.000 of 0.1 left) allows 0" in found.reason


def test_a_loss_of_roi_has_to_be_ruled_out() -> None:
    for lift, verdict in ((-0.02, "pass"), (-0.04, "inconclusive"), (-0.1, "fail")):
        found = judge(case(estimates=(estimate(roi_lift=interval(lift, 0.01)),)), PARAMS)
        assert found.verdict == verdict, lift
    assert judge(case(estimates=(estimate(roi_lift=None),)), PARAMS).verdict == "fail"


@pytest.mark.parametrize("share", [None, interval(19.5, 76.0)])
def test_where_what_serves_may_earn_nothing_a_gain_counts_in_money(share: Interval | None) -> None:
    nothing = replace(arm(1.0), value=interval(1.0, 4.0))
    week = replace(estimate(0.02, 0.005), lift=share, champion=nothing)
    found = judge(case(estimates=(week,)), PARAMS)
    assert found.verdict == "pass"
    assert found.lift is None
    assert check(found, "value_lift").value == pytest.approx(20.0)
    assert check(found, "value_lift").threshold == 0
    worse = judge(case(estimates=(replace(week, delta=interval(-20.0, 5.0)),)), PARAMS)
    assert "a loss: -20 micros a request, at most -12 micros" in worse.reason


def test_a_noisy_value_of_what_serves_does_not_hide_a_gain_that_is_shown() -> None:
    # Five standard errors of Delta; the ratio to a value of 2.8 errors has only 2.5 of its own.
    noisy = replace(arm(22.0), value=interval(22.0, 7.8))
    week = replace(
        estimate(), champion=noisy, lift=interval(12.2, 4.9), delta=interval(269.0, 53.8)
    )
    found = judge(case(refresh=False, estimates=(week,)), PARAMS)
    assert found.verdict == "pass"
    assert found.p == pytest.approx(2.87e-7, rel=0.01)


def stopped() -> Case:
    phases = (*TRIAL.phases, Phase(WEEK.start + 2 * MICROS_PER_DAY, 0.0, "stopped: -9 %"))
    return case(trial=replace(TRIAL, phases=phases))


def finding(kind: FindingKind) -> Case:
    return case(estimates=(estimate(findings=(Finding(kind, 3, 7, f"3 slates: {kind}"),)),))


def few(users: int) -> Case:
    return case(estimates=(estimate(challenger=arm(1020.0, users)),))


def clipped() -> Case:
    seen = Diagnostics(18000, 12000.0, 2.0, 1.0, 1.0, clipped=0.2)
    return case(estimates=(estimate(challenger=replace(arm(1020.0), diagnostics=seen)),))


@pytest.mark.parametrize(
    ("bad", "verdict", "words"),
    [
        (stopped(), "fail", "harm: stopped: -9 %"),
        (case(estimates=()), "fail", "evidence: no estimate of both arms"),
        (case(click_ece=0.06), "fail", "click_ece: calibration error 0.060 over 0.05"),
        (case(click_ece=None), "fail", "click_ece: not measured"),
        (case(challenger="d" * 64), "fail", "on trial was cccccccccccc"),
        (case(champion="d" * 64), "fail", "beside it served aaaaaaaaaaaa, champion is dddddd"),
        (case(champion=None), "fail", "champion is no package"),
        (
            case(trial=replace(TRIAL, champion=CHALLENGER), champion=CHALLENGER),
            "fail",
            "challenger and champion are one package",
        ),
        (case(estimates=(estimate(estimator="arms"),)), "fail", "aaaaaaaaaaaa cannot be replayed"),
        (case(trial=replace(TRIAL, phases=())), "fail", "harm: the trial never began"),
        (few(0), "fail", "challenger_users: 0 users in this arm"),
        (few(39), "inconclusive", "challenger_users: 39 users in this arm, 40"),
        (clipped(), "fail", "clipped_mass: 20.00% of the weights were cut off"),
        (finding("propensity"), "fail", "log_propensity: 3 slates: propensity"),
        (finding("replay"), "fail", "log_replay"),
        (finding("shares"), "fail", "log_shares"),
        (finding("arm"), "fail", "log_arm"),
        (finding("leak"), "fail", "log_leak"),
        (finding("identical"), "fail", "log_identical"),
        (finding("weights"), "inconclusive", "log_weights"),
        (finding("maturity"), "inconclusive", "log_maturity"),
        (
            case(estimates=(estimate(lift=0.0, error=0.0),)),
            "fail",
            "value_lift: the champion's value or its error is not known",
        ),
    ],
)
def test_bad_input_is_named_and_promotes_nothing(bad: Case, verdict: str, words: str) -> None:
    found = judge(bad, PARAMS)
    assert found.verdict == verdict
    assert words in found.reason


def test_a_log_that_is_none_of_a_trial_costs_no_budget() -> None:
    assert judge(finding("replay"), PARAMS).p is None
    assert judge(case(click_ece=0.06), PARAMS).p == pytest.approx(0.002737, abs=1e-6)


def test_one_promoted_early_passes_by_its_own_boundary() -> None:
    phases = (*TRIAL.phases, Phase(WEEK.start + 2 * MICROS_PER_DAY, 1.0, "promoted"))
    look = Look(phases[-1].since, 5000, 300.0, 40.0, 120.0, 480.0, 1000.0)
    early = replace(TRIAL, phases=phases, looks=(look,))
    few_requests = (estimate(0.3, 0.2, requests=5000),)  # alone it would rule out nothing
    found = judge(case(trial=early, estimates=few_requests), PARAMS)
    assert found.verdict == "pass"
    assert found.p is not None
    assert 0 < found.p < 1e-9
    # The same look with ten times the error has shown nothing.
    noisy = replace(early, looks=(replace(look, error=400.0),))
    assert judge(case(trial=noisy, estimates=few_requests), PARAMS).verdict == "inconclusive"


LOOK = Look(WEEK.start, 5000, 300.0, 40.0, 120.0, 480.0, 1000.0)

USERS = [f"user-{number % 3000}" for number in range(12000)]
TIMES = WEEK.start + np.arange(12000) * (7 * MICROS_PER_DAY // 12000)


def split(canary: Flags, users: list[str] = USERS, times: Longs = TIMES) -> dict[str, Check]:
    return {one.name: one for one in split_checks(users, times, canary, TRIAL, PARAMS)}


def by_hash() -> Flags:
    return in_canary(USERS, TRIAL.salt, TRIAL.share_at(TIMES))


def test_the_hash_s_own_split_is_sound() -> None:
    assert {one.verdict for one in split(by_hash()).values()} == {"pass"}


def test_a_user_in_both_arms_is_named() -> None:
    leaked = by_hash()
    leaked[-30:] = ~leaked[-30:]
    found = split(leaked)["misassigned"]
    assert found.verdict == "fail"
    assert found.reason.endswith("that the hash does not give: first is user 'user-2970'")


def test_a_user_who_went_back_is_in_the_wrong_arm() -> None:
    back = by_hash()
    back[TIMES[9000] < TIMES] = in_canary(USERS, TRIAL.salt, 0.05)[TIMES[9000] < TIMES]
    assert split(back)["misassigned"].verdict == "fail"


def test_an_arm_that_lost_its_log_is_found_by_its_users() -> None:
    canary = by_hash()
    kept = ~canary | (np.arange(12000) % 3000 % 2 == 0)
    users = [user for user, its in zip(USERS, kept, strict=True) if its]
    found = split(canary[kept], users, TIMES[kept])
    assert found["misassigned"].verdict == "pass"
    assert found["sample_ratio"].verdict == "fail"


def test_an_arm_that_started_late_or_never() -> None:
    late = WEEK.start + 30 * MICROS_PER_HOUR < TIMES
    found = split(by_hash() & late)["started"]
    assert found.verdict == "fail"
    assert found.reason.startswith("the canary started 30.")
    none = split(np.zeros(12000, bool))
    assert none["started"].reason == "the canary served nothing"


def test_planned_looks_are_narrower_and_count_each_look() -> None:
    planned = PARAMS.model_copy(update={"boundary": "planned"})
    found = estimate(0.05, 0.018, requests=9000)
    widths = [half_width(found, [LOOK] * taken, planned) for taken in range(3)]
    # Three looks at 2.5 % on each side, spent as Hwang, Shih and DeCani do with -4.
    assert widths == pytest.approx([18 * z for z in critical_values(3, 0.025, -4.0)])
    assert widths[-1] < half_width(found, [LOOK], PARAMS)
    one = replace(TRIAL, looks=(replace(LOOK, delta=20.0, error=18.0),))
    assert early_p(one, 0.03, planned) == pytest.approx(3 * tail(50 / 18))
