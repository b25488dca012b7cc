"""One pass of mergeable histograms over all rows, and how far apart two of them are.

PSI and its bins are Evidently's, but for three things that made a verdict depend on how many rows
were looked at: the number of bins is fixed (there it grows with the logarithm of the rows), an
empty bin counts as a fixed share (there a millionth of the rarest one's), and rows where the
reference had none are told as a share of their own, which PSI alone hides.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

FEW = 20
"""A column of so few values is compared value by value, as Evidently does."""

_BITS = 20


@dataclass(frozen=True)
class Histogram:
    """Rows of a column by value, k values in order; `low` and `high` are exact."""

    value: Floats  # (k,) a category's code; the end towards zero of a number's bin
    count: Longs  # (k,)
    low: float
    high: float
    category: bool

    @property
    def rows(self) -> int:
        """Rows that were counted."""
        return int(self.count.sum())


# Compiled: `np.add.at`, numpy's way to count into bins that are there already, takes 4 times as
# long, and a bincount of each block would touch all the bins that stay empty.
@compiled()
def _count(
    block: NDArray[np.float32],
    bits: NDArray[np.uint32],
    counts: NDArray[np.int32],
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> None:
    for row in range(block.shape[0]):
        for column in range(block.shape[1]):
            # Row by row, as the block lies in memory; the table of counts is what is jumped about
            # in.
            counts[column, bits[row, column] >> np.uint32(32 - _BITS)] += 1
            low[column] = min(low[column], block[row, column])
            high[column] = max(high[column], block[row, column])


class Numbers:
    """Histograms of `columns` numbers, added to block by block.

    A number's bin is the upper 20 bits of its float32: sign, exponent and 11 of the fraction. So
    the bins are known before the first row and the same for every part of the data: a bin is at
    most 0.05 % of its value wide, and whole numbers up to 4096 have one each. With 7 bits of
    the fraction a price at the edge of two of PSI's bins fell into the other, and turned a verdict.
    """

    def __init__(self, columns: int) -> None:
        self._counts = np.zeros((columns, 1 << _BITS), np.int32)
        self._low = np.full(columns, np.inf, np.float32)
        self._high = np.full(columns, -np.inf, np.float32)

    def add(self, block: NDArray[np.float32]) -> None:
        """Count finite numbers (n, columns)."""
        _count(block, block.view(np.uint32), self._counts, self._low, self._high)

    def histograms(self) -> list[Histogram]:
        """Of every column."""
        return [
            _of_bins(count, float(low), float(high))
            for count, low, high in zip(self._counts, self._low, self._high, strict=True)
        ]


def _of_bins(counts: NDArray[np.int32], low: float, high: float) -> Histogram:
    # Bins beyond the largest value were never touched; without negative ones that is most of them.
    # By the sign's bit, since -0.0 is not below 0 and its bin is among the negative ones.
    touched = 1 << (_BITS - 1)
    if not counts[touched:].any():
        counts = counts[: (np.float32(high).view(np.uint32) >> np.uint32(32 - _BITS)) + 1]
    bins = np.flatnonzero(counts)
    value = (bins.astype(np.uint32) << np.uint32(32 - _BITS)).view(np.float32).astype(np.float64)
    order = np.argsort(value, kind="stable")  # the bits of negative numbers run backwards
    return Histogram(value[order], counts[bins[order]].astype(np.int64), low, high, category=False)


class Codes:
    """The histogram of one column of codes 0, 1, 2 and so on, added to block by block."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)

    def add(self, codes: NDArray[Any]) -> None:
        """Count codes (n,)."""
        # A later block may have larger codes: the new array is at least as long as the old one,
        # never shorter.
        found = np.bincount(codes, minlength=self._counts.size)
        found[: self._counts.size] += self._counts
        self._counts = found

    def histogram(self) -> Histogram:
        """Of the column."""
        codes = np.flatnonzero(self._counts)
        value = codes.astype(np.float64)
        return Histogram(value, self._counts[codes], value[0], value[-1], category=True)


@dataclass(frozen=True)
class Shares:
    """Shares of the rows of two histograms in the same b bins, and what the bins are."""

    bins: tuple[str, ...]
    reference: Floats  # (b,)
    current: Floats  # (b,)

    @property
    def unseen(self) -> float:
        """Share of the current rows in bins where the reference has none."""
        return float(self.current[self.reference == 0].sum())


def share(reference: Histogram, current: Histogram, bins: int) -> Shares:
    """In one bin for each value where the reference has few, else in so many of equal width."""
    if reference.category or reference.value.size <= FEW:
        first = np.union1d(reference.value, current.value)
        names = [f"{value:g}" for value in first]
    else:
        # Over the values of both: what lies beyond the reference's is then in bins of its own.
        low, high = min(reference.low, current.low), max(reference.high, current.high)
        edges = np.linspace(low, high, bins + 1)
        first = edges[:-1]
        names = [f"{start:.4g} to {end:.4g}" for start, end in pairwise(edges)]
    p, q = (
        # Weighted by rows: each value, not each row, is put in a bin.
        np.bincount(np.searchsorted(first[1:], side.value, "right"), side.count, first.size)
        / side.rows
        for side in (reference, current)
    )
    return Shares(tuple(names), p, q)


def psi(reference: Floats, current: Floats, empty: float) -> float:
    """Population stability index of shares (b,), sum (p - q) ln(p / q); none counts as `empty`."""
    p, q = (np.where(share > 0, share, empty) for share in (reference, current))
    return float(np.sum((p - q) * np.log(p / q)))


def jensenshannon(reference: Floats, current: Floats) -> float:
    """Jensen-Shannon distance of shares (b,): root of the mean divergence from their middle."""
    middle = (reference + current) / 2
    return float(np.sqrt((_divergence(reference, middle) + _divergence(current, middle)) / 2))


def _divergence(p: Floats, q: Floats) -> float:
    # 0 log 0 is 0. Where p is positive q, the middle, is too.
    some = p > 0
    return float(np.sum(p[some] * np.log(p[some] / q[some])))


def distance(method: Literal["psi", "jensenshannon"], found: Shares, empty: float) -> float:
    """The distance that params.yaml names."""
    if method == "psi":
        return psi(found.reference, found.current, empty)
    return jensenshannon(found.reference, found.current)
