"""One Parquet or CSV file as a table of the data contract.

A CSV is UTF-8 with commas and a header; an empty cell is a null, times are ISO 8601. Rows count
from 1, without the header.
"""

import re

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from roiflow.data.sources.conforming import conform, parse
from roiflow.data.sources.places import Folder
from roiflow.errors import SourceError

SMALL = 65_536
"""Bytes."""
BOM = "\ufeff"
LONGEST = 300
"""Characters of what Arrow says."""
MOST_COLUMNS = 1024
"""Of a CSV that are read as they are written."""


def read_part(folder: Folder, path: str, table: str) -> pa.Table:
    """The file's rows. Raises SourceError, naming the file, where it cannot be read as such."""
    place, is_csv = folder.name(path), path.endswith(".csv")
    try:
        with folder.open(path) as stream:
            rows = _texts(stream, place) if is_csv else _parquet(stream)
    except (OSError, pa.ArrowException) as error:
        kind = "CSV (UTF-8, commas, a header)" if is_csv else "Parquet"
        said = _said(str(error))
        raise SourceError(f"{place}: not readable as {kind}: {said}: write it again") from None
    return (parse if is_csv else conform)(rows, table, place)


def _said(message: str) -> str:
    """Arrow's first line, without what is no text, and with our rows: its own count the header."""
    line = re.sub(r"Row #(\d+)", lambda match: f"row {int(match[1]) - 1}", message.splitlines()[0])
    return "".join(one if one.isprintable() else "?" for one in line.strip(" ."))[:LONGEST]


def _parquet(stream: pa.NativeFile) -> pa.Table:
    # ParquetFile, not read_table: that one would add `week` from the folder's name.
    with pq.ParquetFile(stream, pre_buffer=True) as file:
        return file.read()


def _texts(stream: pa.NativeFile, place: str) -> pa.Table:
    """Every cell as it is written, under the header's names."""
    if stream.size() == 0:
        raise SourceError(f"{place}: empty: a table without rows still has its header")
    names = [f"f{number}" for number in range(MOST_COLUMNS)]
    small = stream.size() < SMALL
    cells = pa.csv.read_csv(
        # The parser does not take a header alone, without a line end, for one.
        pa.BufferReader(stream.read() + b"\n") if small else stream,
        # Alone, the parser can say in which row it stopped.
        pa.csv.ReadOptions(autogenerate_column_names=True, use_threads=False),
        pa.csv.ParseOptions(newlines_in_values=True),
        pa.csv.ConvertOptions(
            # Text that is not UTF-8 is named by its column, later.
            column_types=dict.fromkeys(names, pa.binary()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    # The header comes as a row: types must be given before the names are known.
    header = [(column[0].as_py() or b"").decode(errors="replace") for column in cells.columns]
    texts = [column.cast(pa.string(), safe=False) for column in cells.slice(1).columns]
    return pa.table(texts, [name.removeprefix(BOM).strip() for name in header])
