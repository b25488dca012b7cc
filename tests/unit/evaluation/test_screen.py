"""The truth table of the screen."""

from dataclasses import replace
from typing import Any

import pytest

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.evaluation import Estimate, Leaks, Report, RoiEstimate
from roiflow.artefacts.parity import ParityVerdict
from roiflow.errors import GateError
from roiflow.evaluation.screen import Subject, at_least, at_most, decide, value_lift
from roiflow.params import ScreenParams
from tests.records import (
    NOT_SERVED,
    SAME,
    A,
    B,
    agreement,
    estimate,
    metrics,
    report,
    roi_estimate,
)

PARAMS = ScreenParams(
    seed=7,
    resamples=100,
    confidence=0.95,
    min_click_auc=0.6,
    min_value_lift=0.0,
    min_refit_overlap=0.3,
    max_refit_value_factor=2.0,
    min_refit_propensity=0.3,
    first_model="allow",
)
NEEDS_OVERRIDE = PARAMS.model_copy(update={"first_model": "override"})
AGREED = agreement()
SIGNED = Override("Ada", "the holiday catalogue is new")


GOOD = estimate(0.1, 0.02, 0.2)
DOUBTFUL = estimate(0.1, -0.2, 0.4)
WORSE = estimate(-0.2, -0.3, -0.1)


def _over(lift: Estimate | None) -> dict[str, RoiEstimate]:
    return {} if lift is None else {"switch_dr": roi_estimate(estimate(0.3), lift)}


def _report(lift: Estimate | None = GOOD, **more: Any) -> Report:
    return report(**{"roi": _over(lift), **more})


def _decide(
    report: Report,
    champion: str | None = None,
    comparison: dict[str, RoiEstimate] | None = None,
    override: Override | None = None,
    params: ScreenParams = PARAMS,
    parity: ParityVerdict | None = NOT_SERVED,
    refit: Agreement | None = AGREED,
    champion_fitted: str | None = None,
    tried: bool = False,
) -> Decision:
    subject = Subject(A, champion, comparison, parity, refit, champion_fitted, tried)
    return decide(report, params, subject, override)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.7, 0.65, 0.75, "pass"),
        (0.61, 0.55, 0.67, "inconclusive"),
        (0.5, 0.45, 0.55, "fail"),
        (0.7, None, None, "pass"),
        (0.5, None, None, "fail"),
        (None, None, None, "fail"),
    ],
)
def test_at_least(value: float | None, low: float | None, high: float | None, verdict: str) -> None:
    assert at_least("auc", value, 0.6, low, high).verdict == verdict


def test_a_missing_threshold_fails() -> None:
    assert at_least("auc", 0.9, None).reason == "no threshold"
    assert at_most("ece", 0.0, None).verdict == "fail"
    assert value_lift("lift", GOOD, None).verdict == "fail"


def test_at_most() -> None:
    assert at_most("ece", 0.05, 0.05).verdict == "pass"
    assert at_most("ece", 0.06, 0.05).verdict == "fail"
    assert at_most("ece", None, 0.05).reason == "no value"


@pytest.mark.parametrize(
    ("lift", "verdict"),
    [
        (GOOD, "pass"),
        (estimate(0.01, -0.04, 0.06), "inconclusive"),
        (estimate(-0.01, -0.04, 0.02), "inconclusive"),
        (DOUBTFUL, "inconclusive"),
        (estimate(0.6, 0.5, 0.7), "pass"),
        (WORSE, "fail"),
        (estimate(0.9, 0.8, 1.0, verdict="inconclusive", reason="support"), "inconclusive"),
        (estimate(0.9, None, 1.0), "fail"),
        (estimate(None), "fail"),
        (None, "fail"),
    ],
)
def test_value_lift(lift: Estimate | None, verdict: str) -> None:
    assert value_lift("lift", lift, 0.0).verdict == verdict


LEAKY = _report(suspected_leak=Leaks(("AUC",), ()))


