"""Statistics of the dense features that can be put together from parts of the training rows."""

from dataclasses import dataclass

import numpy as np

from roiflow.features.table import Floats, Singles, Statistics

_CHUNK = 1 << 14


@dataclass(frozen=True)
class Moments:
    """Of n rows (Chan, Golub & LeVeque, 1979)."""

    rows: int
    mean: Floats  # (F,)
    squares: Floats  # (F,) sum of squared deviations from the mean
    low: Singles  # (F,)
    high: Singles  # (F,)

    @classmethod
    def none(cls, width: int) -> "Moments":
        """Of no rows."""
        # Any value is below the lowest and above the highest of no rows.
        edge = np.full(width, np.inf, np.float32)
        return cls(0, np.zeros(width), np.zeros(width), edge, -edge)

    @classmethod
    def of(cls, dense: Singles) -> "Moments":
        """Of rows (n, F), a chunk at a time."""
        total = cls.none(dense.shape[1])
        for start in range(0, dense.shape[0], _CHUNK):
            # In doubles, and around each chunk's own mean: a sum of float32 squares would lose what
            # varies little around a large mean.
            part = dense[start : start + _CHUNK].astype(np.float64)
            mean = part.mean(axis=0)
            part -= mean
            chunk = dense[start : start + _CHUNK]
            squares = np.einsum("nf,nf->f", part, part)
            total = total.joined(
                cls(part.shape[0], mean, squares, chunk.min(axis=0), chunk.max(axis=0))
            )
        return total

    def joined(self, other: "Moments") -> "Moments":
        """Of both parts' rows."""
        rows = self.rows + other.rows
        if not rows:
            return self
        gap = other.mean - self.mean
        return Moments(
            rows,
            self.mean + gap * other.rows / rows,
            self.squares + other.squares + gap**2 * self.rows * other.rows / rows,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def statistics(self) -> Statistics:
        """A constant feature has deviation and span 1."""
        std = np.sqrt(self.squares / self.rows)
        # A constant's deviation is a rounding error and not 0: to divide by it would blow it up.
        std[std < 1e-6] = 1.0
        span = self.high - self.low
        span[span == 0.0] = 1.0
        return Statistics(self.mean.astype(np.float32), std.astype(np.float32), self.low, span)
