"""Why the screen refused a version, and what to do about it, in words."""

from roiflow.artefacts.decision import Check, Decision

_REMEDIES = {
    "test_full_click_auc": (
        "screen.min_click_auc",
        "the ranker does not tell clicks apart yet: bring more weeks or more clicks a week",
    ),
    "suspected_leak": ("evaluate.suspicious_auc", "look for a feature that knows the outcome"),
    "feature_parity": (
        "check_parity.max_different_fraction",
        "what was served did not have the features of training: roiflow features replay says where",
    ),
}
"""By check: the limit in params.yaml, and what helps."""

_LIFT = (
    "screen.min_value_lift",
    "bring more slates with propensities, or a policy that differs less from the logging one",
)


def faults(decision: Decision) -> list[str]:
    """Each check that is as bad as the verdict: value, limit, remedy."""
    checks = [one for one in decision.checks if one.verdict == decision.verdict]
    return [_fault(check) for check in checks if check.verdict != "pass"]


def _fault(check: Check) -> str:
    # The check of the lift has the base and the estimator in its name, so it is the one that is not
    # looked up.
    limit, remedy = _REMEDIES.get(check.name, _LIFT)
    return f"{check.name} {check.reason} ({limit} of params.yaml): {remedy}"


def nothing_to_serve(name: str, version: int, source: str, decision: Decision) -> str:
    """One line for a model without a champion whose version was not promoted."""
    why = "; ".join(faults(decision)) or decision.reason
    return (
        f"{name}: version {version} was not promoted and there is no champion to serve: the screen "
        f"says {decision.verdict}: {why}; or answer for it: roiflow approve {version} "
        f'--source {source} --by "YOUR NAME" --why "REASON", and run the week again'
    )
