"""Every estimator's terms of a policy on a log, summed over users.

A log of a million slates is read a part at a time: what is kept of each is sums over its users, and
over its weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from roiflow.artefacts.evaluation import Diagnostics
from roiflow.evaluation.estimators.balanced import weighed_dr
from roiflow.evaluation.estimators.cascade_dr import cascade_dr_terms
from roiflow.evaluation.estimators.chances import Chances, ratio
from roiflow.evaluation.estimators.diagnostics import Weighed
from roiflow.evaluation.estimators.dm import dm_terms
from roiflow.evaluation.estimators.examination import examination_weights
from roiflow.evaluation.estimators.ips import ips_terms
from roiflow.evaluation.estimators.mips import kind_weights
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.evaluation.estimators.shrunk_dr import shrunk
from roiflow.evaluation.estimators.switch_dr import switched
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import TargetOnLog
from roiflow.features.table import Floats, Longs

PART = 1 << 15
"""Slates worked on together: their weights stay in the cache."""


class Shapes(Protocol):
    """How large weights are taken off."""

    @property
    def switch_weight(self) -> float: ...  # noqa: D102
    @property
    def shrinkage(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Terms:
    """Columns (n, m) of n slates or users, to be summed; `normalised` says how the sums are read.

    Plain: revenue, cost. Self-normalised, over S positions: revenue x weight, cost x weight,
    weight, slates that have the position.
    """

    columns: Floats
    normalised: bool
    model_based: bool
    diagnostics: Diagnostics | None
    maturity: float | None

    def revenue_and_cost(self, totals: Floats) -> tuple[Floats, Floats]:
        """Totals (..., m) -> revenue (...) and cost (...) of all slates, micros."""
        if not self.normalised:
            return totals[..., 0], totals[..., 1]
        # A position that no drawn slate has adds nothing. One that has slates and no weight left
        # has no estimate: NaN, which takes the whole interval away, where 0 would be a loss that
        # nobody saw.
        revenue, cost, weight, present = np.split(totals, 4, axis=-1)
        scale = np.divide(present, weight, out=np.where(present > 0, np.nan, 0.0), where=weight > 0)
        return np.sum(revenue * scale, axis=-1), np.sum(cost * scale, axis=-1)


def logged_terms(slates: Slates) -> Terms:
    """What the logging policy earned, by user in ascending order: on-policy."""
    users, index = np.unique(slates.user, return_inverse=True)
    columns = np.column_stack([slates.revenue.sum(axis=1), slates.cost.sum(axis=1)])
    return Terms(_summed(index, columns, users.size), False, False, None, slates.maturity())


def target_terms(
    slates: Slates, target: TargetOnLog, logged: Chances, shapes: Shapes
) -> dict[str, Terms]:
    """Terms of the target policy by user, by estimator; the direct method alone without
    propensities.

    `logged` are the chances of what filled the slates. `ips`, `snips` weigh each position by
    itself; `examination`, `mips` and the doubly robust ones pool them by how much they are looked
    at: right where a position's reward depends on its own ad only, as in the position-based click
    model that `dm` assumes too. `rips` and `cascade_dr` weigh the slate down to the position: right
    also where the ads above matter, at the price of far larger weights.
    """
    # All or nothing: estimators on the slates that have propensities, beside a direct method on all
    # of them, would be about two different sets of users.
    names = list(_READERS) if slates.logged.all() else ["dm"]
    users, index = np.unique(slates.user, return_inverse=True)
    found = {name: _Sums(users.size) for name in names}
    for start in range(0, slates.row.size, PART):
        part = slice(start, start + PART)
        some = _Part.of(slates.take(part), target.take(part), logged.take(part), shapes)
        here, own = np.unique(index[part], return_inverse=True)
        for name in names:
            found[name].add(some, _READERS[name](some), here, own)
    support = float(target.support.mean())
    return {
        name: one.terms(slates.row.size, support, normalised=name == "snips")
        for name, one in found.items()
    }


@dataclass(frozen=True)
class _Part:
    """Some slates, and what several estimators read of them."""

    slates: Slates
    target: TargetOnLog
    present: Floats  # (B, S) 0 or 1
    marginal: Floats  # (B, S) weights of a position by itself
    looks: Floats  # (B, S) pooled over positions
    kind: Floats  # (B, S) of the ad's kind
    presence: Floats  # (B, S) pooled over positions, whether looked at or not
    slate: Floats  # (B, S) down to the position
    shapes: Shapes
    told: dict[int, "_Told"]
    """By the weight that it is of: several estimators share one."""

    @classmethod
    def of(cls, slates: Slates, target: TargetOnLog, logged: Chances, shapes: Shapes) -> "_Part":
        return cls(
            slates,
            target,
            slates.present.astype(np.float64),
            ratio(target.chances.marginal, logged.marginal),
            examination_weights(target.chances, logged),
            kind_weights(target.chances, logged),
            ratio(target.chances.presence, logged.presence),
            np.where(slates.present, _slate_weights(slates, target), 0.0),
            shapes,
            {},
        )

    def tell(self, weight: Floats, pooled: bool) -> "_Told":
        """What is kept of weights (B, S)."""
        if id(weight) not in self.told:
            limit, expected = self.shapes.switch_weight, weight * self.slates.expected
            seen = (
                Weighed.pooled(weight, self.target.looks, limit)
                if pooled
                else Weighed.of(weight, self.present, limit)
            )
            known = float(np.vdot(expected, self.slates.known))
            self.told[id(weight)] = _Told(seen, known, float(expected.sum()))
        return self.told[id(weight)]

    def weighed(self, weight: Floats) -> Floats:
        """IPS terms (B, 2) of revenue and cost."""
        money = self.slates.revenue, self.slates.cost
        return np.column_stack([ips_terms(one, weight) for one in money])


@dataclass(frozen=True)
class _Told:
    """Of the weights of some slates."""

    weighed: Weighed
    known: float  # of the conversions
    whole: float


def _slate_weights(slates: Slates, target: TargetOnLog) -> Floats:
    if not slates.logged.all():
        return np.zeros(slates.propensity.shape)
    return slate_weights(np.minimum(target.propensity, 1.0), slates.propensity)


@dataclass(frozen=True)
class _Read:
    """Terms (B, m) of one estimator, and the weights (B, S) that they were made with."""

    columns: Floats
    weight: Floats | None
    pooled: bool = False
    """Over the positions of a slate."""


def _snips(some: _Part) -> _Read:
    weight, slates = some.marginal, some.slates
    columns = [weight * slates.revenue, weight * slates.cost, weight, some.present]
    return _Read(np.hstack(columns), weight)


def _doubly_robust(some: _Part, shape: Callable[[Floats], Floats]) -> _Read:
    """With weights pooled over positions and then shaped."""
    weights = shape(some.looks), shape(some.presence)
    found = weighed_dr(some.slates, some.target, *weights)
    return _Read(np.column_stack([found.revenue, found.cost]), some.looks, True)


def _cascade(some: _Part) -> _Read:
    money = (some.slates.revenue, some.target.revenue), (some.slates.cost, some.target.cost)
    columns = [
        cascade_dr_terms(one, some.slate, model.cascade_logged, model.cascade_target)
        for one, model in money
    ]
    return _Read(np.column_stack(columns), some.slate)


def _direct(some: _Part) -> _Read:
    models = some.target.revenue, some.target.cost
    return _Read(np.column_stack([dm_terms(one.target) for one in models]), None)


_READERS: Mapping[str, Callable[[_Part], _Read]] = {
    "ips": lambda some: _Read(some.weighed(some.marginal), some.marginal),
    "snips": _snips,
    "examination": lambda some: _Read(some.weighed(some.looks), some.looks, True),
    "mips": lambda some: _Read(some.weighed(some.kind), some.kind, True),
    "dr": lambda some: _doubly_robust(some, lambda weight: weight),
    "switch_dr": lambda some: _doubly_robust(
        some, lambda weight: switched(weight, some.shapes.switch_weight)
    ),
    "shrunk_dr": lambda some: _doubly_robust(
        some, lambda weight: shrunk(weight, some.shapes.shrinkage)
    ),
    "dm": _direct,
    "rips": lambda some: _Read(some.weighed(some.slate), some.slate),
    "cascade_dr": _cascade,
}
ESTIMATORS = tuple(_READERS)


class _Sums:
    """What is kept of the parts so far."""

    def __init__(self, users: int) -> None:
        self._users = users
        self._columns: Floats | None = None
        self._weighed: Weighed | None = None
        self._known, self._whole = 0.0, 0.0

    def add(self, some: _Part, read: _Read, here: Longs, own: Longs) -> None:
        """One part: its users (u,), ascending, and which of them each slate is of (B,)."""
        if self._columns is None:
            self._columns = np.zeros((self._users, read.columns.shape[1]))
        self._columns[here] += _summed(own, read.columns, here.size)
        if read.weight is None:
            return
        told = some.tell(read.weight, read.pooled)
        self._weighed = told.weighed if self._weighed is None else self._weighed + told.weighed
        self._whole += told.whole
        self._known += told.known

    def terms(self, slates: int, support: float, *, normalised: bool) -> Terms:
        assert self._columns is not None
        seen = self._weighed
        return Terms(
            self._columns,
            normalised=normalised,
            model_based=seen is None,
            diagnostics=seen.diagnostics(slates, support) if seen else None,
            maturity=self._known / self._whole if self._whole > 0 else None,
        )


def _summed(group: Longs, columns: Floats, groups: int) -> Floats:
    """Sums (groups, m) of rows (n, m)."""
    return np.column_stack([np.bincount(group, column, minlength=groups) for column in columns.T])
