"""Whether a challenger that was on trial becomes champion: pass, fail or inconclusive.

Value decides, with its error; ROI stands beside it as a guard-rail. A refresh (the same recipe,
newer data) needs an estimate over 0 and a loss over the margin ruled out; anything else a gain that
is shown. Both at a level that the year's error budget leaves. Fail-closed: what is wrong with the
log or missing fails, what cannot be told apart from noise is inconclusive and says how many
requests would tell, and only a pass promotes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from roiflow.artefacts.decision import Check, Verdict
from roiflow.artefacts.evaluation import Finding, Interval, TrialEstimate
from roiflow.artefacts.record import Record
from roiflow.artefacts.trial import Budget, Look, Trial
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.experiment import ratio
from roiflow.experiment.assignment import in_canary
from roiflow.experiment.boundaries import Boundary, quantile, tail
from roiflow.experiment.group_sequential import critical_values
from roiflow.features.table import Flags, Floats, Longs
from roiflow.params import CanaryParams

WRONG = frozenset({"propensity", "replay", "shares", "arm", "leak", "identical"})
"""Findings that no further evidence would cure."""

LOG = "log_"
"""Precedes the kind of a finding in the name of its check."""

OF_THE_LOG = frozenset({"packages", "misassigned", "sample_ratio", "started"})
"""Checks without which, as without those of WRONG findings, the log is of no trial at all."""


WELL_KNOWN = 4.0
"""Standard errors that the champion's value is over 0 before gains count as shares of it."""


@dataclass(frozen=True)
class Case:
    """All that a decision on a trial is taken from."""

    trial: Trial
    challenger: str
    """Digest of the package to be decided on."""
    champion: str | None
    """Digest of the registry's champion; None where there is none."""
    refresh: bool
    """Of the champion's own recipe."""
    split: tuple[Check, ...]
    """Of who was in which arm: `split_checks`."""
    estimates: tuple[TrialEstimate, ...]
    """One of each week that this challenger was on trial in, this week's last."""
    click_ece: float | None
    """Of the canary, on its own users, from its second day on."""
    max_ece: float
    budget: Budget


@dataclass(frozen=True)
class Judgement(Record):
    """What a trial comes to."""

    verdict: Verdict
    checks: tuple[Check, ...]
    reason: str
    """Empty of a pass."""
    lift: Interval | None
    """Of value, of all weeks together; one-sided bounds. None where there is no estimate, or what
    serves is not known to earn anything, of which it could be a share."""
    p: float | None
    """Of the true lift being under the margin: what the year's budget counts. None where the log
    was no evidence, and nothing was tested."""
    more_requests: int | None
    """About so many more would tell, as things look now; None where none would, or none are
    needed."""


@dataclass(frozen=True)
class _Gain:
    """What the weeks say together."""

    lift: Interval
    """As a share of the champion's value, or of Delta in micros a request."""
    relative: bool
    p: float
    margin: float
    requests: int

    def said(self, value: float) -> str:
        """In words."""
        return f"{value:+.2%}" if self.relative else f"{value:+,.0f} micros a request"


def judge(case: Case, params: CanaryParams) -> Judgement:
    """Every check, and the worst of them."""
    trial, latest = case.trial, case.estimates[-1] if case.estimates else None
    checks = [*packages_checks(case), *case.split, harm_check(trial)]
    if latest is None:
        checks.append(_failed("evidence", "no estimate of both arms"))
        return _judged(checks, None, None)
    checks += finding_checks([one for week in case.estimates for one in week.findings])
    checks += evidence_checks(latest, params)
    checks.append(ece_check(case.click_ece, case.max_ece))
    sound = all(check.verdict != "fail" for check in checks)
    gain = gain_of(case, params)
    if gain is None:
        checks.append(_failed("value_lift", "the champion's value or its error is not known"))
        return _judged(checks, None, None)
    checks += [
        lift_check(gain, promoted_early(trial)),
        budget_check(gain, case.budget),
        roi_check(latest.roi_lift, params),
    ]
    return _judged(checks, gain, more_requests(gain, case.budget, params) if sound else None)


