"""What a week's trial comes to: evidence, checks, verdict and digest as one decision."""

from dataclasses import asdict, replace

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.record import canonical_digest


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
                f"serve the challenger beside the champion, and keep the week's trial and its log "
                f"in the lake of {source}; or answer for it: roiflow approve"
            ),
            kind=None,
            challenger=None,
            champion=None,
            checks=(),
            trial=None,
            digest="",
        )
    )


def with_digest(decision: TrialDecision) -> TrialDecision:
    """The decision with the digest of all else in it."""
    return replace(decision, digest=canonical_digest({**asdict(decision), "digest": ""}))
