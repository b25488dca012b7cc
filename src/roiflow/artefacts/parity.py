"""What the parity check says: whether serving was given the features that training sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from roiflow.artefacts.record import Artefact, Record

NOT_SERVED: Literal["not served"] = "not served"
"""Verdict on a week that no package of ours served."""

Figure = float | str
"""A number, or the word of one that JSON has not: inf, -inf, nan."""


@dataclass(frozen=True)
class Example(Record):
    """One value: whose slate, which ad, what was served, what a replay gives."""

    request_id: str
    ad_id: str
    """The shown ad; empty where the value is not an ad's."""
    slot: int
    """0-based place in the slate or in the history; -1 where there is none."""
    served: Figure
    expected: Figure


@dataclass(frozen=True)
class FeatureFinding(Record):
    """The differences of one feature."""

    feature: str
    rows: int
    """Values that differ: a slate has one for each ad or behaviour."""
    slates: int
    largest: Figure
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Fault(Record):
    """The known fault that explains what differs, or `unexplained`."""

    name: str
    explains: float
    """Share of the slates that differ, of those it was tried on."""
    size: str
    tried: dict[str, float]
    """What each hypothesis that was tried explains."""


@dataclass(frozen=True)
class Compared(Record):
    """What was found of the slates of one package; all counts are of slates."""

    policy_version: str
    digest: str
    slates: int
    not_kept: int
    degraded: int
    compared: int
    not_final: int
    """Their item counters still open when they were served."""
    ahead: int
    """Whose store knew more than the request's own time."""
    different: int
    sampled: int
    """Kept with their whole vectors, not with a hash alone."""
    corrupt: tuple[str, ...]
    """Requests whose vector does not have the hash that was logged with it; the first ten."""
    stale_share: float
    features: tuple[FeatureFinding, ...]
    fault: Fault | None


@dataclass(frozen=True)
class NotCompared(Record):
    """A package whose slates could not be replayed."""

    policy_version: str
    fault: None
    cannot: str
    """Why."""


@dataclass(frozen=True)
class ParityVerdict(Record):
    """The part of the report that the screen reads, and that a version keeps in a tag."""

    week: str
    verdict: Literal["pass", "fail", "not served"]
    reason: str
    """Why it fails; empty where it does not."""
    summary: str
    different: int
    """Slates."""
    max_different_fraction: float

    @property
    def line(self) -> str:
        """The verdict and why, for people."""
        return f"{self.verdict}: {self.reason or self.summary}"


@dataclass(frozen=True)
class ParityReport(Artefact, ParityVerdict):
    """The verdict on the test week, and what it rests on."""

    place: ClassVar[Path] = Path("data/parity/report.json")

    packages: tuple[Compared | NotCompared, ...]

    @property
    def outcome(self) -> ParityVerdict:
        """The verdict alone."""
        return ParityVerdict(
            self.week, self.verdict, self.reason, self.summary, self.different,
            self.max_different_fraction,
        )  # fmt: skip

    @property
    def compared(self) -> list[Compared]:
        """The packages whose slates were replayed."""
        return [one for one in self.packages if isinstance(one, Compared)]
