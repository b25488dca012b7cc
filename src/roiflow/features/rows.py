"""Validated weeks as arrays of dense indices, times and money, a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.features.hashing import HashIndex, hash_ids
from roiflow.features.history import sort_rows
from roiflow.features.table import Events, Flags, Floats, Ints, Longs, dtype_of
from roiflow.features.vocabulary import Vocabulary

BATCH_ROWS = 1 << 18

Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Window:
    """The validated weeks of a folder: <table>/week=YYYY-Www/part-0.parquet."""

    folder: Path

    @cached_property
    def weeks(self) -> list[Week]:
        """The weeks that hold impressions, oldest first; the last one is the test week."""
        folders = sorted((self.folder / "impressions").glob("week=*"))
        if not folders:
            raise ContractError(f"{self.folder / 'impressions'}: no week of impressions")
        return [Week.parse(folder.name.removeprefix("week=")) for folder in folders]

    def _path(self, table: str, week: Week) -> Path:
        return self.folder / table / f"week={week}" / "part-0.parquet"

    def read(self, table: str, week: Week, names: list[str] | None = None) -> pa.Table:
        """Columns of one week's rows; no rows where the week has no such file."""
        path = self._path(table, week)
        if not path.exists():
            return SCHEMAS[table].empty_table().select(names or SCHEMAS[table].names)
        try:
            # Without partitioning pyarrow would add a column out of the folder's name.
            return pq.read_table(path, columns=names, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: cannot read: {error}") from None

    def batches(self, table: str, names: list[str]) -> Iterator[pa.Table]:
        """Columns of every week's rows, `BATCH_ROWS` at a time."""
        for week in self.weeks:
            path = self._path(table, week)
            if path.exists():
                try:
                    with pq.ParquetFile(path) as file:
                        for batch in file.iter_batches(BATCH_ROWS, columns=names):
                            # Selected again: Parquet gives columns in the file's order, and an
                            # early week may lack a profile's.
                            there = [name for name in names if name in batch.schema.names]
                            yield pa.Table.from_batches([batch]).select(there)
                except (OSError, pa.ArrowInvalid) as error:
                    raise ContractError(f"{path}: cannot read: {error}") from None

    def count(self, table: str) -> int:
        """Rows of all weeks."""
        total = 0
        for week in self.weeks:
            path = self._path(table, week)
            if path.exists():
                try:
                    total += pq.read_metadata(path).num_rows
                except (OSError, pa.ArrowInvalid) as error:
                    raise ContractError(f"{path}: cannot read: {error}") from None
        return total

    def all(self, table: str, names: list[str] | None = None) -> pa.Table:
        """Every week's rows; for the small tables."""
        return pa.concat_tables(
            [self.read(table, week, names) for week in self.weeks], promote_options="default"
        )


@dataclass(frozen=True)
class Rows:
    """Impressions (n,) in the order of their weeks' files."""

    request: Longs  # hash of the request id
    user: Ints
    ad: Ints
    event_time: Longs
    known_time: Longs
    placement: Ints
    device: Ints
    position: Ints
    slate_size: Ints
    bid: Longs
    cost: Longs
    propensity: Floats
    canary: Flags
    clicked: Flags
    click_known: Longs  # known_time of a click that came by itself, else -1


@dataclass(frozen=True)
class Behaved:
    """Behaviours (n,) in the order of their weeks' files."""

    user: Ints
    ad: Ints
    category: Ints
    action: Ints
    event_time: Longs
    known_time: Longs


@dataclass(frozen=True)
class Conversions:
    """Conversions (n,) whose impression is in the window."""

    row: Longs  # number of the impression's row
    known_time: Longs
    revenue: Longs
    ad: Ints  # of the impression, as the rest
    placement: Ints
    shown_known: Longs


def micros(column: pa.ChunkedArray) -> Longs:
    """Times (n,) -> microseconds since the epoch (n,)."""
    return numbers(column.cast(pa.int64()))


def numbers(column: pa.ChunkedArray) -> Any:
    """A column as an array."""
    return column.to_numpy()


def impressions(window: Window, vocabulary: Vocabulary) -> Iterator[tuple[Rows, pa.Table]]:
    """Batches of impressions, and their `impression_id` and `user_id`."""
    names = [name for name in SCHEMAS["impressions"].names if name != c.POLICY_VERSION]
    for table in window.batches("impressions", names):
        rows = Rows(
            request=hash_ids(table[c.REQUEST]),
            user=vocabulary.index("user", table[c.USER]),
            ad=vocabulary.index("ad", table[c.AD]),
            event_time=micros(table[c.EVENT_TIME]),
            known_time=micros(table[c.KNOWN_TIME]),
            placement=vocabulary.index("placement", table[c.PLACEMENT]),
            device=vocabulary.index("device", table[c.DEVICE]),
            position=numbers(table[c.POSITION]),
            slate_size=numbers(table[c.SLATE_SIZE]),
            bid=numbers(table[c.BID]),
            cost=numbers(table[c.COST]),
            propensity=numbers(pc.fill_null(table[c.PROPENSITY].cast(pa.float64()), np.nan)),
            canary=numbers(pc.equal(table[c.ARM], c.CANARY)),
            clicked=numbers(table[c.CLICKED]),
            # Nulls are filled in Arrow: numpy would make a column of integers with nulls into
            # floats.
            click_known=numbers(pc.fill_null(table[c.CLICK_KNOWN_TIME].cast(pa.int64()), -1)),
        )
        yield rows, table.select([c.IMPRESSION, c.USER])


def behaviours(window: Window, vocabulary: Vocabulary) -> Iterator[Behaved]:
    """Batches of behaviours."""
    names = [c.USER, c.AD, c.CATEGORY, c.ACTION, c.EVENT_TIME, c.KNOWN_TIME]
    for table in window.batches("behaviours", names):
        yield Behaved(
            user=vocabulary.index("user", table[c.USER]),
            ad=vocabulary.index("ad", table[c.AD]),
            category=vocabulary.index("category", table[c.CATEGORY]),
            action=vocabulary.index("action", table[c.ACTION]),
            event_time=micros(table[c.EVENT_TIME]),
            known_time=micros(table[c.KNOWN_TIME]),
        )


class Converted:
    """The window's conversions, waiting for the rows of their impressions."""

    def __init__(self, window: Window) -> None:
        table = window.all("conversions", [c.IMPRESSION, c.KNOWN_TIME, c.REVENUE])
        # Conversions are few beside impressions, so these wait in memory while the others pass by.
        # An impression may have several, such as a return.
        ids = pc.unique(table[c.IMPRESSION])
        self._index = HashIndex(ids)
        self._of = self._index.find(table[c.IMPRESSION])
        self._known, self._revenue = micros(table[c.KNOWN_TIME]), numbers(table[c.REVENUE])
        self._row, self._shown_known = np.full((2, len(ids)), -1, np.int64)
        self._ad, self._placement = np.zeros((2, len(ids)), np.int32)

    def met(self, ids: pa.ChunkedArray, row: Longs, rows: Rows) -> None:
        """Impressions (n,) with the numbers of their rows."""
        found = self._index.find(ids)
        here = np.flatnonzero(found >= 0)
        place = found[here]
        self._row[place], self._shown_known[place] = row[here], rows.known_time[here]
        self._ad[place], self._placement[place] = rows.ad[here], rows.placement[here]

    def conversions(self) -> Conversions:
        """Those whose impression was met."""
        there = np.flatnonzero(self._row[self._of] >= 0)
        of = self._of[there]
        return Conversions(
            self._row[of],
            self._known[there],
            self._revenue[there],
            self._ad[of],
            self._placement[of],
            self._shown_known[of],
        )


def none(kind: type[Arrays]) -> Arrays:
    """A dataclass of arrays without rows."""
    return kind(**{f.name: np.empty(0, dtype_of(f.type)) for f in fields(kind)})  # type: ignore[arg-type]


def stacked(kind: type[Arrays], parts: list[Arrays]) -> Arrays:
    """Batches as one."""
    every, names = [none(kind), *parts], [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{n: np.concatenate([getattr(part, n) for part in every]) for n in names})


def read_impressions(window: Window, vocabulary: Vocabulary) -> tuple[Rows, Conversions]:
    """All impressions at once, and the conversions of them.

    Raises ContractError where there is no impression.
    """
    converted, parts, first = Converted(window), [], 0
    for rows, ids in impressions(window, vocabulary):
        converted.met(ids[c.IMPRESSION], np.arange(first, first + rows.user.size), rows)
        first += rows.user.size
        parts.append(rows)
    if not parts:
        raise ContractError(f"{window.folder / 'impressions'}: no impression in any week")
    return stacked(Rows, parts), converted.conversions()


def read_events(window: Window, vocabulary: Vocabulary, users: int) -> Events:
    """All behaviours at once, CSR by user."""
    return by_user(stacked(Behaved, list(behaviours(window, vocabulary))), users)


def by_user(rows: Behaved, users: int) -> Events:
    """Behaviours of users 0 to `users` - 1, CSR by user, as each became known."""
    # Past the two times the row's own values decide, so that equal times do not leave the order to
    # the files.
    order, offsets = sort_rows(
        rows.user, users, rows.known_time, rows.event_time, rows.ad, rows.action, rows.category
    )
    return Events(
        offsets,
        rows.ad[order],
        rows.category[order],
        rows.action[order],
        rows.event_time[order],
        rows.known_time[order],
    )
