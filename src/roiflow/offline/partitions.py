"""Rows put aside by user ranges, so that work and memory are those of one range at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

import numpy as np

from roiflow.features.history import sort_rows
from roiflow.features.table import Ints, Longs, dtype_of

PARTITION_ROWS = 1 << 19
"""Rows of one partition, if users are alike: its arrays stay in cache, and few at a time."""

Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class UserRanges:
    """Users 0 to bounds[-1] - 1 in contiguous ranges of dense indices."""

    bounds: Longs  # (ranges + 1,)

    @classmethod
    def of(cls, users: int, rows: int) -> "UserRanges":
        """As many ranges of equal width as `rows` need."""
        ranges = min(max(1, -(-rows // PARTITION_ROWS)), users)
        # Of equal width in users and not in rows: nobody has counted a user's rows yet.
        return cls(np.linspace(0, users, ranges + 1).astype(np.int64))

    def __len__(self) -> int:
        return self.bounds.size - 1

    def part(self, user: Ints) -> Ints:
        """Users (n,) -> the ranges that they are in (n,)."""
        return (np.searchsorted(self.bounds, user, side="right") - 1).astype(np.int32)

    def users(self, part: int) -> tuple[int, int]:
        """First user, and how many."""
        first, end = self.bounds[part : part + 2]
        return int(first), int(end - first)


class Aside:
    """Rows of a dataclass of arrays, in one file per range: a block per batch, column by column."""

    def __init__(self, folder: Path, name: str, ranges: UserRanges, kind: type[Any]) -> None:
        self._folder, self._name, self._ranges = folder, name, ranges
        self._types = {field.name: dtype_of(field.type) for field in fields(kind)}
        self._blocks: list[list[int]] = [[] for _ in range(len(ranges))]
        self.counts = np.zeros(len(ranges), np.int64)

    def _path(self, part: int) -> Path:
        return self._folder / f"{self._name}-{part}.rows"

    def put(self, values: Any) -> Longs:
        """Append rows by their field `user`; (n,): where each went, as rows of all ranges' files.

        A row's number is its range times 2^40 plus its place in the range's file.
        """
        part = self._ranges.part(values.user)
        # Stable, so that within a range rows stay in the order in which they came.
        order, offsets = sort_rows(part, len(self._ranges), part)
        columns = [
            getattr(values, name)[order].astype(kind, copy=False)
            for name, kind in self._types.items()
        ]
        place = np.empty(order.size, np.int64)
        for number, (start, end) in enumerate(pairwise(offsets.tolist())):
            if start == end:
                continue
            with self._path(number).open("ab") as file:
                for column in columns:
                    file.write(column[start:end].data.cast("B"))
            # Range and place in one number: 2^40 rows are more than a file of any range will have.
            first = (number << 40) + int(self.counts[number])
            place[order[start:end]] = np.arange(first, first + end - start)
            self.counts[number] += end - start
            self._blocks[number].append(end - start)
        return place

    def take(self, part: int, kind: type[Arrays]) -> Arrays:
        """The rows of one range, users counted from its first, in the order they were put."""
        # Straight into arrays of their final length; a block holds its columns one after the other.
        columns = {name: np.empty(self.counts[part], type_) for name, type_ in self._types.items()}
        at = 0
        if self._blocks[part]:
            with self._path(part).open("rb") as file:
                for rows in self._blocks[part]:
                    for column in columns.values():
                        file.readinto(column[at : at + rows].data.cast("B"))
                    at += rows
        columns["user"] -= np.int32(self._ranges.users(part)[0])
        return kind(**columns)


def range_and_place(row: Longs) -> tuple[Longs, Longs]:
    """Row numbers of `Aside.put` (n,) -> ranges (n,), places in the range (n,)."""
    return row >> 40, row & ((1 << 40) - 1)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for files that are gone afterwards."""
    place = folder / ".aside"
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)
