"""SQL text for PostgreSQL and MySQL: names, literals, types, conversions."""

from collections.abc import Sequence

from roiflow.data.sources.sql_columns import Column, written

POSTGRESQL_KINDS = {
    "timestamp with time zone": "time",
    "timestamp without time zone": "time",
    "smallint": "whole",
    "integer": "whole",
    "bigint": "whole",
    "real": "decimal",
    "double precision": "decimal",
    "numeric": "decimal",
    "text": "text",
    "character varying": "text",
    "character": "text",
    "uuid": "text",
    "USER-DEFINED": "text",
    "boolean": "flag",
}
MYSQL_KINDS = {
    "datetime": "time",
    "timestamp": "time",
    **dict.fromkeys(("tinyint", "smallint", "mediumint", "int", "bigint"), "whole"),
    **dict.fromkeys(("float", "double", "decimal"), "decimal"),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), "text"),
    **dict.fromkeys(("enum", "uuid"), "text"),
}

_CATALOG = """
SELECT {table} AS table_name, {column} AS column_name, {type} AS column_type
FROM information_schema.columns WHERE table_schema = {schema} ORDER BY ordinal_position
"""


class PostgreSQL:
    """Names in double quotes; a `timestamp` is taken as UTC."""

    def name(self, name: str) -> str:
        """See Dialect.name."""
        return '"' + name.replace('"', '""') + '"'

    def text(self, value: str) -> str:
        """See Dialect.text."""
        return "'" + value.replace("'", "''") + "'"

    def time(self, micros: int, column: Column) -> str:
        """See Dialect.time."""
        if column.type == "timestamp with time zone":
            return f"TIMESTAMPTZ '{written(micros)}+00'"
        return f"TIMESTAMP '{written(micros)}'"

    def kind(self, column: Column) -> str:
        """See Dialect.kind."""
        return POSTGRESQL_KINDS.get(column.type, "other")

    def value(self, column: Column, kind: str) -> str:
        """See Dialect.value."""
        name = self.name(column.name)
        if kind == "text" and column.type not in ("text", "character varying"):
            return f"{name}::text"
        return f"{name}::float8" if column.type == "numeric" else name

    def micros(self, time: str) -> str:
        """See Dialect.micros."""
        # Exact: the epoch is numeric. A timestamp without zone counts as UTC.
        return f"(extract(epoch FROM {time}) * 1000000)::bigint"

    def content(self, columns: Sequence[str]) -> str:
        """See Dialect.content; the session's settings make equal values equal texts."""
        row = f"ROW({', '.join(columns)})::text"
        return f"sum(hashtextextended({row}, 0)::numeric)::text"

    def next_week(self, time: str) -> str:
        """See Dialect.next_week; the session's time zone is UTC."""
        return f"(date_trunc('week', {time}) + INTERVAL '7 days')"

    def now(self) -> str:
        """See Dialect.now."""
        return "now()"

    def bytewise(self, text: str) -> str:
        """See Dialect.bytewise."""
        return f'{text} COLLATE "C"'

    def catalog(self, schema: str) -> str:
        """See Dialect.catalog."""
        return _CATALOG.format(
            table="table_name::text",
            column="column_name::text",
            type="data_type::text",
            schema=self.text(schema),
        )


class MySQL:
    """Names in backticks; DATETIME is taken as UTC, and so is the session's time zone."""

    def name(self, name: str) -> str:
        """See Dialect.name."""
        return "`" + name.replace("`", "``") + "`"

    def text(self, value: str) -> str:
        """See Dialect.text."""
        # In hexadecimal, since what a backslash means depends on the server's mode.
        return f"CONVERT(0x{value.encode().hex()} USING utf8mb4)" if value else "''"

    def time(self, micros: int, column: Column) -> str:  # noqa: ARG002
        """See Dialect.time."""
        return f"TIMESTAMP'{written(micros)}'"

    def kind(self, column: Column) -> str:
        """See Dialect.kind."""
        # MySQL's BOOLEAN: the catalog has no other word for it.
        if column.type.startswith("tinyint(1)"):
            return "flag"
        return MYSQL_KINDS.get(column.type.partition("(")[0].partition(" ")[0], "other")

    def value(self, column: Column, kind: str) -> str:
        """See Dialect.value."""
        name = self.name(column.name)
        if kind == "time":
            return self.micros(name)  # null for 0000-00-00, at which the driver would end
        if kind == "text" and MYSQL_KINDS.get(column.type.partition("(")[0]) != "text":
            return f"CONVERT({name}, CHAR)"
        return f"({name} + 0e0)" if column.type.startswith("decimal") else name

    def micros(self, time: str) -> str:
        """See Dialect.micros."""
        return f"TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {time})"

    def content(self, columns: Sequence[str]) -> str:
        """See Dialect.content: 60 bits of each row's MD5, summed without a loss."""
        row = f"MD5(JSON_ARRAY({', '.join(columns)}))"
        return f"CAST(SUM(CAST(CONV(LEFT({row}, 15), 16, 10) AS DECIMAL(20))) AS CHAR)"

    def next_week(self, time: str) -> str:
        """See Dialect.next_week."""
        return f"(DATE({time}) + INTERVAL 7 - WEEKDAY({time}) DAY)"

    def now(self) -> str:
        """See Dialect.now."""
        return "UTC_TIMESTAMP(6)"

    def bytewise(self, text: str) -> str:
        """See Dialect.bytewise."""
        return f"CAST({text} AS BINARY)"

    def catalog(self, schema: str) -> str:
        """See Dialect.catalog."""
        return _CATALOG.format(
            table="CONVERT(table_name, CHAR)",
            column="CONVERT(column_name, CHAR)",
            type="CONVERT(column_type, CHAR)",
            schema=self.text(schema),
        )
