"""Weeks of the data contract from a PostgreSQL or a MySQL-compatible database.

A table or view each for impressions, behaviours, conversions, ads and users, with the contract's
columns; their names are in `ingest.sql`. Only rows of the week that is asked for cross the wire:
the server filters by known_time, which wants an index. `ads` and `users` are histories: the server
picks each id's newest row that was known before the week's end. PostgreSQL's catalog does not list
materialised views, so they are not found.

- A time is timestamptz, or a timestamp or DATETIME that holds UTC.
- Money is a whole number of micros; an id may be text, a number, an enum or a UUID.
- A column that may be null may be missing; any further column of `users` is a profile attribute, as
  text.
- A pull misses a row that is committed after it and carries an earlier known_time, or is altered in
  place after it. The next run finds out by `state`, for which the server sums a hash of the rows.

PostgreSQL comes through ADBC; MySQL through connectorx, since no package index has an ADBC driver
for it. sql_clients says what differs.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from pydantic import SecretStr

from roiflow.data.origin import Piece, with_origin
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.conforming import conform
from roiflow.data.sources.protocol import Tables
from roiflow.data.sources.sql_address import parse_address
from roiflow.data.sources.sql_clients import Read, connect, dialect_of
from roiflow.data.sources.sql_columns import Column
from roiflow.data.sources.sql_queries import Part, part
from roiflow.data.sources.sql_types import fit
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.params import SqlParams


class Sql:
    """A Source over one database; `uri` is the value of ROIFLOW_SQL."""

    name = "sql"

    def __init__(self, params: SqlParams, uri: SecretStr | None) -> None:
        if uri is None:
            raise SourceError(
                "source sql: set the environment variable ROIFLOW_SQL to the database's URI, "
                "postgresql://user:password@host:port/database (or mysql://...)"
            )
        self._address = parse_address(uri)
        self._dialect = dialect_of(self._address)
        self._schema = params.schema_
        self._names: dict[str, str] = params.tables.model_dump()

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull. A week is held if an impression became known in it."""
        with connect(self._address) as read:
            parts = self._parts(read)
            self._check_held(read, parts["impressions"], week)
            until = min(week.end, as_of)
            return {name: self._fetch(read, one, week.start, until) for name, one in parts.items()}

    def weeks(self) -> list[Week]:
        """See Source.weeks: those with an impression that have ended by the server's clock."""
        return self.held("impressions")

    def held(self, table: str) -> list[Week]:
        """The weeks in which rows of a table became known and that have ended, oldest first."""
        with connect(self._address) as read:
            part = self._parts(read)[table]
            rows = [row for batch in read(part.weeks()) for row in batch.to_pylist()]
        return [Week.of(row["known"]) for row in rows]

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state: rows, newest known_time and content of each table."""
        start, end = weeks[0].start, weeks[-1].end
        with connect(self._address) as read:
            found = {
                name: _values(read(one.summary(start, end)))
                for name, one in self._parts(read).items()
            }
        return json.dumps([self._address.where, self._schema, self._names, found])

    def _parts(self, read: Read) -> dict[str, Part]:
        """Every table. Raises SourceError, naming the first that is missing or does not fit."""
        held: dict[str, dict[str, Column]] = {}
        for batch in read(self._dialect.catalog(self._schema)):
            for row in batch.to_pylist():
                column = Column(row["column_name"], row["column_type"])
                held.setdefault(row["table_name"], {})[column.name] = column
        return {name: self._part(name, held) for name in SCHEMAS}

    def _part(self, name: str, held: dict[str, dict[str, Column]]) -> Part:
        table = self._names[name]
        if table not in held:
            there = ", ".join(sorted(held)) or "none"
            raise SourceError(f"{self._place(name)}: no such table for this user; it sees {there}")
        place = f"{self._dialect.name(self._schema)}.{self._dialect.name(table)}"
        try:
            return part(name, place, held[table], self._dialect)
        except SourceError as error:
            raise SourceError(f"{self._place(name)}: {error}") from None

    def _place(self, name: str) -> str:
        """What errors call a table."""
        return f"source sql: {self._address.where}: {self._schema}.{self._names[name]}"

    def _check_held(self, read: Read, impressions: Part, week: Week) -> None:
        if _values(read(impressions.any_known(week.start, week.end))):
            return
        rows, oldest, newest = _values(read(impressions.span()))
        held = f"{Week.of(oldest)} to {Week.of(newest)}" if rows else "none"
        place = self._place("impressions")
        raise UnknownWeek(f"{place}: no row became known in {week}; weeks held: {held}")

    def _fetch(self, read: Read, one: Part, start: int, end: int) -> pa.Table:
        try:
            batches = [fit(batch, one.schema) for batch in read(one.pull(start, end))]
        except pa.ArrowInvalid as error:
            raise SourceError(f"{self._place(one.table)}: {error}") from None
        rows = pa.Table.from_batches(batches, one.schema)
        table = f"{self._schema}.{self._names[one.table]}"
        pulled = conform(rows, one.table, self._place(one.table))
        return with_origin(pulled, [Piece(table, pulled.num_rows, None)])


def _values(batches: Iterable[pa.RecordBatch]) -> list[Any]:
    """The values of the first row of a result, none where it has none."""
    rows = [row for batch in batches for row in batch.to_pylist()]
    return list(rows[0].values()) if rows else []
