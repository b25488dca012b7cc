"""What every ranker does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from roiflow.features.table import Features, Longs, Requests, Singles


@dataclass(frozen=True)
class Predictions:
    """Calibrated predictions; the shape is (n,) for impressions and (B, K) for requests."""

    click: Singles
    """P(click | shown at position 1)."""
    conversion: Singles
    """P(click and conversion), that is pCTCVR = pCTR x pCVR (ESMM, Ma et al. 2018)."""
    revenue: Singles
    """E[revenue | conversion], in micros."""


class Ranker(Protocol):
    """Predicts click, conversion and revenue of user-ad pairs."""

    name: str

    def predict(self, features: Features, rows: Longs) -> Predictions:
        """Logged impressions `rows` (n,) -> predictions (n,)."""
        ...

    def score(self, features: Features, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K); rows with ad -1 hold 0."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything `load` needs."""
        ...
