"""What was decided on a package: by the screen before it is tried, and by its trial."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.evaluation import Interval, RoiEstimate, TrialEstimate
from roiflow.artefacts.parity import ParityVerdict
from roiflow.artefacts.record import Artefact, Record
from roiflow.artefacts.trial import Budget, Trial

Verdict = Literal["pass", "fail", "inconclusive"]
TrialVerdict = Literal["pass", "fail", "inconclusive", "no trial"]
Rule = Literal["evidence", "first model", "override", "none"]
"""What promotes: a trial, the rule for a first model that nothing can be tried beside, a person."""
Kind = Literal["first", "refresh", "new recipe"]
"""Of a challenger: beside no package, of the champion's recipe, or of another."""


@dataclass(frozen=True)
class Check(Record):
    """One value against one threshold."""

    name: str
    # A count stays one: 0 and 0.0 would be two files and two digests.
    value: int | float | None
    low: float | None
    high: float | None
    threshold: int | float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Override(Record):
    """A person's decision against or without the checks."""

    who: str
    why: str


@dataclass(frozen=True)
class Decision(Artefact):
    """What the screen says of a package on the champion's log; only `fail` prevents a trial."""

    place: ClassVar[Path] = Path("data/screen/decision.json")

    verdict: Verdict
    promote: bool
    """Without a trial, by `rule`."""
    rule: Rule
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


@dataclass(frozen=True)
class TrialDecision(Artefact):
    """What became of the package that was on trial in the test week."""

    place: ClassVar[Path] = Path("data/canary/decision.json")

    week: str
    """The test week."""
    verdict: TrialVerdict
    promote: bool
    again: bool
    """Whether the trial goes on next week, and newer challengers wait."""
    reason: str
    todo: str
    """What would help, for whoever wants another verdict; empty of a pass."""
    kind: Kind | None
    challenger: str | None
    """Digest; None without a trial."""
    champion: str | None
    """Digest of what it stood beside; None where that was no package."""
    checks: tuple[Check, ...]
    trial: Trial | None
    estimates: tuple[TrialEstimate, ...]
    """One of each week that this challenger was on trial in, this week's last."""
    lift: Interval | None
    """Of value, of all weeks together, with one-sided bounds; None where there is no estimate."""
    p: float | None
    """Of the true lift being under the margin; None where nothing was tested."""
    click_ece: float | None
    """Of the challenger's clicks, on its own users."""
    more_requests: int | None
    """About so many more would tell, as things look now."""
    budget: Budget | None
    """Of errors, before this decision."""
    digest: str
    """sha256 of the canonical JSON of all the above."""


@dataclass(frozen=True)
class Tried(Record):
    """What a version keeps of a week's trial, in a tag: enough to take the decision again."""

    commit: str
    """Of the run that decided: another than the one that made the version."""
    decision: TrialDecision
