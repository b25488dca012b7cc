"""Whether a package may be tried beside what serves: pass, fail or inconclusive.

The screen looks at what the past tells, the champion's log. That can show that a package is bad and
not that it is good, so a screen only refuses: what does not fail goes on trial, and its trial
promotes (evaluation.trial). Fail-closed: what is missing fails. Two recorded rules promote without
a trial: the first-model rule, where there is neither a champion to lose nor anything to try it
beside, and an override by a named person with a reason.
"""

from dataclasses import asdict, dataclass, replace

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.decision import Check, Decision, Override, Rule, Verdict
from roiflow.artefacts.evaluation import PRIMARY, Estimate, Report, RoiEstimate
from roiflow.artefacts.parity import NOT_SERVED, ParityVerdict
from roiflow.artefacts.record import canonical_digest
from roiflow.errors import GateError
from roiflow.evaluation.roi import NO_PROPENSITIES
from roiflow.params import ScreenParams

PARITY = "feature_parity"


def at_least(
    name: str,
    value: float | None,
    threshold: float | None,
    low: float | None = None,
    high: float | None = None,
) -> Check:
    """Pass where the interval lies at or above the threshold, fail where it lies below.

    Without an interval the value alone decides; a missing value or threshold fails.
    """
    if value is None or threshold is None:
        return _missing(name, value, threshold)
    # The whole interval has to be on one side: a value just over the threshold whose interval
    # reaches under it has shown nothing.
    bottom, top = value if low is None else low, value if high is None else high
    verdict: Verdict = (
        "pass" if bottom >= threshold else "fail" if top < threshold else "inconclusive"
    )
    reason = {
        "pass": "",
        "fail": f"{top:.4g} is under {threshold:.4g}",
        "inconclusive": f"{bottom:.4g} to {top:.4g} spans {threshold:.4g}",
    }[verdict]
    return Check(name, value, low, high, threshold, verdict, reason)


def at_most(name: str, value: float | None, threshold: float | None) -> Check:
    """Pass where the value is at or under the threshold; a missing one fails."""
    if value is None or threshold is None:
        return _missing(name, value, threshold)
    good = value <= threshold
    reason = "" if good else f"{value:.4g} is over {threshold:.4g}"
    return Check(name, value, None, None, threshold, "pass" if good else "fail", reason)


def value_lift(name: str, estimate: Estimate | None, least: float | None) -> Check:
    """Fail where the lift is shown to be under `least`, or is missing; doubt is no refusal."""
    if estimate is None or least is None:
        return _missing(name, None, least)
    value, low, high = estimate.value, estimate.low, estimate.high
    if estimate.verdict != "conclusive":
        reason = estimate.reason or "the estimate is inconclusive"
        return Check(name, value, low, high, least, "inconclusive", reason)
    if low is None or high is None:
        return _missing(name, None, least)
    return at_least(name, value, least, low, high)


def _missing(name: str, value: float | None, threshold: float | None) -> Check:
    what = "threshold" if threshold is None and value is not None else "value"
    return Check(name, value, None, None, threshold, "fail", f"no {what}")


def parity_check(parity: ParityVerdict | None) -> Check:
    """Pass where what served the test week had the features that training sees, or none served.

    Without a parity report nothing shows that, so it fails.
    """
    if parity is None:
        return Check(PARITY, None, None, None, None, "fail", "no parity report of the test week")
    # Named are the two verdicts that pass, not the one that fails: closed to any other.
    good = parity.verdict in ("pass", NOT_SERVED)
    reason = "" if good else parity.reason or "no reason was given"
    value, limit = parity.different, parity.max_different_fraction
    return Check(PARITY, value, None, None, limit, "pass" if good else "fail", reason)


def refit_checks(
    agreement: Agreement | None, challenger: str, judged: str | None, params: ScreenParams
) -> tuple[Check, ...]:
    """Pass where what ships behaves as what was judged; without a comparison of the two, fail.

    `judged` is the digest of the evaluated package, `challenger` of the one that ships.
    """
    found = agreement
    checks = (
        at_least("refit_overlap", found.overlap if found else None, params.min_refit_overlap),
        at_most(
            "refit_value_factor",
            factor(found.value_ratio) if found else None,
            params.max_refit_value_factor,
        ),
        at_least(
            "refit_propensity", found.propensity if found else None, params.min_refit_propensity
        ),
    )
    if found is None:
        return checks
    # Files of two attempts may lie in one checkout: how two other packages agree says nothing.
    if (found.judged, found.shipped) != (judged, challenger):
        reason = (
            f"compared were {found.judged[:12]} and {found.shipped[:12]}, "
            f"evaluated was {str(judged)[:12]} and {challenger[:12]} would ship"
        )
        return tuple(replace(check, verdict="fail", reason=reason) for check in checks)
    return checks


def factor(ratio: float) -> float | None:
    """How many times one of two is the other; None where one of them is nothing or a loss."""
    return max(ratio, 1.0 / ratio) if ratio > 0 else None


