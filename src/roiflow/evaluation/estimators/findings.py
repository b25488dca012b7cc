"""What is wrong with the evidence of a trial, by name: none of it may end in a promotion."""

from typing import Protocol

import numpy as np

from roiflow.artefacts.evaluation import ArmEstimate, Finding, FindingKind
from roiflow.evaluation.estimators.diagnostics import Limits, doubts
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.features.table import Flags, Floats, Longs


class TrialLimits(Limits, Protocol):
    """Beside the limits of any estimate, those of one from two arms."""

    @property
    def confidence(self) -> float: ...  # noqa: D102
    @property
    def propensity_tolerance(self) -> float: ...  # noqa: D102
    @property
    def max_mismatched(self) -> float: ...  # noqa: D102


def of_slates(slates: Slates, share: Floats, canary: Flags) -> list[Finding]:
    """Of the log alone: propensities, shares, arms, users."""
    p = slates.propensity
    bad = np.flatnonzero(~((p > 0) & (p <= 1)).all(axis=1))
    odd = np.flatnonzero(~((share >= 0) & (share <= 1)))
    # An arm with no share that has a slate all the same, and the other way round.
    against = np.flatnonzero(np.where(canary, share <= 0, share >= 1))
    served = (share > 0) & (share < 1)
    rows = [
        _of_rows("propensity", slates, bad, "slates without a propensity in (0, 1] at each ad"),
        _of_rows("shares", slates, odd, "slates whose arms' shares do not add up to 1"),
        _of_rows("shares", slates, against, "slates of an arm that had no share of the users"),
        _of_rows("leak", slates, _leaked(slates, share, canary), "slates of users in both arms"),
    ]
    found = [one for one in rows if one]
    if not served.any():
        found.append(Finding("shares", 0, None, "at no time had both arms a share of the users"))
    for name, mine in (("canary", canary), ("stable", ~canary)):
        if not (mine & served).any():
            found.append(Finding("arm", 0, None, f"the {name} arm served no slate"))
    return found


def _leaked(slates: Slates, share: Floats, canary: Flags) -> Longs:
    """Slates of users who were in both arms at one share."""
    # A user goes from stable to canary as the share grows, once and not back; at one share never.
    _, phase = np.unique(share, return_inverse=True)
    _, group = np.unique(phase.astype(np.int64) << 32 | slates.user, return_inverse=True)
    one, all_ = np.bincount(group, weights=canary), np.bincount(group)
    # What is unknown of users stands for many of them.
    both = (one > 0) & (one < all_)
    return np.flatnonzero(both[group] & (slates.user > 0))


def of_replay(
    slates: Slates, mine: Flags, policy: TargetOnLog, name: str, limits: TrialLimits
) -> list[Finding]:
    """Of an arm's slates `mine` (B,): propensities as logged against those of the package."""
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(policy.propensity / slates.propensity - 1.0)
    # NaN is off as well.
    wrong = mine & ~(np.where(slates.present, off, 0.0) <= limits.propensity_tolerance).all(axis=1)
    rows = np.flatnonzero(wrong)
    if rows.size <= limits.max_mismatched * mine.sum():
        return []
    first = rows[0]
    slot = int(np.flatnonzero(~(off[first] <= limits.propensity_tolerance))[0])
    return [
        Finding(
            "replay",
            int(rows.size),
            int(slates.row[first]),
            f"{rows.size} of {mine.sum()} slates of the {name} have other propensities than their "
            f"package: first is impression row {slates.row[first]}, position {slot + 1}, logged "
            f"{slates.propensity[first, slot]!r}, replayed {policy.propensity[first, slot]!r}",
        )
    ]


def of_estimates(
    champion: ArmEstimate, challenger: ArmEstimate, maturity: float | None, limits: Limits
) -> list[Finding]:
    """Of the weights and the labels."""
    found = [
        Finding("weights", one.diagnostics.rows, None, f"{name}: {fault}")
        for name, one in (("champion", champion), ("challenger", challenger))
        if one.diagnostics
        for fault in doubts(one.diagnostics, limits)
    ]
    if maturity is not None and maturity < limits.min_maturity:
        text = f"maturity {maturity:.3f} under {limits.min_maturity:g}"
        found.append(Finding("maturity", 0, None, text))
    found += [
        Finding("ratio", 0, None, f"the {name} costs nothing: ROI is not defined")
        for name, one in (("champion", champion), ("challenger", challenger))
        if one.roi is None
    ]
    return found


def _of_rows(kind: FindingKind, slates: Slates, rows: Longs, what: str) -> Finding | None:
    if not rows.size:
        return None
    first = int(slates.row[rows[0]])
    return Finding(kind, int(rows.size), first, f"{rows.size} {what}: first is row {first}")
