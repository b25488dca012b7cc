"""Weeks of a loop for tests, from money that is worked out by hand."""

from collections.abc import Mapping
from typing import Any

from roiflow.artefacts.evaluation import Interval
from roiflow.artefacts.trial import Budget, Phase, Trial
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.loop.result import LoopResult, Outcome, ServedClicks, WeekOutcome
from tests.records import A, B, trial_decision

GATE = Outcome("pass", 2, True, B, None, "evidence", "", "c" * 40)
HELD = Outcome("pass", 2, False, A, B, "none", "not better", "d" * 40)
BUDGET = Budget(2026, "adaptive_spending", "", 0.2, 1, 1, 0.05, 0.15, 0.02)


def week(
    name: str, gate: Outcome = HELD, more: Mapping[str, Any] | None = None, **values: float
) -> WeekOutcome:
    """Every policy costs 10; `values` are revenue less that."""
    truths = {
        policy: {"value": value, "revenue": value + 10, "cost": 10.0, "roi": value / 10}
        for policy, value in values.items()
    }
    whole = {
        "week": name,
        "served_by": A[:12],
        "truth": truths,
        "clicks": ServedClicks(0.01, (0.04,) + (0.01,) * 6),
        "trial": trial_decision(week=name),
        "gate": gate,
        "seconds": {"ingest": 2.0, "export": 3.0},
    }
    return WeekOutcome(**{**whole, **(more or {})})


def tried(name: str, verdict: str = "pass", challenger: str = B) -> dict[str, Any]:
    """What a week has whose trial went on from its second day with half of the users."""
    start = Week.parse(name).start
    phases = (
        Phase(start, 0.05, "start"),
        Phase(start + 24 * MICROS_PER_HOUR, 0.5, "recalibrated"),
    )
    decision = trial_decision(
        week=name,
        verdict=verdict,
        challenger=challenger,
        champion=A,
        reason="" if verdict == "pass" else "not better",
        trial=Trial(name, challenger, A, "salt", phases, ()),
        lift=Interval(0.05, 0.02, 0.017, 0.083),
        budget=BUDGET,
    )
    return {"trial": decision}


def result(seed: int, *weeks: WeekOutcome) -> LoopResult:
    """A loop of these weeks."""
    return LoopResult(seed, "", weeks)
