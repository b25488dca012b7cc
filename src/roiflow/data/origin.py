"""Where the rows of a pulled table are in their owner's own place, carried in the table itself.

A run keeps a copy of what it pulled, and nobody mends the copy: what is said about a row names the
file and the row that its owner has. Names are relative to the source's folder.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

_KEY = b"roiflow.origin"

MOST_LEFT_OUT = 10_000
"""Beyond it a piece's rows are not told apart: the list would be larger than what it describes."""


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a pulled table that one file, or one table of a database, gave."""

    name: str
    kept: int
    left_out: tuple[int, ...] | None
    """Rows of the file (from 0, ascending) that were not pulled; None: its rows have no number."""

    @classmethod
    def of_file(cls, name: str, rows: int, left_out: Sequence[int]) -> "Piece":
        """A file of so many rows."""
        numbered = tuple(left_out) if len(left_out) <= MOST_LEFT_OUT else None
        return cls(name, rows - len(left_out), numbered)

    def row(self, number: int) -> str:
        """The name of a row (from 0) of those that were kept."""
        if self.left_out is None:
            return self.name
        # Each row left out at or before the one that is asked for moves it on by one. The list
        # ascends, so the first gap beyond it is the end.
        for gap in self.left_out:
            if gap > number:
                break
            number += 1
        return f"{self.name}, row {number + 1}"


def with_origin(rows: pa.Table, pieces: Sequence[Piece]) -> pa.Table:
    """The table, which knows where its rows are from."""
    # In the schema's metadata, which goes into Parquet with the rows: no second file can be lost.
    content = json.dumps([asdict(piece) for piece in pieces]).encode()
    return rows.replace_schema_metadata({**(rows.schema.metadata or {}), _KEY: content})


def origin(schema: pa.Schema) -> list[Piece]:
    """What `with_origin` was given; none where the table does not know."""
    content = json.loads((schema.metadata or {}).get(_KEY, b"[]"))
    return [
        Piece(one["name"], one["kept"], None if one["left_out"] is None else tuple(one["left_out"]))
        for one in content
    ]


def place(schema: pa.Schema, row: int | None = None) -> str | None:
    """What the owner calls a pulled table, or a row of it (from 0); None where that is unknown."""
    pieces = origin(schema)
    if row is None:
        return ", ".join(piece.name for piece in pieces) or None
    for piece in pieces:
        if row < piece.kept:
            return piece.row(row)
        row -= piece.kept
    return None
