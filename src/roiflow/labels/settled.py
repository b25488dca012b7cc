"""What clicks will have brought once all of it is known, from what is known so far.

A sum of what is known is too low, by what is still to come, and unequally by category. Each row's
part is divided by the probability that it is known by now; where that is small, so that one
conversion would count many times, the click counts with what its ad's other clicks brought, drawn
to what its category's do: ads of a category differ, and two policies that show different ones would
seem alike in their last hours. A sale that is young may yet be returned: what is expected of that
is taken off.
"""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.labels.delays import hours_between
from roiflow.labels.model import Labels
from roiflow.labels.worth import CATEGORY, Delays, Known, clicks

OWN = 10.0
"""Conversions, at its category's rate, from which an ad's own mean starts."""


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


@dataclass(frozen=True)
class AsOf:
    """What is known of n impressions at one moment."""

    ad: Ints  # (n,)
    category: Ints  # (n,)
    clicked: Flags  # (n,) whether they can convert
    known: Floats  # (n,) P(a conversion is known by now | it comes)
    converted: Floats  # (n,) 1 with a conversion that is known
    sold: Floats  # (n,) micros before returns
    back: Floats  # (n,) micros given back
    first_sale: Longs  # (n,) when the first sale became known, microseconds


def settle(labels: Labels, features: Features, rows: Longs) -> Settled:
    """Of impressions `rows` (n,), each as of the moment at which its label stands."""
    log, known = features.impressions, labels.matured(features, rows).astype(np.float64)
    category = features.attributes[:, CATEGORY][log.ad[rows]]
    can = clicks(features)[rows]
    until = labels.until(features, np.arange(log.ad.size))
    found = Known.of(features, until)
    conversions, revenue = np.zeros((2, rows.size))
    expected = np.zeros(rows.size)
    for moment in np.unique(until[rows]).tolist():
        here = until[rows] == moment
        at = rows[here]
        one = settle_at(
            labels,
            AsOf(
                log.ad[at],
                category[here],
                can[here],
                known[here],
                log.converted[at].astype(np.float64),
                found.sold[at],
                found.back[at],
                found.first_sale[at],
            ),
            moment,
        )
        conversions[here], revenue[here], expected[here] = (
            one.conversions,
            one.revenue,
            one.expected,
        )
    return Settled(conversions, revenue, known, expected)


def settle_at(labels: Labels, rows: AsOf, moment: int) -> Settled:
    """Of impressions (n,), as of `moment`, microseconds."""
    delays, at = labels.delays_at(moment), rows.category
    sure = rows.known >= labels.floor
    kept = rows.sold - _given_back(delays, rows, moment)
    share = np.where(sure, rows.known, 1.0)
    conversions, revenue = rows.converted / share, kept / share
    rate = delays.rate[at]
    worth = rate * delays.worth[at] * (1.0 - delays.returned[at])
    return Settled(
        conversions=np.where(sure, conversions, _of_ad(conversions, rate, rows, sure, rate)),
        revenue=np.where(sure, revenue, _of_ad(revenue, worth, rows, sure, rate)),
        known=rows.known,
        expected=rows.clicked * rate,
    )


def _of_ad(values: Floats, mean: Floats, rows: AsOf, sure: Flags, rate: Floats) -> Floats:
    """What rows (n,) bring as the sure clicks on their ads did; an ad starts from its category's
    `mean` (n,), with as many clicks as have OWN conversions at its `rate` (n,).
    """
    told = sure & rows.clicked
    start = np.divide(OWN, rate, out=np.ones_like(rate), where=rate > 0)
    hits, clicked = (
        np.bincount(rows.ad, weights=each * told)[rows.ad] for each in (values, np.ones(told.size))
    )
    found: Floats = rows.clicked * (hits + start * mean) / (clicked + start)
    return found


def _given_back(delays: Delays, rows: AsOf, moment: int) -> Floats:
    """Micros (n,) that were returned, and of the sales that were not what may yet be."""
    age = hours_between(rows.first_sale, moment)
    share = delays.returned[rows.category]
    one_segment = np.zeros(age.size, np.int32)
    told = share * delays.returns.known(rows.category, one_segment, age)
    # P(returned later | not returned by now), by Bayes.
    left = np.divide(share - told, 1.0 - told, out=np.zeros_like(told), where=told < 1.0)
    back: Floats = np.where(rows.back > 0, rows.back, rows.sold * left)
    return back