@pytest.mark.parametrize(
    ("report", "champion", "override", "params", "verdict", "promote", "rule"),
    [
        (_report(), None, None, PARAMS, "pass", True, "first model"),
        (_report(), None, None, NEEDS_OVERRIDE, "pass", False, "none"),
        (_report(), None, SIGNED, NEEDS_OVERRIDE, "pass", True, "override"),
        (_report(DOUBTFUL), None, None, PARAMS, "inconclusive", True, "first model"),
        (_report(DOUBTFUL), None, None, NEEDS_OVERRIDE, "inconclusive", False, "none"),
        (_report(DOUBTFUL), None, SIGNED, NEEDS_OVERRIDE, "inconclusive", True, "override"),
        (_report(WORSE), None, None, PARAMS, "fail", False, "none"),
        (_report(WORSE), None, SIGNED, PARAMS, "fail", True, "override"),
        (_report(models={}), None, None, PARAMS, "fail", False, "none"),
        (LEAKY, None, None, PARAMS, "fail", False, "none"),
        (_report(None), None, None, PARAMS, "fail", False, "none"),
    ],
)
def test_first_model(
    report: Report,
    champion: str | None,
    override: Override | None,
    params: ScreenParams,
    verdict: str,
    promote: bool,
    rule: str,
) -> None:
    decision = _decide(report, champion, None, override, params)
    assert (decision.verdict, decision.promote, decision.rule) == (verdict, promote, rule)


@pytest.mark.parametrize(
    ("lift", "verdict"), [(GOOD, "pass"), (DOUBTFUL, "inconclusive"), (WORSE, "fail")]
)
def test_with_a_champion_its_comparison_decides_and_never_promotes(
    lift: Estimate, verdict: str
) -> None:
    decision = _decide(_report(GOOD), B, _over(lift))
    assert (decision.verdict, decision.promote) == (verdict, False)
    assert decision.checks[-1].name == "value_lift_over_champion_switch_dr"


def test_without_propensities() -> None:
    report = _report(propensities_logged=False, roi={})
    first = _decide(report)
    assert (first.verdict, first.reason) == ("inconclusive", "no logged propensities")
    assert (first.promote, first.rule) == (True, "first model")
    later = _decide(report, B, {})
    assert (later.verdict, later.promote) == ("inconclusive", False)
    signed = _decide(report, B, {}, SIGNED)
    assert (signed.promote, signed.rule, signed.override) == (True, "override", SIGNED)


def test_the_champion_cannot_challenge_itself() -> None:
    with pytest.raises(GateError, match="same digest aaaa"):
        _decide(_report(), A, _over(GOOD))


def test_a_champion_must_be_compared() -> None:
    with pytest.raises(GateError, match="no comparison"):
        _decide(_report(), B)


@pytest.mark.parametrize("unsigned", [Override("", "why"), Override("who", "  ")])
def test_an_override_names_who_and_why(unsigned: Override) -> None:
    with pytest.raises(GateError, match="who and why"):
        _decide(_report(), override=unsigned)


def test_the_digest_holds_inputs_and_decision() -> None:
    digest = _decide(_report()).digest
    assert _decide(_report()).digest == digest
    assert _decide(_report(estimate(0.1, 0.02, 0.21))).digest != digest
    assert _decide(_report(), params=NEEDS_OVERRIDE).digest != digest
    assert _decide(_report(), override=SIGNED).digest != digest


DIFFERS = replace(SAME, verdict="fail", reason="3 slates differ, most in hour_sin", different=3)


