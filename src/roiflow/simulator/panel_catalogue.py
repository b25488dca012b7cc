"""Which products of the panel are advertised, and when: those that sell most in the weeks before.

Categories are product types, chosen once. An ad stays while its product sells well in its category,
so that the catalogue turns over as the panel's shelves do.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roiflow.data.sources.complete_journey import PANEL_WEEKS
from roiflow.simulator.panel_model import Purchases

Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]

ADS_PER_CATEGORY = 4
STAYS = 2
"""An ad ends when its product is no more among its category's STAYS * (ads of it) most bought."""


class Catalogue(NamedTuple):
    """A ads in order of their first week; weeks are the panel's numbers."""

    product: Longs  # (A,) product codes
    category: Longs  # (A,) categories are numbered from 0, those that sell most first
    first: Longs  # (A,) they are shown in the weeks [first, last)
    last: Longs  # (A,)

    def known(self, week: int) -> "Catalogue":
        """As it is known in a week: what is still to come, ads and ends, comes after the panel."""
        first = np.where(self.first <= week, self.first, PANEL_WEEKS + 1)
        last = np.where(self.last <= week, self.last, PANEL_WEEKS + 1)
        return self._replace(first=first, last=last)

    def live(self, week: int) -> Flags:
        """Which ads (A,) are shown in a week."""
        return (self.first <= week) & (week < self.last)


def choose_catalogue(
    purchases: Purchases, allowed: Flags, products: int, history: int, weeks: range
) -> Catalogue:
    """Up to `products` ads in each of `weeks`, for products that are `allowed` (P,).

    Categories are the product types whose ADS_PER_CATEGORY best products were bought most often in
    the `history` weeks before the first week; each has as many ads as any other, give or take one.
    A free place goes to the category's most bought product of the weeks before that has had none.
    """
    weekly = _weekly_lines(purchases)

    # Always of weeks before the asked one, so that no ad is chosen by what is still to come.
    def sold(week: int) -> Longs:
        total: Longs = weekly[week - history : week].sum(0) * allowed
        return total

    categories = -(-products // ADS_PER_CATEGORY)
    members = _best_types(sold(weeks[0]), purchases.product_type, categories)
    # Rounded running totals: places differ by one at most and add up to `products`.
    rooms = np.diff(np.arange(len(members) + 1) * products // max(len(members), 1)).tolist()
    ads: list[list[int]] = []  # product, category, first week, last week
    live: list[list[list[int]]] = [[] for _ in members]
    used: list[set[int]] = [set() for _ in members]
    for week in weeks:
        count = sold(week)
        for category, (codes, room) in enumerate(zip(members, rooms, strict=True)):
            best = _most_bought(codes, count)
            # The lists in `live` are those in `ads`: an end that is written here is the
            # catalogue's.
            for ad in live[category]:
                ad[3] = ad[3] if ad[0] in best[: STAYS * room] else week
            staying = [ad for ad in live[category] if ad[3] > week]
            # A product that was advertised once does not come back: an ad has one first and one
            # last week.
            fresh = [code for code in best if code not in used[category]][: room - len(staying)]
            entering = [[code, category, week, PANEL_WEEKS + 1] for code in fresh]
            live[category] = staying + entering
            used[category].update(fresh)
            ads += entering
    return Catalogue(*np.array(ads, np.int64).reshape(-1, 4).T)


def _weekly_lines(purchases: Purchases) -> Longs:
    """(W + 1, P) purchase lines of each product in each week, from week 0."""
    products, weeks = purchases.product_type.size, purchases.starts.size - 1
    week = np.repeat(np.arange(weeks), np.diff(purchases.starts))
    first, last = purchases.starts[0], purchases.starts[-1]
    cell = week * products + purchases.product[first:last]
    return np.bincount(cell, minlength=weeks * products).reshape(weeks, products)


def _best_types(sold: Longs, product_type: Longs, categories: int) -> list[Longs]:
    """Codes of the products of each of the best types, the best type first."""
    rows = np.flatnonzero((product_type >= 0) & (sold > 0))
    # Sorted by type and then by sales, a product's rank in its type is its distance from the type's
    # first row.
    rows = rows[np.lexsort((-sold[rows], product_type[rows]))]
    types, start = np.unique(product_type[rows], return_index=True)
    rank = np.arange(rows.size) - np.repeat(start, np.diff(np.r_[start, rows.size]))
    top = rows[rank < ADS_PER_CATEGORY]
    total = np.bincount(product_type[top], sold[top], minlength=int(product_type.max()) + 1)
    chosen = types[np.argsort(-total[types], kind="stable")][:categories]
    return [np.flatnonzero(product_type == one) for one in chosen]


def _most_bought(codes: Longs, sold: Longs) -> list[int]:
    """Those of `codes` that were bought at all, the most bought first."""
    order = codes[np.argsort(-sold[codes], kind="stable")]
    out: list[int] = order[sold[order] > 0].tolist()
    return out
