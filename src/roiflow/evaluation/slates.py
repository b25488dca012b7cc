"""Slates as they were logged, with what they will have brought once all of it is known."""

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import ContractError
from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.labels.model import Labels
from roiflow.labels.settled import settle

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Slates:
    """B logged slates of up to S positions; where `present` is False the rest holds no meaning."""

    row: Longs  # (B,) row of the impression at the top
    user: Ints  # (B,)
    ad: Ints  # (B, S) -1 where absent
    position: Ints  # (B, S) 1-based, as logged; 1 where absent
    present: Flags  # (B, S)
    clicked: Flags  # (B, S)
    revenue: Floats  # (B, S) micros in the end, as labels.settled has it; 0 where absent
    cost: Floats  # (B, S) micros, 0 where absent
    propensity: Floats  # (B, S) given the ads above; NaN where not logged, 1 where absent
    expected: Floats  # (B, S) conversions that clicks bring as their category does; 0 where absent
    known: Floats  # (B, S) share of them that is known; 0 where absent
    canary: Flags  # (B,) the arm that filled it: the challenger's, or any other

    def take(self, rows: Longs | slice) -> "Slates":
        """The slates `rows`, in that order."""
        return Slates(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @property
    def logged(self) -> Flags:
        """(B,): True where every propensity of the slate was logged."""
        logged: Flags = np.all(~np.isnan(self.propensity), axis=1)
        return logged

    def maturity(self, weight: Floats | float = 1.0) -> float | None:
        """Share of the conversions that is known, slates weighed (B, S); None without any."""
        whole = float(np.sum(weight * self.expected))
        return float(np.sum(weight * self.expected * self.known)) / whole if whole > 0 else None


def logged_slates(features: Features, labels: Labels, rows: Longs, slots: int) -> Slates:
    """The slates of impression `rows`, cut to the first `slots` positions.

    A slate with a gap above a position (a quarantined impression) is left out, because what stood
    above it is not known; a lone impression of a one-ad slate stays, wherever it stood. Raises
    ContractError where no slate is left.
    """
    log = features.impressions
    # One sort puts slates together and their ads in order; all else is arithmetic on the starts, so
    # that no slate is a Python object.
    rows = rows[np.lexsort((log.position[rows], log.request[rows]))]
    request = log.request[rows]
    if rows.size == 0:
        raise ContractError("no impression to evaluate on")
    starts = np.flatnonzero(np.r_[True, request[1:] != request[:-1]])
    sizes = np.diff(np.r_[starts, rows.size])
    rank = np.arange(rows.size) - np.repeat(starts, sizes)
    # A one-ad slate may stand anywhere on a page (a banner): nothing of its own stood above it.
    alone = (sizes == 1) & (log.slate_size[rows[starts]] == 1)
    whole = np.logical_and.reduceat(log.position[rows] == rank + 1, starts) | alone
    if not whole.any():
        raise ContractError(f"none of {starts.size} slates is logged from position 1 without a gap")
    # Slates that stay are numbered through. One that goes has the number of the one before it, to
    # which `keep` takes no row.
    number = np.cumsum(whole) - 1
    keep = np.repeat(whole, sizes) & (rank < slots)
    slate = np.repeat(number, sizes)[keep]
    place, kept = rank[keep], rows[keep]
    shape = (int(whole.sum()), slots)

    def spread(values: NDArray[T], fill: float) -> NDArray[T]:
        matrix: NDArray[T] = np.full(shape, fill, dtype=values.dtype)
        matrix[slate, place] = values
        return matrix

    top = rows[starts[whole]]
    settled = settle(labels, features, kept)
    return Slates(
        row=top,
        user=np.asarray(log.user[top]),
        ad=spread(log.ad[kept], -1),
        position=spread(log.position[kept], 1),
        present=spread(np.ones(kept.size, dtype=bool), False),
        clicked=spread(log.clicked[kept], False),
        revenue=spread(settled.revenue, 0.0),
        cost=spread(log.cost[kept].astype(np.float64), 0.0),
        propensity=spread(log.propensity[kept], 1.0),
        expected=spread(settled.expected, 0.0),
        known=spread(settled.known, 0.0),
        canary=np.asarray(log.canary[top]),
    )
