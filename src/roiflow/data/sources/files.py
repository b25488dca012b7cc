"""Parquet in the lake's layout, on disk or in an object store, through fsspec."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from roiflow import columns as c
from roiflow.data.lake import PARTS, in_order
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources import fingerprint
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek


class Files:
    """`<folder>/<table>/week=YYYY-Www/part-*.parquet` for every table of the data contract.

    `folder` is a path or a URL that fsspec knows, such as s3://bucket/lake.
    """

    name = "files"

    def __init__(self, folder: str) -> None:
        # A URL that passed through pathlib has lost one of its two slashes.
        url = re.sub(r"^([a-z0-9+]{2,}):/(?!/)", r"\1://", folder)
        self._files, self._root = fsspec.core.url_to_fs(url)

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull; the rows are not changed, only those known after `as_of` left out."""
        return {table: self.read(table, week, as_of) for table in SCHEMAS}

    def weeks(self) -> list[Week]:
        """See Source.weeks: those of which every table is there."""
        return sorted(set.intersection(*(set(self.held(table)) for table in SCHEMAS)))

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state."""
        return self.state_of(SCHEMAS, weeks)

    def state_of(self, tables: Iterable[str], weeks: Sequence[Week]) -> str:
        """`state` of some of the tables."""
        places = [f"{table}/week={week}/{PARTS}" for table in tables for week in weeks]
        paths = [path for place in places for path in self._files.glob(f"{self._root}/{place}")]
        if isinstance(self._files, LocalFileSystem):
            return fingerprint.of_files(Path(self._root), map(Path, paths))
        return json.dumps([(path, self._files.ukey(path)) for path in sorted(paths)])

    def read(self, table: str, week: Week, as_of: int) -> pa.Table:
        """One table's rows of `pull`."""
        pattern = f"{self._root}/{table}/week={week}/{PARTS}"
        paths = in_order(self._files.glob(pattern))
        if not paths:
            held = ", ".join(map(str, self.held(table))) or "none"
            raise UnknownWeek(f"{pattern}: no such file; weeks held: {held}")
        parts = [_known_before(self._part(path), as_of) for path in paths]
        return pa.concat_tables(parts, promote_options="default")

    def _part(self, path: str) -> pa.Table:
        try:
            with self._files.open(path) as stream, pq.ParquetFile(stream) as file:
                return file.read()
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: not readable as Parquet: {error}") from None

    def held(self, table: str) -> list[Week]:
        """The weeks of a table, oldest first."""
        found = self._files.glob(f"{self._root}/{table}/week=*/{PARTS}")
        names = {name.split("/")[-2].removeprefix("week=") for name in found}
        return sorted(Week.parse(name) for name in names)


def _known_before(rows: pa.Table, as_of: int) -> pa.Table:
    """Without the rows known at or after `as_of`; what has no time is left to validation."""
    if c.KNOWN_TIME not in rows.column_names:
        return rows
    type_ = rows.schema.field(c.KNOWN_TIME).type
    if not pa.types.is_timestamp(type_):
        return rows
    limit = pa.scalar(as_of, pa.timestamp("us")).cast(pa.timestamp(type_.unit, type_.tz))
    return rows.filter(pc.fill_null(pc.less(rows[c.KNOWN_TIME], limit), True))
