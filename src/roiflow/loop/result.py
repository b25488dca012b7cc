"""What a closed loop came to: every policy's true value by week, and its regret against the oracle.

Values are the world's own expectations of a week's slates, in units of the currency.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.errors import RunError
from roiflow.features.table import Floats
from roiflow.files import write_file

SERVED, ORACLE, RANDOM = "served", "oracle", "random"


@dataclass(frozen=True)
class WeekOutcome:
    """One week: who served it, what each policy's slates were truly worth, what the gate said."""

    week: str
    served_by: str
    """Policy version: `logging`, or the first 12 digits of a package's digest."""
    truth: dict[str, dict[str, float]]
    """By policy: expected clicks, conversions, revenue, cost, value and roi of the whole week."""
    gate: dict[str, Any]
    """verdict, reason, rule, promoted, version, champion, commit of the week's own run."""
    seconds: dict[str, float]
    """By stage, by job and for the rest."""


@dataclass(frozen=True)
class LoopResult:
    """The weeks of one loop so far."""

    seed: int
    params: str
    """Digest of the parameters that every week shares."""
    weeks: tuple[WeekOutcome, ...]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        with write_file(path) as aside:
            aside.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "LoopResult":
        """Raises RunError, naming the file, where it is missing or no loop's result."""
        try:
            content = json.loads(path.read_text())
            weeks = tuple(WeekOutcome(**week) for week in content.pop("weeks"))
            return cls(weeks=weeks, **content)
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path}: not a loop's result: {error}") from None

    @property
    def policies(self) -> tuple[str, ...]:
        """Those that have a truth in some week, the oracle first, by their value in the last."""
        last = self.weeks[-1].truth
        return tuple(sorted(last, key=lambda name: -last[name]["value"]))


def served_weeks(weeks: Sequence[WeekOutcome]) -> list[WeekOutcome]:
    """All but the first: no run preceded it that could have left a policy to serve it."""
    return list(weeks[1:])


def column(weeks: Sequence[WeekOutcome], policy: str, name: str) -> Floats:
    """A figure of a policy by week (W,); NaN where it has none."""
    return np.array([one.truth.get(policy, {}).get(name, np.nan) for one in weeks])


def regret(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """What the oracle's value exceeds the policy's by, each week (W,)."""
    return column(weeks, ORACLE, "value") - column(weeks, policy, "value")


def attainment(weeks: Sequence[WeekOutcome], policy: str) -> Floats:
    """How far a policy's value is from random's (0) to the oracle's (1), each week (W,)."""
    low, high = column(weeks, RANDOM, "value"), column(weeks, ORACLE, "value")
    return (column(weeks, policy, "value") - low) / (high - low)


def overall_roi(weeks: Sequence[WeekOutcome], policy: str) -> float:
    """(revenue - cost) / cost over all the weeks together."""
    revenue, cost = (column(weeks, policy, name).sum() for name in ("revenue", "cost"))
    return float((revenue - cost) / cost)