@pytest.mark.parametrize(
    ("parity", "verdict"),
    [
        (NOT_SERVED, "pass"),
        (SAME, "pass"),
        (DIFFERS, "fail"),
        (replace(DIFFERS, reason=""), "fail"),
        (None, "fail"),
    ],
)
@pytest.mark.parametrize("champion", [None, B])
def test_features_that_were_served_otherwise_fail(
    parity: ParityVerdict | None, verdict: str, champion: str | None
) -> None:
    comparison = _over(GOOD) if champion else None
    decision = _decide(_report(), champion, comparison, parity=parity)
    assert decision.verdict == verdict
    assert decision.promote == (verdict == "pass" and champion is None)
    (check,) = (one for one in decision.checks if one.name == "feature_parity")
    assert check.verdict == verdict
    assert bool(check.reason) == (verdict == "fail")
    if parity and parity.reason:
        assert decision.reason == f"feature_parity: {parity.reason}"
    signed = _decide(_report(), champion, comparison, SIGNED, parity=parity)
    assert signed.promote
    assert signed.rule == ("first model" if decision.promote else "override")


def test_the_first_model_rule_does_not_overlook_parity() -> None:
    doubtful = _report(DOUBTFUL)
    assert _decide(doubtful).rule == "first model"
    assert _decide(doubtful, parity=None).rule == "none"


def test_the_digest_covers_the_parity_report() -> None:
    assert _decide(_report(), parity=SAME).digest != _decide(_report()).digest


@pytest.mark.parametrize(
    ("more", "check", "reason"),
    [
        ({"overlap": 0.29}, "refit_overlap", "0.29 is under 0.3"),
        ({"value_ratio": 2.5}, "refit_value_factor", "2.5 is over 2"),
        ({"value_ratio": 0.4}, "refit_value_factor", "2.5 is over 2"),
        ({"value_ratio": -1.0}, "refit_value_factor", "no value"),
        ({"propensity": 0.2}, "refit_propensity", "0.2 is under 0.3"),
        ({"shipped": B}, "refit_overlap", "compared were cccccccccccc and bbbbbbbbbbbb, evaluated"),
        ({"judged": B}, "refit_propensity", "and aaaaaaaaaaaa would ship"),
    ],
)
def test_a_refit_that_behaves_otherwise_does_not_ship(
    more: dict[str, object], check: str, reason: str
) -> None:
    decision = _decide(_report(GOOD), refit=agreement(**more))
    assert (decision.verdict, decision.promote) == ("fail", False)
    (found,) = (one for one in decision.checks if one.name == check)
    assert found.verdict == "fail"
    assert reason in found.reason
    assert decision.agreement == agreement(**more)


def test_a_refit_that_nobody_compared_does_not_ship() -> None:
    decision = _decide(_report(GOOD), refit=None)
    assert (decision.verdict, decision.promote) == ("fail", False)
    assert "refit_overlap: no value" in decision.reason
    digests = {_decide(_report(GOOD)).digest, decision.digest}
    assert len({*digests, _decide(_report(GOOD), refit=agreement(requests=1)).digest}) == 3


def test_a_champion_that_saw_the_test_week_is_no_measure() -> None:
    """Shipped by a run of the same week, it was fitted on what it would be compared on."""
    seen = _decide(_report(GOOD), B, _over(GOOD), champion_fitted="2026-W04")
    assert (seen.verdict, seen.promote) == ("inconclusive", False)
    assert "the champion was fitted on all weeks to 2026-W04, the test week too" in seen.reason
    assert _decide(_report(GOOD), B, _over(GOOD), champion_fitted="2026-W03").verdict == "pass"


def test_a_first_model_that_can_be_tried_has_to_be() -> None:
    """Beside whatever serves, as every later one: no rule takes the place of evidence."""
    found = _decide(_report(), tried=True)
    assert (found.verdict, found.promote, found.rule) == ("pass", False, "none")
    assert _decide(_report(), override=SIGNED, tried=True).rule == "override"
    assert found.digest != _decide(_report()).digest


def test_calibration_on_another_policy_s_log_refuses_nothing() -> None:
    models = {"rosa": metrics(auc=0.7, auc_low=0.68, auc_high=0.72, ece=0.3)}
    assert _decide(_report(models=models)).verdict == "pass"
