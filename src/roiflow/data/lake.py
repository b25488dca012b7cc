"""Weekly partitions on disk: <root>/<table>/week=YYYY-Www/part-0.parquet.

zstd without dictionary encoding: dictionaries double the CPU time of writing at equal size.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.files import write_file

PART = "part-0.parquet"
PARTS = "part-*.parquet"
"""What others write may come in several parts, in the order of their numbers."""


def partition(root: Path, table: str, week: Week) -> Path:
    """The file of one table's week."""
    return root / table / f"week={week}" / PART


def in_order(paths: Iterable[str]) -> list[str]:
    """Paths of parts by their number."""
    # A longer name has a larger number: part-10 after part-9, and no name has to be read.
    return sorted(paths, key=lambda path: (len(path), path))


def held(root: Path, table: str) -> list[Week]:
    """The weeks of a table that are there, oldest first."""
    found = (root / table).glob(f"week=*/{PART}")
    return sorted(Week.parse(path.parent.name.removeprefix("week=")) for path in found)


def write(root: Path, table: str, week: Week, rows: pa.Table) -> None:
    """Write one partition atomically, in the place of the one that is there."""
    write_parquet(partition(root, table, week), rows)


def write_parquet(path: Path, rows: pa.Table) -> None:
    """Write one Parquet file atomically."""
    with write_file(path) as aside:
        pq.write_table(rows, aside, compression="zstd", use_dictionary=False)


def read_parquet(
    path: Path, columns: Sequence[str] | None = None, dictionaries: Sequence[str] = ()
) -> pa.Table:
    """All rows of a Parquet file, or of some of its columns.

    `dictionaries` are text columns to read dictionary-encoded, which is faster where values repeat.

    Raises SourceError, naming the file, where it is missing, unreadable or not Parquet, or lacks a
    column.
    """
    try:
        # ParquetFile, not read_table: that one would add `week` from the folder's name.
        with pq.ParquetFile(path, read_dictionary=list(dictionaries)) as file:
            absent = [name for name in columns or () if name not in file.schema_arrow.names]
            if absent:
                raise SourceError(f"{path}: no column {absent[0]!r}")
            return file.read(columns=columns)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: not readable as Parquet: {error}") from None


def read_schema(path: Path) -> pa.Schema:
    """The columns of a Parquet file. Raises SourceError where it is not readable."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: not readable as Parquet: {error}") from None


def read(root: Path, table: str, week: Week) -> pa.Table:
    """One partition, of exactly the contract's columns (users: and its profile attributes).

    Raises UnknownWeek, naming the weeks there are, where the table has no such week, and
    SourceError, naming file, column and type, where the file is unreadable or breaks the schema.
    """
    path = partition(root, table, week)
    if not path.exists():
        names = ", ".join(map(str, held(root, table))) or "none"
        raise UnknownWeek(f"{path}: no such file; weeks held: {names}")
    rows = read_parquet(path)
    schema = SCHEMAS[table]
    # Held to the contract once, here: whoever reads on meets the right types or an error that names
    # the file.
    for field in schema:
        if field.name not in rows.column_names:
            if not field.nullable:
                raise SourceError(f"{path}: no column {field.name!r}")
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        actual = rows.schema.field(field.name).type
        if actual != field.type:
            raise SourceError(
                f"{path}: column {field.name!r} is of type {actual}, expected {field.type}"
            )
    return rows if table == "users" else rows.select(schema.names)


def read_weeks(root: Path, table: str, weeks: Sequence[Week]) -> pa.Table:
    """The partitions of several weeks, one after the other; errors as in `read`."""
    parts = [read(root, table, week) for week in weeks]
    # Weeks of users may have other profile attributes: all of them, null where a week lacks one.
    return pa.concat_tables(parts, promote_options="default")
