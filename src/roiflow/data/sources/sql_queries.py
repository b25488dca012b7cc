"""The queries of a SQL source: a week's rows, each id's newest row, counts.

Rows come in an order of all their own values, so that equal rows give equal files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.sql_columns import Column, Dialect, select
from roiflow.errors import SourceError

IDS = {"ads": c.AD, "users": c.USER}
"""Of the tables that are snapshots: a week has one row per id."""
TIMES = (c.KNOWN_TIME, c.EVENT_TIME)


@dataclass(frozen=True)
class Part:
    """A table of the contract as one database has it."""

    table: str
    """The contract's name."""
    place: str
    """Quoted schema and table."""
    schema: pa.Schema
    """What comes out; a database may hold nulls anywhere, which validation sets aside."""
    expressions: dict[str, str]
    """SQL of each column."""
    known: Column
    dialect: Dialect

    @property
    def is_snapshot(self) -> bool:
        """Whether the table is a history of which a week has each id's newest row."""
        return self.table in IDS

    def pull(self, start: int, end: int) -> str:
        """The rows known in [start, end) or, of a snapshot, each id's newest before `end`."""
        columns = ", ".join(f"{sql} AS {self._name(one)}" for one, sql in self.expressions.items())
        order = ", ".join(self._order())
        rows = f"FROM {self.place} WHERE {self._within(start, end)}"
        if not self.is_snapshot:
            return f"SELECT {columns} {rows} ORDER BY {order}"
        names = ", ".join(map(self._name, self.expressions))
        identity = IDS[self.table]
        # The server picks the newest rows: a history may be far longer than a snapshot. By bytes,
        # since a collation may take A and a for one id.
        by_id = self.dialect.bytewise(self.expressions[identity])
        age = f"ROW_NUMBER() OVER (PARTITION BY {by_id} ORDER BY {order})"
        newest = f"SELECT {columns}, {age} AS roiflow_age {rows}"
        return (
            f"SELECT {names} FROM ({newest}) AS aged WHERE roiflow_age = 1 "
            f"ORDER BY {self.dialect.bytewise(self._name(identity))}"
        )

    def any_known(self, start: int, end: int) -> str:
        """One row where there is one known in [start, end), else none."""
        within = self._between(start, end)
        return f"SELECT 1 AS found FROM {self.place} WHERE {within} LIMIT 1"

    def weeks(self) -> str:
        """The first known_time (micros) of every week that has one and has ended, oldest first.

        An index on known_time is asked once for each week; the table is not read.
        """
        # Recursion from each week's first time to the next Monday: DISTINCT would read every row.
        known, following = self._name(self.known.name), self.dialect.next_week("held.known")
        first = f"SELECT min({known}) FROM {self.place}"
        later = f"SELECT ({first} WHERE {known} >= {following}) FROM held WHERE known IS NOT NULL"
        return (
            f"WITH RECURSIVE held (known) AS ({first} UNION ALL {later}) "
            f"SELECT {self.dialect.micros('known')} AS known FROM held "
            f"WHERE {following} <= {self.dialect.now()} ORDER BY 1"
        )

    def span(self) -> str:
        """(rows, oldest, newest known_time in micros) of the whole table."""
        return f"SELECT {self._counts('count(*)', 'min', 'max')} FROM {self.place}"

    def summary(self, start: int, end: int) -> str:
        """(rows, newest known_time in micros, content) of what weeks in [start, end) are made of.

        The server reads what a pull of them reads, and sends three values.
        """
        counts = self._counts("count(*)", "max")
        content = self.dialect.content(list(self.expressions.values()))
        within = self._within(start, end)
        return f"SELECT {counts}, {content} AS content FROM {self.place} WHERE {within}"

    def _counts(self, count: str, *ends: str) -> str:
        known = self._name(self.known.name)
        times = [f"{self.dialect.micros(f'{end}({known})')} AS known_{end}" for end in ends]
        return ", ".join([f"{count} AS row_count", *times])

    def _name(self, name: str) -> str:
        return self.dialect.name(name)

    def _within(self, start: int, end: int) -> str:
        return self._before(end) if self.is_snapshot else self._between(start, end)

    def _between(self, start: int, end: int) -> str:
        since = self.dialect.time(start, self.known)
        return f"{self._name(self.known.name)} >= {since} AND {self._before(end)}"

    def _before(self, end: int) -> str:
        return f"{self._name(self.known.name)} < {self.dialect.time(end, self.known)}"

    def _order(self) -> Iterator[str]:
        for name in TIMES:
            yield self._name(name) + (" DESC" if self.is_snapshot else "")
        for field in self.schema:
            sql = self.expressions[field.name]
            if field.name not in TIMES:
                yield self.dialect.bytewise(sql) if pa.types.is_string(field.type) else sql


def part(table: str, place: str, held: Mapping[str, Column], dialect: Dialect) -> Part:
    """A table by the columns that the catalog has of it.

    The contract's columns and, of users, the profile attributes; one that may be null may also be
    missing. Raises SourceError, naming the column, where one is, or is of a type that does not fit.
    """
    fields, expressions = [], {}
    for wanted in SCHEMAS[table]:
        if wanted.name in held:
            fields.append(wanted.with_nullable(True))
            expressions[wanted.name] = select(dialect, held[wanted.name], wanted.type)
        elif not wanted.nullable:
            raise SourceError(f"no column {wanted.name!r} that this user may read")
    for column in held.values() if table == "users" else ():
        if column.name not in expressions:
            fields.append(pa.field(column.name, pa.string()))
            expressions[column.name] = dialect.value(column, "text")
    return Part(table, place, pa.schema(fields), expressions, held[c.KNOWN_TIME], dialect)
