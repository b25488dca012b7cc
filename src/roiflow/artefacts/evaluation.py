"""What the evaluation of a week says: read by the screen, the registry and the weekly report.

Every number here is an input of a decision's digest, so that a key that is renamed, or one more,
is another digest for equal data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from roiflow.artefacts.record import Artefact, Record

PRIMARY = "switch_dr"
"""The estimator that the screen refuses by; the others are shown beside it."""


@dataclass(frozen=True)
class Diagnostics(Record):
    """How far the log can speak for the target policy."""

    rows: int
    effective_sample_size: float
    """Of the position where it is smallest."""
    max_weight: float
    mean_weight: float
    """Of the position where it is farthest from its expectation, 1."""
    support: float
    """Share of the target policy's mass that lies on ads the log shows."""
    clipped: float = 0.0
    """Share of the target's mass that lies on weights over the limit."""


@dataclass(frozen=True)
class Estimate(Record):
    """A number that carries what is needed to doubt it."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    verdict: Literal["conclusive", "inconclusive"]
    reason: str
    """Why it is inconclusive; empty where it is not."""
    model_based: bool
    """True where no logged propensity went into it."""
    diagnostics: Diagnostics | None


@dataclass(frozen=True)
class RoiEstimate(Record):
    """Value and ROI of one policy by one estimator, and their lifts over the base."""

    value: Estimate
    """Micros per 1,000 slates: revenue minus lambda x cost."""
    value_lift: Estimate
    """Relative change of value; undefined where the base's is not positive."""
    roi: Estimate
    lift: Estimate
    """Relative change of ROAS = 1 + ROI."""
    revenue_per_slate_micros: float
    """As it will be once all conversions and returns are known."""
    cost_per_slate_micros: float
    maturity: float | None
    """Share of the conversions in it that is known; None where it counts none."""


@dataclass(frozen=True)
class Rows(Record):
    """Impressions by split."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class SlateCounts(Record):
    """Slates of the test week."""

    whole: int
    with_propensities: int
    evaluated: int


@dataclass(frozen=True)
class Leaks(Record):
    """Results too good to be true, in words."""

    predictions: tuple[str, ...]
    roi: tuple[str, ...]

    # As one list: who asks whether there is a suspicion need not know that there are two kinds.
    def __len__(self) -> int:
        return len(self.predictions) + len(self.roi)


Metrics = dict[str, float | None]
"""By full name, such as test_full_click_auc; None where it is undefined."""


@dataclass(frozen=True)
class Report(Artefact):
    """The evaluation of one test week."""

    place: ClassVar[Path] = Path("data/evaluation/report.json")

    week: str
    package: str
    """Digest of the package that was evaluated."""
    ranker: str
    """The one of `models` that serves."""
    impressions: Rows
    slates: SlateCounts
    propensities_logged: bool
    models: dict[str, Metrics]
    examination: tuple[float, ...]
    """How much each position is looked at, relative to the first."""
    maturity: float | None
    """Share of the conversions of the slates' clicks that is known; None where none is expected."""
    roi: dict[str, RoiEstimate]
    """By estimator, and `logged`: what the logging policy earned."""
    policy: dict[str, float]
    """What the new policy's slates look like."""
    suspected_leak: Leaks
    suspicious_lift: float
    """A lift above it is taken for a leak."""


@dataclass(frozen=True)
class Interval(Record):
    """A number with its standard error, users being what is drawn."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmEstimate(Record):
    """One policy of a trial, on the slates of both; micros a request."""

    requests: int
    """That it served itself."""
    users: int
    value: Interval
    """Revenue minus lambda x cost."""
    revenue: float
    """As it will be once all conversions and returns are known."""
    cost: float
    roi: Interval | None
    """None where it costs nothing."""
    diagnostics: Diagnostics | None
    """Of its weights over all slates; None where none were needed."""
    maturity: float | None
    """Share of the conversions in it that is known; None where it counts none."""


FindingKind = Literal[
    "propensity", "replay", "shares", "arm", "leak", "weights", "maturity", "identical", "ratio"
]


@dataclass(frozen=True)
class Finding(Record):
    """Why an estimate cannot be trusted, or has nothing to tell."""

    kind: FindingKind
    """propensity: outside (0, 1] or not logged. replay: not what the replayed package gives.
    shares: outside [0, 1], or never both arms at once. arm: no slate of an arm. leak: a user in
    both arms at one share. weights, maturity: beyond the limits. identical: two policies alike.
    ratio: ROI is not defined."""
    count: int
    """Of slates."""
    row: int | None
    """First impression row; None where it is of no single slate."""
    text: str


TrialEstimator = Literal["balanced_dr", "cascade_dr", "arms"]


@dataclass(frozen=True)
class TrialEstimate(Record):
    """Challenger and champion on the slates that both served; micros a request."""

    estimator: TrialEstimator
    requests: int
    users: int
    cost_weight: float
    """Lambda."""
    champion: ArmEstimate
    challenger: ArmEstimate
    delta: Interval
    """Challenger minus champion."""
    lift: Interval | None
    """Delta by the champion's value; None where that is not positive."""
    roi_lift: Interval | None
    """Relative change of ROAS = 1 + ROI; None where one of the two costs or earns nothing."""
    findings: tuple[Finding, ...]
    verdict: Literal["conclusive", "inconclusive"]
    """Inconclusive with any finding."""