def check_distinct(challenger: str, champion: str | None) -> None:
    """Raises GateError where the challenger's digest is the champion's."""
    if challenger == champion:
        raise GateError(f"challenger and champion have the same digest {challenger}")


@dataclass(frozen=True)
class Subject:
    """A package, what it is held against, and what was found of the two."""

    challenger: str
    """Digest."""
    champion: str | None
    comparison: dict[str, RoiEstimate] | None
    """Of the challenger over the champion on the same slates, by estimator; None without one."""
    parity: ParityVerdict | None
    """Of the test week; None where nobody compared what was served."""
    agreement: Agreement | None
    champion_fitted: str | None = None
    """The last week that the champion was fitted on."""
    tried: bool = False
    """Whether something serves, without a champion too, that it can be tried beside."""


def decide(
    report: Report, params: ScreenParams, subject: Subject, override: Override | None = None
) -> Decision:
    """Decide on the package with digest `subject.challenger`.

    Raises GateError where the challenger is the champion, where a champion was not compared, or
    where an override names no one.
    """
    challenger, champion = subject.challenger, subject.champion
    check_distinct(challenger, champion)
    if champion is not None and subject.comparison is None:
        raise GateError(f"no comparison with the champion {champion}")
    if override is not None and not (override.who.strip() and override.why.strip()):
        raise GateError(
            f"override needs who and why: who is {override.who!r}, why {override.why!r}"
        )
    refit = refit_checks(subject.agreement, challenger, report.package, params)
    absolute = (*_absolute_checks(report, params), parity_check(subject.parity), *refit)
    lift = _lift_check(report, subject, params)
    checks = (*absolute, lift)
    verdict = _worst(checks)
    rule = _rule(subject, params, override, _worst(absolute) == "pass" and verdict != "fail")
    # Only the checks that are as bad as the verdict: an inconclusive one beside a failed one would
    # send the reader to the wrong place.
    reasons = [f"{check.name}: {check.reason}" for check in checks if check.verdict == verdict]
    if lift.reason == NO_PROPENSITIES and verdict == "inconclusive":
        reasons = [NO_PROPENSITIES]
    # Made without a digest first, because the digest is of everything else in it.
    decision = Decision(
        verdict=verdict,
        promote=rule != "none",
        rule=rule,
        reason="" if verdict == "pass" else "; ".join(reasons),
        checks=checks,
        challenger=challenger,
        champion=champion,
        override=override,
        digest="",
        comparison=subject.comparison,
        parity=subject.parity,
        agreement=subject.agreement,
    )
    return replace(decision, digest=_digest(report, params, subject, decision))


def _rule(subject: Subject, params: ScreenParams, override: Override | None, sound: bool) -> Rule:
    """What promotes without a trial; `sound` where nothing but an unproven lift is held against it.

    Where something serves, even a first model has to show on trial that it is better.
    """
    first = subject.champion is None and not subject.tried
    if first and sound and params.first_model == "allow":
        return "first model"
    return "none" if override is None else "override"


def _digest(report: Report, params: ScreenParams, subject: Subject, decision: Decision) -> str:
    """sha256 over what went in and what came out.

    The inputs that a decision carries along count among the inputs, and the digest for nothing.
    """
    came_out = asdict(decision)
    for name in ("digest", "comparison", "parity", "agreement"):
        del came_out[name]
    inputs = {"report": asdict(report), **asdict(subject), "params": params.model_dump()}
    return canonical_digest({"inputs": inputs, "decision": came_out})


def _absolute_checks(report: Report, params: ScreenParams) -> tuple[Check, ...]:
    # Not the calibration error: the log is another policy's, and what the package shows will be
    # other ads. It is measured, and mended, on the users of its trial.
    metrics = report.models.get(report.ranker, {})
    auc, leaks = "test_full_click_auc", report.suspected_leak.predictions
    # A float on both sides: 0 and 0.0 are two texts, and would be two digests of one decision.
    found, none = float(len(leaks)), 0.0
    return (
        at_least(
            auc,
            metrics.get(auc),
            params.min_click_auc,
            metrics.get(f"{auc}_low"),
            metrics.get(f"{auc}_high"),
        ),
        Check(
            "suspected_leak", found, None, None, none, "fail" if leaks else "pass", "; ".join(leaks)
        ),
    )


def _lift_check(report: Report, subject: Subject, params: ScreenParams) -> Check:
    comparison, fitted, least = subject.comparison, subject.champion_fitted, params.min_value_lift
    over = "logged" if comparison is None else "champion"
    name = f"value_lift_over_{over}_{PRIMARY}"
    if not report.propensities_logged:
        return Check(name, None, None, None, least, "inconclusive", NO_PROPENSITIES)
    if fitted is not None and fitted >= report.week:
        reason = f"the champion was fitted on all weeks to {fitted}, the test week too"
        return Check(name, None, None, None, least, "inconclusive", reason)
    estimate = (report.roi if comparison is None else comparison).get(PRIMARY)
    return value_lift(name, None if estimate is None else estimate.value_lift, least)


def _worst(checks: tuple[Check, ...]) -> Verdict:
    order: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")
    return max((check.verdict for check in checks), key=order.index)
