"""What validation set aside: the rows of a window that break the data contract, by table."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from roiflow.artefacts.record import Artefact


@dataclass(frozen=True)
class Validation(Artefact):
    """Counts of one window; each by table."""

    place: ClassVar[Path] = Path("metrics/validate.json")
    indent: ClassVar[int] = 2

    rows: dict[str, int]
    """Before validation."""
    quarantined: dict[str, int]
    quarantined_share: dict[str, float]
    """Rounded to six digits."""
    reasons: dict[str, dict[str, int]]
    """Quarantined rows by reason; tables without any are left out."""
    orphan_conversions: int
    """Of impressions that no pulled week holds: counted, not set aside."""