def split_checks(
    users: Sequence[str], times: Longs, canary: Flags, trial: Trial, params: CanaryParams
) -> tuple[Check, ...]:
    """Of requests (B,): whether each arm had the users that the edge's hash gives it, from when.

    That a user is in one arm, and moves into the canary as it grows, once and not back, follows
    from the hash; a log that says otherwise was split by something else.
    """
    share = trial.share_at(times)
    wrong = canary != in_canary(users, trial.salt, share)
    off = float(wrong.mean()) if wrong.size else 1.0
    first = f": first is user {users[int(wrong.argmax())]!r}" if wrong.any() else ""
    return (
        _at_most(
            "misassigned",
            off,
            params.max_misassigned,
            f"{int(wrong.sum())} of {wrong.size} requests are in an arm that the hash does not "
            f"give{first}",
        ),
        _ratio_check(users, canary, share, params),
        _start_check(times, canary, trial, params),
    )


def _ratio_check(users: Sequence[str], canary: Flags, share: Floats, params: CanaryParams) -> Check:
    numbers = np.unique(np.array(users, np.str_), return_inverse=True)[1]
    p = ratio.of_phases(numbers, canary, share)
    good = p >= params.ratio_level
    reason = "" if good else f"the arms hold other numbers of users than their shares: p = {p:.2g}"
    return Check(
        "sample_ratio", p, None, None, params.ratio_level, "pass" if good else "fail", reason
    )


def _start_check(times: Longs, canary: Flags, trial: Trial, params: CanaryParams) -> Check:
    if not canary.any():
        return _failed("started", "the canary served nothing")
    begun = int(times[canary].min())
    late = (begun - Week.parse(trial.week).start) / MICROS_PER_HOUR
    return _at_most(
        "started", late, float(params.max_late_hours), f"the canary started {late:.1f} hours late"
    )


def packages_checks(case: Case) -> tuple[Check, ...]:
    """Two packages, and those that the decision is about."""
    trial = case.trial
    faults = []
    if trial.challenger == trial.champion:
        faults.append(f"challenger and champion are one package, {trial.challenger[:12]}")
    if trial.challenger != case.challenger:
        faults.append(
            f"on trial was {trial.challenger[:12]}, to be decided on is {case.challenger[:12]}"
        )
    if trial.champion != case.champion:
        faults.append(
            f"beside it served {_name(trial.champion)}, champion is {_name(case.champion)}"
        )
    estimated = case.estimates[-1].estimator if case.estimates else None
    if trial.champion is not None and estimated == "arms":
        faults.append(f"the champion {trial.champion[:12]} cannot be replayed")
    return (_good("packages") if not faults else _failed("packages", "; ".join(faults)),)


def harm_check(trial: Trial) -> Check:
    """Fail where a look stopped the trial."""
    last = trial.phases[-1] if trial.phases else None
    if last is None:
        return _failed("harm", "the trial never began")
    if last.share > 0.0:
        return _good("harm")
    return _failed("harm", last.why or "the trial was stopped")


def finding_checks(findings: Sequence[Finding]) -> list[Check]:
    """One check of each kind that was found: fail where more evidence would not cure it."""
    found: dict[str, list[str]] = {}
    for one in findings:
        found.setdefault(one.kind, []).append(one.text)
    return [
        Check(
            f"{LOG}{kind}",
            None,
            None,
            None,
            None,
            "fail" if kind in WRONG else "inconclusive",
            "; ".join(texts),
        )
        for kind, texts in found.items()
    ]


def evidence_checks(estimate: TrialEstimate, params: CanaryParams) -> list[Check]:
    """Traffic of both arms, and what was cut off the weights."""
    checks = []
    for name, arm in (("champion", estimate.champion), ("challenger", estimate.challenger)):
        enough = arm.users >= params.min_users
        lacking = f"{arm.users} users in this arm, {params.min_users} are needed"
        verdict: Verdict = "pass" if enough else "inconclusive" if arm.users else "fail"
        reason = "" if enough else lacking
        checks.append(
            Check(f"{name}_users", arm.users, None, None, params.min_users, verdict, reason)
        )
    seen = estimate.challenger.diagnostics
    if seen is not None:
        reason = f"{seen.clipped:.2%} of the weights were cut off"
        cut = _at_most("clipped_mass", seen.clipped, params.max_clipped_mass, reason)
        checks.append(cut)
    return checks


