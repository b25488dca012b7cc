"""What two rankers expect, as one: the mean of their probabilities and of their revenue.

Attention over behaviours and trees over counters err in different places, and the best value of
many candidates is often one that was overrated: the mean of two overrates less than either. An
expected value is linear in what is averaged here, so the value of the mean is the mean of values.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Features, Requests, Singles
from roiflow.ranking.protocol import Predictions, Scorer


def mean(ranker: Predictions, selector: Predictions, share: float) -> Predictions:
    """Predictions of any one shape, those of the selector with the weight `share`."""

    def mixed(own: Singles, other: Singles) -> Singles:
        # The weight as a float32, or the predictions would become doubles on the way.
        weight = np.float32(share)
        return (1 - weight) * own + weight * other

    conversion = mixed(ranker.conversion, selector.conversion)
    earned = mixed(ranker.conversion * ranker.revenue, selector.conversion * selector.revenue)
    # Where nothing converts, a conversion brings what the ranker says.
    revenue = np.divide(earned, conversion, out=ranker.revenue.copy(), where=conversion > 0)
    return Predictions(mixed(ranker.click, selector.click), conversion, revenue)


@dataclass(frozen=True)
class Blend:
    """Scores candidates as a package does whose policy has this `share`."""

    ranker: Scorer
    selector: Scorer
    share: float

    def score(self, features: Features, requests: Requests) -> Predictions:
        """Candidate ads (B, K) -> predictions (B, K) at position 1; rows with ad -1 hold 0."""
        own = self.ranker.score(features, requests)
        if not self.share:
            return own
        return mean(own, self.selector.score(features, requests), self.share)
