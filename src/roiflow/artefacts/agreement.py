"""How far what ships behaves as what was judged."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from roiflow.artefacts.record import Artefact


@dataclass(frozen=True)
class Agreement(Artefact):
    """Of two packages on the same requests, the last of the window."""

    place: ClassVar[Path] = Path("data/agreement.json")

    judged: str
    """Digest of the package that saw nothing of its test week."""
    shipped: str
    """Digest of the package by the same recipe on all weeks."""
    requests: int
    overlap: float
    """Share of the ads of the best slate by one that are in the best slate by the other."""
    value_ratio: float
    """What the shipped one expects of its best slates, over what the judged one expects of its."""
    propensity: float
    """Mass of the first slot that both give to the same ads: 1 - total variation."""