def ece_check(error: float | None, limit: float) -> Check:
    """Calibration error of clicks; fail where it was not measured."""
    if error is None:
        return _failed("click_ece", "not measured on the canary's own users")
    reason = f"calibration error {error:.3f} over {limit:g} on the canary's own users"
    return _at_most("click_ece", error, limit, reason)


def gain_of(case: Case, params: CanaryParams) -> _Gain | None:
    """The lift over all weeks, by the inverse of their variances; None where it has no error."""
    # A share of what may be next to nothing says nothing, however much better the challenger is: a
    # gain counts in micros then, and the margin is 0.
    relative = all(one.lift and _well_known(one.champion.value) for one in case.estimates)
    each = [one.lift if relative and one.lift else one.delta for one in case.estimates]
    if not all(math.isfinite(one.value) and one.error > 0 for one in each):
        return None
    weights = [1.0 / one.error**2 for one in each]
    value = sum(w * one.value for w, one in zip(weights, each, strict=True)) / sum(weights)
    error = sum(weights) ** -0.5
    margin = params.margin if case.refresh and relative else 0.0
    half = quantile(params.confidence) * error
    if promoted_early(case.trial):
        p = early_p(case.trial, margin, params)
    else:
        p = tail((value + margin) / error)
    return _Gain(
        Interval(value, error, value - half, value + half),
        relative,
        p,
        margin,
        sum(one.requests for one in case.estimates),
    )


def _well_known(value: Interval) -> bool:
    """Whether a ratio to it has about the error that the delta method gives."""
    return value.value >= WELL_KNOWN * value.error


def promoted_early(trial: Trial) -> bool:
    """Whether a look let the challenger serve everybody."""
    return bool(trial.phases) and trial.phases[-1].share >= 1.0


def boundary_of(requests: int, error: float, params: CanaryParams) -> Boundary:
    """Of all looks of a trial, given what the first one was taken from.

    The variance alone says where the mixture lies: what was earned may be near 0.
    """
    return Boundary.tuned(params.alpha, requests, params.tuned_times**0.5 * error)


def planned_looks(params: CanaryParams) -> range:
    """Hours of a week at which a look is due."""
    return range(params.start_hours, params.last_look_hours + 1, params.look_hours)


def half_width(found: TrialEstimate, before: Sequence[Look], params: CanaryParams) -> float:
    """Of the interval of Delta at a look that follows others."""
    error = found.delta.error
    if error <= 0:
        return 0.0
    if params.boundary == "planned":
        count = len(planned_looks(params))
        each = critical_values(count, params.alpha / 2.0, params.spend_shape)
        return each[min(len(before), count - 1)] * error
    told = [(look.requests, look.error) for look in before if look.error > 0]
    first = told[0] if told else (found.requests, error)
    return boundary_of(*first, params).half_width(found.requests, error)


def early_p(trial: Trial, margin: float, params: CanaryParams) -> float:
    """The smallest of any look, of a true lift of -margin or less; valid over all of them."""
    if params.boundary == "planned":
        z = [(one.delta + margin * abs(one.champion)) / (one.error or 1.0) for one in trial.looks]
        return min([1.0, *(len(planned_looks(params)) * tail(one) for one in z)])
    # A look without an error is of two policies that do alike, and tells nothing.
    looks = [look for look in trial.looks if look.error > 0]
    if not looks:
        return 1.0
    boundary = boundary_of(looks[0].requests, looks[0].error, params)
    return min([1.0, *(_look_p(boundary, look, margin) for look in looks)])


def _look_p(boundary: Boundary, look: Look, margin: float) -> float:
    return boundary.p_value(look.requests, look.delta, look.error, -margin * abs(look.champion))


def lift_check(gain: _Gain, early: bool) -> Check:
    """Fail where a loss is shown; pass by the rule, or by the look that promoted."""
    lift = gain.lift
    verdict: Verdict = "inconclusive"
    what = f"a loss over {gain.margin:.1%} is" if gain.margin else "that it is no gain is"
    value, low, high = (gain.said(one) for one in (lift.value, lift.low, lift.high))
    reason = f"{value} ({low} to {high}): {what} not ruled out"
    if lift.high < 0:
        verdict, reason = "fail", f"a loss: {value}, at most {high}"
    elif lift.value <= 0:
        reason = f"the estimate is {value}, not over 0"
    elif early or lift.low > -gain.margin:
        verdict, reason = "pass", ""
    return Check("value_lift", lift.value, lift.low, lift.high, -gain.margin, verdict, reason)


