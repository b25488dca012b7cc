"""Validated weeks as arrays of dense indices, times and money."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ContractError
from roiflow.features.history import sort_rows
from roiflow.features.spec import ATTRIBUTION_DAYS
from roiflow.features.table import Events, Ints, Longs
from roiflow.features.vocabulary import Vocabulary


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

    def read(self, table: str, week: Week, names: list[str] | None = None) -> pa.Table:
        """Columns of one week's rows; no rows where the week has no such file."""
        path = self.folder / table / f"week={week}" / "part-0.parquet"
        if not path.exists():
            return SCHEMAS[table].empty_table().select(names or SCHEMAS[table].names)
        try:
            return pq.read_table(path, columns=names, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: cannot read: {error}") from None

    def all(self, table: str) -> pa.Table:
        """Every column of every week; for the small snapshots."""
        return pa.concat_tables(
            [self.read(table, week) for week in self.weeks], promote_options="default"
        )


@dataclass(frozen=True)
class Rows:
    """Impressions in the order of their weeks' files, before sorting."""

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
    propensity: NDArray[np.float64]
    clicked: NDArray[np.bool_]
    click_known: Longs  # known_time of a click that came by itself, else -1


@dataclass(frozen=True)
class Conversions:
    """Conversions whose impression is in the window."""

    row: Longs  # row of the impression in Rows
    known_time: Longs
    revenue: Longs


def micros(column: pa.ChunkedArray) -> Longs:
    """Times (n,) -> microseconds since the epoch (n,)."""
    return numbers(column.cast(pa.int64()))


def numbers(column: pa.ChunkedArray) -> Any:
    """A column as an array."""
    return column.to_numpy()


@njit(cache=True)
def _fnv1a(offsets: Ints, content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Fowler-Noll-Vo hash, 64 bits, with a final mix."""
    hashes = np.empty(offsets.size - 1, np.uint64)
    for row in range(hashes.size):
        value = np.uint64(14695981039346656037)
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(content[at])) * np.uint64(1099511628211)
        hashes[row] = value ^ (value >> np.uint64(29))
    return hashes


def hash_ids(column: pa.ChunkedArray) -> Longs:
    """Strings (n,) -> 64-bit hashes (n,), the same on every machine."""
    parts = [np.empty(0, np.uint64)]
    for chunk in column.chunks:
        _, positions, content = chunk.buffers()
        offsets = np.frombuffer(positions, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(_fnv1a(offsets, np.frombuffer(content or b"", np.uint8)))
    return np.concatenate(parts).view(np.int64)


def read_impressions(
    window: Window, vocabulary: Vocabulary, as_of: int
) -> tuple[Rows, Conversions, pa.Table]:
    """Impressions, conversions of them, and the impressions to which one may still come.

    Raises ContractError where there is no impression.
    """
    conversions = pa.concat_tables([window.read("conversions", week) for week in window.weeks])
    ids = pc.unique(conversions[c.IMPRESSION])
    row_of = np.full(len(ids), -1, np.int64)
    names = [name for name in SCHEMAS["impressions"].names if name not in (c.POLICY_VERSION, c.ARM)]
    parts: list[dict[str, Any]] = []
    recent, first = [], 0
    for week in window.weeks:
        table = window.read("impressions", week, names)
        code = pc.fill_null(pc.index_in(table[c.IMPRESSION], value_set=ids), -1).to_numpy()
        matched = np.flatnonzero(code >= 0)
        row_of[code[matched]] = first + matched
        first += table.num_rows
        part = {
            "request": hash_ids(table[c.REQUEST]),
            "user": vocabulary.index("user", table[c.USER]),
            "ad": vocabulary.index("ad", table[c.AD]),
            "event_time": micros(table[c.EVENT_TIME]),
            "known_time": micros(table[c.KNOWN_TIME]),
            "placement": vocabulary.index("placement", table[c.PLACEMENT]),
            "device": vocabulary.index("device", table[c.DEVICE]),
            "position": numbers(table[c.POSITION]),
            "slate_size": numbers(table[c.SLATE_SIZE]),
            "bid": numbers(table[c.BID]),
            "cost": numbers(table[c.COST]),
            "propensity": numbers(pc.fill_null(table[c.PROPENSITY].cast(pa.float64()), np.nan)),
            "clicked": numbers(table[c.CLICKED]),
            "click_known": numbers(pc.fill_null(table[c.CLICK_KNOWN_TIME].cast(pa.int64()), -1)),
        }
        parts.append(part)
        open_rows = np.flatnonzero(part["known_time"] >= as_of - ATTRIBUTION_DAYS * MICROS_PER_DAY)
        recent.append(
            table.select([c.IMPRESSION, c.USER])
            .take(open_rows)
            .append_column("known_time", pa.array(part["known_time"][open_rows]))
            .append_column("ad", pa.array(part["ad"][open_rows]))
            .append_column("placement", pa.array(part["placement"][open_rows]))
        )
    if first == 0:
        raise ContractError(f"{window.folder / 'impressions'}: no impression in any week")
    rows = Rows(**{f.name: np.concatenate([p[f.name] for p in parts]) for f in fields(Rows)})
    row = row_of[pc.index_in(conversions[c.IMPRESSION], value_set=ids).to_numpy()]
    found = np.flatnonzero(row >= 0)
    return (
        rows,
        Conversions(
            row[found],
            micros(conversions[c.KNOWN_TIME])[found],
            numbers(conversions[c.REVENUE])[found],
        ),
        pa.concat_tables(recent),
    )


def read_events(window: Window, vocabulary: Vocabulary, users: int) -> Events:
    """Behaviours, CSR by user."""
    names = [c.USER, c.AD, c.CATEGORY, c.ACTION, c.EVENT_TIME, c.KNOWN_TIME]
    parts = []
    for week in window.weeks:
        table = window.read("behaviours", week, names)
        parts.append(
            (
                vocabulary.index("user", table[c.USER]),
                vocabulary.index("ad", table[c.AD]),
                vocabulary.index("category", table[c.CATEGORY]),
                vocabulary.index("action", table[c.ACTION]),
                micros(table[c.EVENT_TIME]),
                micros(table[c.KNOWN_TIME]),
            )
        )
    user, ad, category, action, event_time, known_time = (
        np.concatenate(values) for values in zip(*parts, strict=True)
    )
    order, offsets = sort_rows(user, users, known_time, event_time, ad, action)
    return Events(
        offsets, ad[order], category[order], action[order], event_time[order], known_time[order]
    )
