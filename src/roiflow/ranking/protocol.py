"""What every ranker does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from roiflow.features.table import Features, Longs, Requests, Singles


@dataclass(frozen=True)
class Predictions:
    """Calibrated predictions; the shape is (n,) for impressions and (B, K) for requests."""

    click: Singles
    """P(click | shown at position 1), or at the logged position where that was asked for."""
    conversion: Singles
    """P(click and conversion), that is pCTCVR = pCTR x pCVR (ESMM, Ma et al. 2018)."""
    revenue: Singles
    """E[revenue | conversion], in micros, less what is returned."""

    def seen(self, examined: Singles) -> "Predictions":
        """The same where only the share `examined` looks: nobody clicks on what is not seen."""
        return Predictions(self.click * examined, self.conversion * examined, self.revenue)

    def at(self, columns: Longs) -> "Predictions":
        """Of the candidates `columns` (B, k) of those of requests (B, K)."""
        return Predictions(
            **{name: np.take_along_axis(each, columns, axis=1) for name, each in vars(self).items()}
        )


class Scorer(Protocol):
    """Predicts click, conversion and revenue of candidates."""

    def score(self, features: Features, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K) at position 1; rows with ad -1 hold 0."""
        ...


class Ranker(Scorer, Protocol):
    """Predicts click, conversion and revenue of user-ad pairs."""

    @property
    def name(self) -> str:
        """As in the leaderboard."""
        ...

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        """Logged impressions `rows` (n,) -> predictions (n,), as if shown at position 1.

        With `logged_position` they are for the position at which the ad was shown, so that they
        can be held against what happened there (calibration, log loss).
        """
        ...

    def save(self, folder: Path) -> None:
        """Write everything `load` needs."""
        ...
