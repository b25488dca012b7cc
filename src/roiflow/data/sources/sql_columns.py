"""Columns of a database by their types in its catalog, and what they become in the contract.

The catalog decides before any row is read, so that a column that does not fit is named. Conversions
that Arrow does as well are left to Arrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyarrow as pa

from roiflow.data.schemas import kind_of
from roiflow.errors import SourceError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FITTING = {"time": {"time"}, "whole": {"whole"}, "decimal": {"decimal", "whole"}}
_FITTING |= {"text": {"text", "whole"}, "flag": {"flag"}}
"""Kind of a column of the contract to the kinds of columns it may come from."""


@dataclass(frozen=True)
class Column:
    """A column as the catalog has it; `type` is the database's own word."""

    name: str
    type: str


class Dialect(Protocol):
    """What is written differently by the two databases."""

    def name(self, name: str) -> str:
        """A quoted identifier."""
        ...

    def text(self, value: str) -> str:
        """A string literal."""
        ...

    def time(self, micros: int, column: Column) -> str:
        """A literal of the column's own type, which an index on it serves; micros, UTC."""
        ...

    def kind(self, column: Column) -> str:
        """One of time, whole, decimal, text, flag and other."""
        ...

    def value(self, column: Column, kind: str) -> str:
        """The column, converted where Arrow could not do it exactly."""
        ...

    def micros(self, time: str) -> str:
        """A time as a whole number: microseconds, UTC."""
        ...

    def content(self, columns: Sequence[str]) -> str:
        """An aggregate, as text, that differs where rows do, in whatever order they come."""
        ...

    def next_week(self, time: str) -> str:
        """The Monday, UTC, on which the ISO week after that of a time begins."""
        ...

    def now(self) -> str:
        """The server's time, UTC."""
        ...

    def bytewise(self, text: str) -> str:
        """A text that compares by its bytes, whatever the collation of its column."""
        ...

    def catalog(self, schema: str) -> str:
        """A query for (table_name, column_name, column_type), columns in their order."""
        ...


def select(dialect: Dialect, column: Column, wanted: pa.DataType) -> str:
    """The expression for a column of the contract. Raises SourceError where the type is wrong."""
    kind = kind_of(wanted)
    if dialect.kind(column) not in _FITTING[kind]:
        raise SourceError(f"column {column.name!r} is of type {column.type}, expected {wanted}")
    return dialect.value(column, kind)


def written(micros: int) -> str:
    """2026-01-19 00:00:00.000000"""
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M:%S.%f")
