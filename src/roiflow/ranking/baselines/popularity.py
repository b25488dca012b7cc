"""Popularity: an ad's smoothed rates in the training log, the same for every user."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from roiflow.data.split import TRAIN
from roiflow.errors import PackageError
from roiflow.features.table import Features, Flags, Floats, Ints, Longs, Requests, Singles
from roiflow.files import write_directory
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.ranking.examples import Examples
from roiflow.ranking.protocol import Predictions

STRENGTH = 20.0
"""Impressions (or clicks) of the global rate that every ad is given."""
FILE = "popularity.json"


@dataclass(frozen=True)
class Popularity:
    """Rates by ad index; an ad without training impressions has the global rates."""

    name: ClassVar[str] = "popularity"
    click: tuple[float, ...]  # (ads,)
    conversion: tuple[float, ...]  # (ads,) click and conversion
    revenue: float  # micros per conversion
    factor: tuple[float, ...]  # by position, of the examination

    def _of(self, ad: Ints) -> Predictions:
        candidate = ad >= 0
        # An ad that came after the counts is out of vocabulary, index 0.
        at = np.where(candidate & (ad < len(self.click)), ad, 0)
        return Predictions(
            np.where(candidate, np.array(self.click)[at], 0).astype(np.float32),
            np.where(candidate, np.array(self.conversion)[at], 0).astype(np.float32),
            np.where(candidate, self.revenue, 0).astype(np.float32),
        )

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        """Logged impressions `rows` (n,) -> predictions (n,); see Ranker."""
        found = self._of(features.impressions.ad[rows])
        if logged_position:
            examination = Examination(np.array(self.factor))
            return found.seen(examination.at(features.impressions.position[rows]))
        return found

    def score(self, features: Features, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K); rows with ad -1 hold 0."""
        del features
        return self._of(requests.ad)

    def save(self, folder: Path) -> None:
        """Write popularity.json."""
        with write_directory(folder) as aside:
            (aside / FILE).write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Popularity":
        """Read what `save` wrote; raises PackageError, naming the file."""
        path = folder / FILE
        try:
            content = json.loads(path.read_text())
            return cls(
                tuple(content["click"]),
                tuple(content["conversion"]),
                float(content["revenue"]),
                tuple(content["factor"]),
            )
        except OSError as error:
            raise PackageError(f"{path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise PackageError(f"{path}: not a saved popularity ranker: {error}") from None


def smoothed(hits: Floats, tries: Floats) -> Floats:
    """(hits + s m) / (tries + s) with m the overall rate and s = STRENGTH."""
    mean = hits.sum() / max(tries.sum(), 1.0)
    return np.asarray((hits + STRENGTH * mean) / (tries + STRENGTH))


def fit(features: Features, labels: Labels) -> Popularity:
    """Count the TRAIN rows by how exposed they were; conversion is click rate times the rest."""
    log, rows = features.impressions, features.rows(TRAIN)
    examples = Examples.of(features, labels).take(rows)
    ads, clicks = features.attributes.shape[0], examples.clicks

    def count(of: Examples, value: Flags | Singles) -> Floats:
        return np.bincount(log.ad[of.rows], weights=value, minlength=ads).astype(np.float64)

    click = smoothed(count(examples, examples.clicked), count(examples, examples.examined))
    # Smoothed apart, each by its own number of tries: clicks are far fewer than impressions.
    given = smoothed(count(clicks, clicks.converted), count(clicks, clicks.matured))
    sold = examples.converted
    revenue = float(examples.earned[sold].sum()) / max(int(sold.sum()), 1)
    # Few that were exposed and by luck all observed could make a rate more than 1.
    click, given = np.minimum(click, 1.0), np.minimum(given, 1.0)
    return Popularity(
        tuple(click.tolist()),
        tuple((click * given).tolist()),
        revenue,
        tuple(labels.examination.factor.tolist()),
    )
