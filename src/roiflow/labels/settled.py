"""What clicks will have brought once all of it is known, from what is known so far.

A sum of what is known is too low, by what is still to come, and unequally by category. Each row's
part is divided by the probability that it is known by now; where that is small, so that one
conversion would count many times, the click counts with what its category brings on average. A
sale that is young may yet be returned: what is expected of that is taken off.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Features, Floats, Ints, Longs
from roiflow.labels.delays import hours_between
from roiflow.labels.model import Labels
from roiflow.labels.worth import CATEGORY, Delays, Known, clicks


@dataclass(frozen=True)
class Settled:
    """Of n rows; sums over any of them are what they bring in the end, in expectation."""

    conversions: Floats  # (n,)
    revenue: Floats  # (n,) micros, returns taken off
    known: Floats  # (n,) share of the conversions that the row's click brings that is known
    expected: Floats  # (n,) conversions that it brings, as its category does

    @property
    def maturity(self) -> float | None:
        """Share of the rows' conversions that is known; None where none is expected."""
        whole = float(self.expected.sum())
        return float(self.known @ self.expected) / whole if whole > 0 else None


def settle(labels: Labels, features: Features, rows: Longs) -> Settled:
    """Of impressions `rows` (n,), each as of the moment at which its label stands."""
    log, known = features.impressions, labels.matured(features, rows).astype(np.float64)
    category = features.attributes[:, CATEGORY][log.ad[rows]]
    can = clicks(features)[rows]
    until = labels.until(features, np.arange(log.ad.size))
    found = Known.of(features, until)
    conversions, revenue = np.zeros((2, rows.size))
    expected = np.zeros(rows.size)
    sure = known >= labels.floor
    for moment in np.unique(until[rows]).tolist():
        here = until[rows] == moment
        delays, at = labels.delays_at(moment), category[here]
        expected[here] = can[here] * delays.rate[at]
        kept = found.sold[rows[here]] - _given_back(
            delays, found, rows[here], category[here], moment
        )
        share = np.where(sure[here], known[here], 1.0)
        later = expected[here] * delays.worth[at] * (1.0 - delays.returned[at])
        conversions[here] = np.where(sure[here], log.converted[rows[here]] / share, expected[here])
        revenue[here] = np.where(sure[here], kept / share, later)
    return Settled(conversions, revenue, known, expected)


def _given_back(delays: Delays, found: Known, rows: Longs, category: Ints, moment: int) -> Floats:
    """Micros (n,) that were returned, and of the sales that were not what may yet be."""
    age = hours_between(found.first_sale[rows], moment)
    share = delays.returned[category]
    one_segment = np.zeros(rows.size, np.int32)
    told = share * delays.returns.known(category, one_segment, age)
    # P(returned later | not returned by now), by Bayes.
    left = np.divide(share - told, 1.0 - told, out=np.zeros_like(told), where=told < 1.0)
    back: Floats = np.where(found.back[rows] > 0, found.back[rows], found.sold[rows] * left)
    return back
