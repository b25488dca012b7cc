"""What the model of labels says of a window: looks, delays, and how ripe its labels are."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from roiflow.artefacts.record import Artefact, Record


@dataclass(frozen=True)
class Examined(Record):
    """P(looked at) relative to the first position, by position; None where it is not told."""

    used: dict[str, float]
    regression: dict[str, float]
    swaps: dict[str, float | None]
    swaps_error: dict[str, float | None]
    """Standard error of each."""
    slates: int
    """Whole slates with propensities, which swaps are read from."""


@dataclass(frozen=True)
class LabelsReport(Artefact):
    """Of one window, as of its end unless said otherwise."""

    place: ClassVar[Path] = Path("metrics/fit_labels.json")

    examination: Examined
    maturity: dict[str, float | None]
    """By split: share of the conversions of its clicks that its labels have; None without any."""
    mean_delay_hours: dict[str, float]
    """By category that has conversions, until they are known."""
    mean_delay_hours_of_all: float | None
    returned: float | None
    """Share of the revenue of conversions that is given back in the end."""
    conversions: int
    without_conversions: tuple[str, ...]
    """Categories that were shown and have none: they have the delays of all."""
    left_out: int
    """Conversions and returns that took longer than fit_labels.longest_days."""
    longest_age_hours: int
    """Of an impression. A longer delay cannot have been seen, and is taken not to happen."""
