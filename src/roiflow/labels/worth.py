"""What a click brings in the end, returns taken off, by category, from what is known so far."""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import AD_ATTRIBUTES, CONTEXT, Features, Flags, Floats, Ints, Longs
from roiflow.labels.delays import Curves, hours_between

CATEGORY = AD_ATTRIBUTES.index("category")


def clicks(features: Features) -> Flags:
    """Impressions (n,) that can convert: clicked ones; all, where the log has no click at all."""
    clicked = features.impressions.clicked
    return clicked if clicked.any() else np.ones(clicked.shape, np.bool_)


@dataclass(frozen=True)
class Known:
    """What was known of n impressions by a time: money by row, and each sale and return apart."""

    sold: Floats  # (n,) micros before returns
    back: Floats  # (n,) micros given back
    first_sale: Longs  # (n,) when the first sale became known; of rows with a return alone: that
    sale_row: Longs  # (s,)
    sale_time: Longs  # (s,)
    back_row: Longs  # (r,)
    back_time: Longs  # (r,)

    @classmethod
    def of(cls, features: Features, until: int | Longs) -> "Known":
        """Known before `until`, microseconds: of all rows or of each (n,)."""
        found, rows = features.outcomes, features.impressions.ad.size
        limit = until if isinstance(until, int) else until[found.row]
        early = found.known_time < limit
        row, time, money = found.row[early], found.known_time[early], found.revenue[early]
        sale = money >= 0
        # From the back, so that the earliest one is what stays; a sale goes over a return.
        first = np.zeros(rows, np.int64)
        for kind in (~sale, sale):
            first[row[kind][::-1]] = time[kind][::-1]
        return cls(
            _summed(money[sale], row[sale], rows),
            _summed(-money[~sale], row[~sale], rows),
            first,
            row[sale],
            time[sale],
            row[~sale],
            time[~sale],
        )


@dataclass(frozen=True)
class Delays:
    """What a click brings and when it is known, by category, from what was known at one time."""

    as_of: int
    """Microseconds: nothing that became known from then on went into it."""
    segment: int
    """Column of the context whose values are segments; -1: there is one segment."""
    sales: Curves
    """From the impression to the conversion that is known."""
    returns: Curves
    """From the conversion that is known to its return that is; one segment."""
    returned: Floats  # (categories,) share of the revenue that is given back in the end
    rate: Floats  # (categories,) conversions per click in the end
    worth: Floats  # (categories,) micros per conversion before returns
    left_out: int
    """Conversions and returns that took longer than is allowed for; no curve has them."""

    @classmethod
    def learn(
        cls, features: Features, as_of: int, *, segment: int, prior: float, longest_hours: int
    ) -> "Delays":
        """From the impressions before `as_of` and what was known of them by then.

        `prior` conversions (or returns) as all categories have them draw each category's figures
        towards those of all.
        """
        log, categories = features.impressions, features.sizes["category"]
        segments = features.sizes[CONTEXT[segment]] if segment >= 0 else 1
        category = features.attributes[:, CATEGORY][log.ad]
        place = log.context[:, segment] if segment >= 0 else np.zeros_like(category)
        known = Known.of(features, as_of)
        row, delay = known.sale_row, hours_between(log.event_time[known.sale_row], known.sale_time)
        fit = delay <= longest_hours
        sales = Curves.of(
            delay[fit],
            hours_between(log.event_time[row[fit]], as_of),
            category[row[fit]],
            place[row[fit]],
            (categories, segments),
            prior,
        )
        gone, kept = (
            known.back_row,
            hours_between(known.first_sale[known.back_row], known.back_time),
        )
        soon = kept <= longest_hours
        returns = Curves.of(
            kept[soon],
            hours_between(known.first_sale[gone[soon]], as_of),
            category[gone[soon]],
            np.zeros(int(soon.sum()), np.int32),
            (categories, 1),
            prior,
        )
        base = clicks(features) & (log.event_time < as_of)
        matured = np.zeros(log.ad.size)
        matured[base] = sales.known(
            category[base], place[base], hours_between(log.event_time[base], as_of)
        )
        sold = np.flatnonzero(known.sold > 0)
        settled = returns.known(
            category[sold], np.zeros_like(sold), hours_between(known.first_sale[sold], as_of)
        )

        def summed(value: Floats, rows: Longs | Flags) -> Floats:
            return _summed(value[rows], category[rows], categories)

        converted = (known.sold > 0).astype(np.float64)
        rate = _drawn(summed(converted, base), summed(matured, base), prior)
        worth = _drawn(summed(known.sold, sold), summed(converted, sold), prior, per_case=False)
        whole = np.zeros(log.ad.size)
        whole[sold] = known.sold[sold] * settled
        unit = float(known.sold[sold].mean()) if sold.size else 1.0
        returned = _drawn(summed(known.back, sold) / unit, summed(whole, sold) / unit, prior)
        left_out = int(np.count_nonzero(~fit) + np.count_nonzero(~soon))
        return cls(as_of, segment, sales, returns, np.minimum(returned, 1.0), rate, worth, left_out)


def _summed(value: Floats | Longs, group: Longs | Ints, groups: int) -> Floats:
    """Sums (groups,) of values (n,)."""
    total: Floats = np.bincount(group, weights=value, minlength=groups).astype(np.float64)
    return total


def _drawn(hits: Floats, tries: Floats, prior: float, *, per_case: bool = True) -> Floats:
    """Hits by tries (c,), each drawn to that of all by as many tries as bring `prior` hits there.

    Not `per_case`: by `prior` tries. What of all was never tried is 0.
    """
    mean = float(hits.sum()) / float(tries.sum()) if hits.sum() > 0 and tries.sum() > 0 else 0.0
    weight = prior / mean if per_case and mean > 0 else prior
    whole = tries + weight
    return np.divide(hits + weight * mean, whole, out=np.full(hits.shape, mean), where=whole > 0)