def budget_check(gain: _Gain, budget: Budget) -> Check:
    """Pass where the p-value is within what the year leaves."""
    good = gain.p <= budget.level
    reason = ""
    if not good:
        reason = (
            f"p = {gain.p:.2g} of a true lift under {-gain.margin:+.1%}; the {budget.year} budget "
            f"({budget.left:.3f} of {budget.budget:g} left) allows {budget.level:.2g}"
        )
    verdict: Verdict = "pass" if good else "inconclusive"
    return Check("error_budget", gain.p, None, None, budget.level, verdict, reason)


def roi_check(lift: Interval | None, params: CanaryParams) -> Check:
    """Fail where a loss of ROI over the bound is shown, pass where it is ruled out."""
    if lift is None:
        return _failed("roi_loss", "ROI of both is not defined")
    # By its logarithm, as a ratio of ratios is skewed; one-sided, as a gain harms nobody.
    ratio_, half = 1.0 + lift.value, quantile(params.confidence) * lift.error / (1.0 + lift.value)
    low, high = ratio_ * math.exp(-half) - 1.0, ratio_ * math.exp(half) - 1.0
    verdict: Verdict = "inconclusive"
    reason = f"a loss of ROI over {params.max_roi_loss:.0%} is not ruled out: {low:+.2%}"
    if low >= -params.max_roi_loss:
        verdict, reason = "pass", ""
    elif high < -params.max_roi_loss:
        verdict, reason = "fail", f"ROI falls by {-high:.2%} or more"
    return Check("roi_loss", lift.value, low, high, -params.max_roi_loss, verdict, reason)


def more_requests(gain: _Gain, budget: Budget, params: CanaryParams) -> int | None:
    """How many more until the verdict, if the estimate stays; None where it is there, or none help.

    The error falls with the root of the requests. Under 0 it is a loss that they would show.
    """
    level = min(budget.level, 1.0 - params.confidence)
    if level <= 0.0 or gain.lift.value == 0.0:
        return None
    if gain.lift.value > 0:
        wanted = (gain.lift.value + gain.margin) / quantile(1.0 - level)
    else:
        wanted = -gain.lift.value / quantile(params.confidence)
    more = gain.requests * ((gain.lift.error / wanted) ** 2 - 1.0)
    return math.ceil(more) if more > 0 else None


def _judged(checks: Sequence[Check], gain: _Gain | None, more: int | None) -> Judgement:
    order: tuple[Verdict, ...] = ("pass", "inconclusive", "fail")
    verdict = max((check.verdict for check in checks), key=order.index)
    # Only those as bad as the verdict: an inconclusive one beside a failed one would send the
    # reader to the wrong place.
    reasons = [f"{one.name}: {one.reason}" for one in checks if one.verdict == verdict]
    if verdict == "inconclusive" and more is not None:
        reasons.append(f"about {more:,} more requests would tell, if the estimate stays")
    faulty = any(
        one.verdict == "fail" and (one.name in OF_THE_LOG or one.name.startswith(LOG))
        for one in checks
    )
    return Judgement(
        verdict=verdict,
        checks=tuple(checks),
        reason="" if verdict == "pass" else "; ".join(reasons),
        lift=gain.lift if gain and gain.relative else None,
        p=None if gain is None or faulty else gain.p,
        more_requests=more if verdict == "inconclusive" else None,
    )


def _good(name: str) -> Check:
    return Check(name, None, None, None, None, "pass", "")


def _failed(name: str, reason: str) -> Check:
    return Check(name, None, None, None, None, "fail", reason)


def _at_most(name: str, value: float, limit: float, reason: str) -> Check:
    good = value <= limit
    verdict: Verdict = "pass" if good else "fail"
    return Check(name, value, None, None, limit, verdict, "" if good else reason)


def _name(digest: str | None) -> str:
    return "no package" if digest is None else digest[:12]
