"""What a week's trial comes to: what was judged, as one decision, and what to do about it."""

from dataclasses import asdict, replace

from roiflow.artefacts.decision import Kind, TrialDecision
from roiflow.artefacts.record import canonical_digest
from roiflow.evaluation.trial import Case, Judgement

REMEDIES = {
    "packages": "the trial was of other packages: put the challenger on trial again",
    "misassigned": "look for what splits users other than the edge's hash (columns `arm`)",
    "sample_ratio": "look for what loses one arm's requests or their log",
    "started": "see why the canary came late: its deployment's log",
    "harm": "it lost value: look at what is new in it; the next challenger goes on trial",
    "evidence": "the challenger cannot be replayed: see that the registry has its package whole",
    "log_propensity": "see that every slate is logged with the propensities of its own policy",
    "log_replay": "the log is not of this package, or not of its recalibrations: see data/parity",
    "log_shares": "see that the trial's phases are those that the edge had",
    "log_arm": "one arm served nobody: see its deployment",
    "log_leak": "a user must stay in one arm: look for a second id of one user",
    "log_identical": "both packages do alike: nothing is to be decided",
    "click_ece": "its probabilities are off on its own users: see recalibrate of params.yaml",
    "value_lift": "it is not better: the next challenger goes on trial",
    "roi_loss": "it buys value at a worse return: see finetune_policy.cost_weight",
    "clipped_mass": "the arms differ too much to be weighed: see finetune_policy.temperature",
    "champion_users": "bring more users of what serves",
    "challenger_users": "bring more users of the challenger: see canary.share",
    "error_budget": "this year's errors are nearly spent: wait for more evidence, or approve",
}
"""By check that is not passed: what to do."""


def no_trial(source: str, week: str) -> TrialDecision:
    """Of a week in which nothing was tried: the champion, if there is one, stays."""
    return with_digest(
        TrialDecision(
            week=week,
            verdict="no trial",
            promote=False,
            again=False,
            reason=f"nothing was on trial in {week}",
            todo=(
                f"serve the challenger beside the champion for a week, whose log and trial are "
                f"then in the lake of {source}; or answer for it: roiflow approve"
            ),
            kind=None,
            challenger=None,
            champion=None,
            checks=(),
            trial=None,
            estimates=(),
            lift=None,
            p=None,
            click_ece=None,
            more_requests=None,
            budget=None,
            digest="",
        )
    )


def decided(case: Case, kind: Kind, found: Judgement) -> TrialDecision:
    """The judgement on a case, as the decision that is kept."""
    # What is shown to be neither better nor worse: newer data will not change a recipe that the
    # champion has not, so its evidence goes on; a refresh gives way to the next one.
    again = found.verdict == "inconclusive" and kind != "refresh"
    return with_digest(
        TrialDecision(
            week=case.trial.week,
            verdict=found.verdict,
            promote=found.verdict == "pass",
            again=again,
            reason=found.reason,
            todo=_todo(found, again),
            kind=kind,
            challenger=case.challenger,
            champion=case.champion,
            checks=found.checks,
            trial=case.trial,
            estimates=case.estimates,
            lift=found.lift,
            p=found.p,
            click_ece=case.click_ece,
            more_requests=found.more_requests,
            budget=case.budget,
            digest="",
        )
    )


def _todo(found: Judgement, again: bool) -> str:
    if found.verdict == "pass":
        return ""
    if found.verdict == "inconclusive":
        more = found.more_requests
        asks = f"about {more:,} more requests would tell: " if more is not None else ""
        follows = "its trial goes on next week" if again else "the next challenger takes its place"
        return f"{asks}{follows}; or answer for it: roiflow approve"
    faults = dict.fromkeys(one.name for one in found.checks if one.verdict == "fail")
    return "; ".join(REMEDIES[name] for name in faults if name in REMEDIES)


def with_digest(decision: TrialDecision) -> TrialDecision:
    """The decision with the digest of all else in it, which is all that it was taken from."""
    return replace(decision, digest=canonical_digest({**asdict(decision), "digest": ""}))
