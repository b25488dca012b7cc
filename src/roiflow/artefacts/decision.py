"""What the gate decided on a package, from which inputs, by which rule."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.artefacts.parity import ParityVerdict
from roiflow.artefacts.record import Artefact, Record

Verdict = Literal["pass", "fail", "inconclusive"]
Rule = Literal["checks", "first model", "override", "none"]


@dataclass(frozen=True)
class Check(Record):
    """One value against one threshold."""

    name: str
    # A count stays one: 0 and 0.0 would be two files and two digests.
    value: int | float | None
    low: float | None
    high: float | None
    threshold: float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Override(Record):
    """A person's decision against or without the checks."""

    who: str
    why: str


@dataclass(frozen=True)
class Decision(Artefact):
    """What was decided, from what, by which rule."""

    place: ClassVar[Path] = Path("data/gate/decision.json")

    verdict: Verdict
    promote: bool
    rule: Rule
    """What promotes: the checks, a rule, or nothing."""
    reason: str
    checks: tuple[Check, ...]
    challenger: str
    champion: str | None
    override: Override | None
    digest: str
    """sha256 of the canonical JSON of the inputs and of everything above."""
    comparison: dict[str, RoiEstimate] | None
    """The challenger over the champion by estimator; None without a champion."""
    parity: ParityVerdict | None
    """Of the test week's served features; None where nobody compared them."""
    agreement: Agreement | None
    """Of what ships with what was judged; None where nobody compared them."""
