"""The gray release's decision table."""

from dataclasses import replace

import pytest

from roiflow.deployment.rollout import STEPS, Decision, Limits, Watch, decide
from roiflow.errors import GateError

LIMITS = Limits(
    min_requests=100, max_error_rate=0.01, max_degraded_rate=0.05, max_latency_p99_ms=50
)
HEALTHY = Watch(requests=100, error_rate=0.0, degraded_rate=0.0, latency_p99_ms=10.0, gate="pass")


def test_a_healthy_canary_climbs_every_step_and_finishes() -> None:
    percent, path = STEPS[0], [STEPS[0]]
    while (decision := decide(percent, HEALTHY, LIMITS)).action == "advance":
        percent = decision.percent
        path.append(percent)
    assert path == [1, 5, 25, 50, 100]
    assert decision == Decision("finish", 100.0, "every user is on it and it is healthy")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"error_rate": 0.02}, "error rate 0.02 is over 0.01"),
        ({"error_rate": float("nan")}, "error rate nan is over 0.01"),
        ({"degraded_rate": 0.5}, "degraded rate 0.5 is over 0.05"),
        ({"latency_p99_ms": 51.0}, "p99 latency in ms 51 is over 50"),
        ({"gate": "fail"}, "the gate fails"),
        ({"error_rate": 1.0, "requests": 1}, "error rate 1 is over 0.01"),
    ],
)
@pytest.mark.parametrize("percent", STEPS)
def test_a_breach_rolls_back_from_every_step(
    percent: float, change: dict[str, float], reason: str
) -> None:
    watch = replace(HEALTHY, **change)  # type: ignore[arg-type]
    assert decide(percent, watch, LIMITS) == Decision("roll back", 0.0, reason)


def test_too_few_requests_hold() -> None:
    decision = decide(5.0, replace(HEALTHY, requests=99), LIMITS)
    assert decision == Decision("hold", 5.0, "99 of 100 requests seen")


def test_no_request_at_all_holds_whatever_the_rates_say() -> None:
    idle = replace(HEALTHY, requests=0, error_rate=float("nan"))
    assert decide(1.0, idle, LIMITS).action == "hold"


def test_half_the_users_need_a_passed_gate() -> None:
    unsure = replace(HEALTHY, gate="inconclusive")
    assert [decide(step, unsure, LIMITS).action for step in STEPS] == [
        "advance", "advance", "hold", "hold", "finish",
    ]  # fmt: skip


def test_a_percentage_between_the_steps_is_an_error() -> None:
    with pytest.raises(GateError, match="7 percent"):
        decide(7.0, HEALTHY, LIMITS)
