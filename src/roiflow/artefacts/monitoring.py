"""What has changed in the data since training."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from roiflow.artefacts.record import Artefact, Record


@dataclass(frozen=True)
class ColumnDrift(Record):
    """One column's distance between reference and current."""

    column: str
    score: float
    unseen: float
    """Share of the current rows where the reference has none."""
    drifted: bool
    """Whether one of the two is over its limit."""


@dataclass(frozen=True)
class Drift(Artefact):
    """What the drift report found."""

    place: ClassVar[Path] = Path("data/drift/drift.json")
    nan: ClassVar[bool] = True

    method: str
    threshold: float
    max_unseen: float
    drifted_share: float
    drifted: bool
    """Whether more columns drifted than `max_drifted_share` allows."""
    columns: tuple[ColumnDrift, ...]
    """The one that drifted most first."""
    maturity: dict[str, float | None]
    """Of `reference` and `current`: share of the conversions of its clicks that is known, before
    those to come were added to `converted`; None where none is expected."""
    inputs: str
    """What it was made from; equal inputs, equal report."""
