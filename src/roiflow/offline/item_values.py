"""Item-side features of logged impressions: one value for each ad of each hour, made once."""

from dataclasses import dataclass

import numpy as np

from roiflow.features import kernels
from roiflow.features.engine import ItemLog
from roiflow.features.plan import Plan, frozen
from roiflow.features.table import Ints, Longs, Singles


@dataclass(frozen=True)
class ItemValues:
    """Values of the ads asked for in each hour, and of every placement in each hour."""

    plan: Plan
    ad: Longs  # (m,) sorted within each hour
    of_hour: Longs  # (hours + 1,)
    first_hour: int
    ad_values: Singles  # (m, item features)
    placement_values: Singles  # (hours * placements, item features)

    @classmethod
    def of(cls, plan: Plan, log: ItemLog, asked: Longs) -> "ItemValues":
        """`asked` (m,): distinct hours times the number of ads plus the ad, sorted."""
        ads, placements = plan.sizes["ad"], plan.sizes["placement"]
        hour, ad = asked // ads, asked % ads
        first, last = int(hour[0]), int(hour[-1])
        hours = np.arange(first, last + 1)
        # Ad 0 stands in: a placement's own features do not look at the ad, and of these rows no
        # others are read.
        nowhere = np.zeros(hours.size * placements, np.int64)
        return cls(
            plan,
            frozen(ad),
            frozen(np.searchsorted(hour, np.arange(first, last + 2))),
            first,
            _values(plan, log, hour, ad, np.zeros_like(ad)),
            _values(
                plan,
                log,
                np.repeat(hours, placements),
                nowhere,
                np.tile(np.arange(placements), hours.size),
            ),
        )

    def fill(self, hour: Ints, ad: Ints, placement: Ints, out: Singles) -> None:
        """The item-side columns of `out` (n, F)."""
        kernels.item_gather(
            frozen(hour), frozen(ad), frozen(placement), self.ad, self.of_hour, self.first_hour,
            self.ad_values, self.placement_values, self.plan.sizes["placement"],
            self.plan.item_cells, out,
        )  # fmt: skip


def _values(plan: Plan, log: ItemLog, hour: Longs, ad: Longs, placement: Longs) -> Singles:
    """Item-side features (n, item features) at hours (n,), which are in order."""
    cells = plan.item_cells
    # Columns are numbered anew, so that the result is as wide as the item side and not as all
    # features.
    cells = cells._replace(column=frozen(np.arange(cells.column.size)))
    out = np.zeros((hour.size, 1, cells.column.size), np.float32)
    kernels.item_pass(
        np.arange(hour.size), frozen(hour.astype(np.int32)), frozen(ad.astype(np.int32)[:, None]),
        frozen(placement.astype(np.int32)), log.hour, log.rows, plan.ad_attributes, cells,
        plan.rates, kernels.LOGS, out,
    )  # fmt: skip
    return out[:, 0]
