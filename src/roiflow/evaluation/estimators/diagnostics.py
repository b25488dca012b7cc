"""How far weights can be believed, and the limits under which no answer is conclusive."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from roiflow.artefacts.evaluation import Diagnostics
from roiflow.features.table import Flags, Floats


def effective_sample_size(weight: Floats) -> float:
    """(sum w)^2 / sum w^2 of weights (n,)  (Kish, 1965); 0 where all are 0."""
    squares = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / squares if squares > 0 else 0.0


@dataclass(frozen=True)
class Weighed:
    """Sums over weights by position, which add up over parts of a log."""

    count: Floats  # (S,)
    total: Floats  # (S,)
    squares: Floats  # (S,)
    largest: float
    clipped: float
    """Of `total`, on weights over the limit."""

    @classmethod
    def of(cls, weight: Floats, looks: Floats, limit: float = np.inf) -> "Weighed":
        """Of weights (n, S), each counted `looks` (n, S) times; those with 0 are left out."""
        mass = looks * weight
        seen = looks > 0
        return cls(
            looks.sum(axis=0),
            mass.sum(axis=0),
            (mass * weight).sum(axis=0),
            float(weight.max(where=seen, initial=0.0)),
            float(mass.sum(where=weight > limit)),
        )

    @classmethod
    def pooled(cls, weight: Floats, looks: Floats, limit: float = np.inf) -> "Weighed":
        """As `of`, the positions of a slate as one: the mean of what is pooled over them is 1."""
        count, mass = looks.sum(axis=1), looks * weight
        mean = np.divide(mass.sum(axis=1), count, out=np.zeros_like(count), where=count > 0)
        found = cls.of(mean[:, None], count[:, None])
        largest = float(weight.max(where=looks > 0, initial=0.0))
        return replace(found, largest=largest, clipped=float(mass.sum(where=weight > limit)))

    def __add__(self, other: "Weighed") -> "Weighed":
        return Weighed(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            max(self.largest, other.largest),
            self.clipped + other.clipped,
        )

    def diagnostics(self, rows: int, support: float) -> Diagnostics:
        """Each figure of the worst position."""
        # A mean over positions would hide the last ones, where weights are largest, behind the
        # first.
        seen = self.count > 0
        if not seen.any():
            return Diagnostics(rows, 0.0, 0.0, 0.0, support, 0.0)
        means = self.total[seen] / self.count[seen]
        # In slates: counts are in looks, of which a position has fewer.
        scale = rows / self.count[seen].max()
        sizes = np.divide(
            self.total**2, self.squares, out=np.zeros_like(self.total), where=self.squares > 0
        )
        total = float(self.total.sum())
        return Diagnostics(
            rows=rows,
            effective_sample_size=float(sizes[seen].min() * scale),
            max_weight=self.largest,
            mean_weight=float(means[np.argmax(np.abs(means - 1.0))]),
            support=support,
            clipped=self.clipped / total if total > 0 else 0.0,
        )


def diagnose(weight: Floats, support: float, present: Flags | None = None) -> Diagnostics:
    """Of weights (n,) or (n, S); rows of a position where `present` is False are left out."""
    matrix = weight if weight.ndim == 2 else weight[:, None]
    mask = np.ones(matrix.shape, dtype=bool) if present is None else present.reshape(matrix.shape)
    found = Weighed.of(matrix, mask.astype(np.float64))
    return replace(found.diagnostics(matrix.shape[0], support), clipped=0.0)


class Limits(Protocol):
    """The limits of params.yaml under which an answer is inconclusive."""

    @property
    def min_effective_sample_size(self) -> float: ...  # noqa: D102
    @property
    def max_weight(self) -> float: ...  # noqa: D102
    @property
    def mean_weight_tolerance(self) -> float: ...  # noqa: D102
    @property
    def min_support(self) -> float: ...  # noqa: D102
    @property
    def min_maturity(self) -> float: ...  # noqa: D102


def doubts(found: Diagnostics, limits: Limits) -> list[str]:
    """Each limit that is broken, in words; empty where the answer can be trusted."""
    faults = []
    if found.effective_sample_size < limits.min_effective_sample_size:
        faults.append(
            f"effective sample size {found.effective_sample_size:.1f} "
            f"under {limits.min_effective_sample_size:g}"
        )
    if found.max_weight > limits.max_weight:
        faults.append(f"largest weight {found.max_weight:.1f} over {limits.max_weight:g}")
    if abs(found.mean_weight - 1.0) > limits.mean_weight_tolerance:
        faults.append(
            f"mean weight {found.mean_weight:.3f} not within {limits.mean_weight_tolerance:g} of 1"
        )
    if found.support < limits.min_support:
        faults.append(f"support {found.support:.3f} under {limits.min_support:g}")
    return faults
