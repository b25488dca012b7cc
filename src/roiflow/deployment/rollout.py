"""The gray release as a pure decision: advance, hold, finish or roll back."""

from dataclasses import dataclass
from typing import Literal

from roiflow.errors import GateError

STEPS = (1.0, 5.0, 25.0, 50.0, 100.0)
"""Percent of users on the canary, in order."""

Action = Literal["advance", "hold", "finish", "roll back"]


@dataclass(frozen=True)
class Watch:
    """What was seen of the canary during one step."""

    requests: int
    error_rate: float
    """Share of requests not answered, in [0, 1]."""
    degraded_rate: float
    """Share of slates answered without online features, in [0, 1]."""
    latency_p99_ms: float
    gate: Literal["pass", "fail", "inconclusive"]
    """The comparison with the stable arm so far."""


@dataclass(frozen=True)
class Limits:
    """What a canary may cost."""

    min_requests: int
    max_error_rate: float
    max_degraded_rate: float
    max_latency_p99_ms: float


@dataclass(frozen=True)
class Decision:
    """What to do next and why."""

    action: Action
    percent: float
    reason: str


def decide(percent: float, watch: Watch, limits: Limits) -> Decision:
    """The next step of a canary that holds `percent` of the users.

    A breach rolls back at once, whatever the sample. An inconclusive gate lets small steps advance
    on health alone, but half the users and more need a pass. Raises GateError where `percent` is
    not one of STEPS.
    """
    if percent not in STEPS:
        raise GateError(f"a canary of {percent:g} percent is none of the steps {STEPS}")
    if watch.requests >= 1 and (breach := _breach(watch, limits)):
        return Decision("roll back", 0.0, breach)
    if watch.gate == "fail":
        return Decision("roll back", 0.0, "the gate fails")
    if watch.requests < limits.min_requests:
        seen = f"{watch.requests} of {limits.min_requests} requests seen"
        return Decision("hold", percent, seen)
    if percent == STEPS[-1]:
        return Decision("finish", percent, "every user is on it and it is healthy")
    following = STEPS[STEPS.index(percent) + 1]
    if following >= 50 and watch.gate != "pass":
        return Decision("hold", percent, f"{following:g} percent needs a passed gate")
    return Decision("advance", following, f"healthy over {watch.requests} requests")


def _breach(watch: Watch, limits: Limits) -> str | None:
    checks = (
        ("error rate", watch.error_rate, limits.max_error_rate),
        ("degraded rate", watch.degraded_rate, limits.max_degraded_rate),
        ("p99 latency in ms", watch.latency_p99_ms, limits.max_latency_p99_ms),
    )
    for name, value, limit in checks:
        if not value <= limit:  # a NaN is a breach
            return f"{name} {value:g} is over {limit:g}"
    return None
