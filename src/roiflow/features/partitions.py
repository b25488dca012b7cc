"""Rows put aside by user ranges, so that work and memory are those of one range at a time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from shutil import rmtree
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from roiflow.features.history import sort_rows
from roiflow.features.rows import none
from roiflow.features.table import Ints, Longs

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
    """Rows of a dataclass of arrays, in one file per range."""

    def __init__(self, folder: Path, name: str, ranges: UserRanges) -> None:
        self._folder, self._name, self._ranges = folder, name, ranges
        self.counts = np.zeros(len(ranges), np.int64)
        self._type: np.dtype[Any] | None = None

    def _path(self, part: int) -> Path:
        return self._folder / f"{self._name}-{part}.rows"

    def put(self, values: Any) -> Longs:
        """Append rows by their field `user`; (n,): where each went, as rows of all ranges' files.

        A row's number is its range times 2^40 plus its place in the range's file.
        """
        columns: Mapping[str, NDArray[Any]] = {
            field.name: getattr(values, field.name) for field in fields(values)
        }
        self._type = np.dtype([(name, column.dtype) for name, column in columns.items()])
        rows = np.empty(columns["user"].size, self._type)
        for name, column in columns.items():
            rows[name] = column
        part = self._ranges.part(columns["user"])
        order, offsets = sort_rows(part, len(self._ranges), part)
        ordered, place = rows[order], np.empty(rows.size, np.int64)
        for number in range(len(self._ranges)):
            here = slice(offsets[number], offsets[number + 1])
            if here.stop > here.start:
                with self._path(number).open("ab") as file:
                    ordered[here].tofile(file)
                first = (number << 40) + self.counts[number]
                place[order[here]] = np.arange(first, first + here.stop - here.start)
                self.counts[number] += here.stop - here.start
        return place

    def take(self, part: int, kind: type[Arrays]) -> Arrays:
        """The rows of one range, users counted from its first, in the order they were put."""
        if not self.counts[part]:
            return none(kind)
        rows = np.fromfile(self._path(part), self._type)
        first, _ = self._ranges.users(part)
        columns = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
        columns["user"] -= np.int32(first)
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
