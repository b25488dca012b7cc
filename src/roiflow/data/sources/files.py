"""Parquet or CSV in the lake's layout, on disk or in an object store.

`<folder>/<table>/week=YYYY-Www/part-*.parquet` (or `.csv`) for every table of the data contract.
A week of `impressions`, `behaviours` and `conversions` is what became known in it. `ads` and
`users` are whole snapshots, not changes: a week has its own, or else the newest one before it, so
a catalogue that never changes is written once.

The folder's own names may have any characters: folders are listed, and nothing is a pattern.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data.lake import in_order
from roiflow.data.origin import Piece, with_origin
from roiflow.data.schemas import SCHEMAS, SNAPSHOTS
from roiflow.data.sources.file_parts import read_part
from roiflow.data.sources.places import open_folder
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek

_PART = re.compile(r"[^/]+/week=([^/]+)/part-[^/]*\.(?:parquet|csv)")


class Files:
    """A Source over a folder, which is a path or a URL such as s3://bucket/prefix."""

    name = "files"

    def __init__(self, folder: str, now: int | None = None) -> None:
        """A week that ends after `now` (microseconds, UTC) may still grow."""
        self.folder, self._now = open_folder(folder), now

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull: rows known after `as_of` are left out."""
        return {table: self.read(table, week, as_of) for table in SCHEMAS}

    def read(self, table: str, week: Week, as_of: int) -> pa.Table:
        """One table's rows of `pull`."""
        parts, pieces = [], []
        for name, rows in self.parts(table, week):
            known = _known(rows, as_of)
            parts.append(rows.filter(known))
            left_out = np.flatnonzero(~known.to_numpy()).tolist()
            pieces.append(Piece.of_file(self.folder.within(name), rows.num_rows, left_out))
        # Files of users may have other attributes.
        return with_origin(pa.concat_tables(parts, promote_options="default"), pieces)

    def parts(self, table: str, week: Week) -> list[tuple[str, pa.Table]]:
        """Each file of a week, by what errors call it, with all its rows in the contract's types.

        Raises UnknownWeek, naming the weeks there are, where there is none, and SourceError,
        naming file and column, where one cannot be read.
        """
        held = self._held(table)
        paths = held.get(_newest(table, held, week) or week)
        if not paths:
            raise UnknownWeek(self._absent(table, week, held))
        if len({path.rpartition(".")[2] for path in paths}) > 1:
            place = self.folder.name(paths[0].rpartition("/")[0])
            raise SourceError(f"{place}: both Parquet and CSV: leave one of the two")
        return [(self.folder.name(path), read_part(self.folder, path, table)) for path in paths]

    def held(self, table: str) -> list[Week]:
        """The weeks of a table that have files of their own, oldest first."""
        self.folder.require()
        return list(self._held(table))

    def weeks(self) -> list[Week]:
        """See Source.weeks: those that have ended and of which every table is there."""
        self.folder.require()
        held = {table: self._held(table) for table in SCHEMAS}
        return [
            week
            for week in held["impressions"]
            if all(_newest(table, weeks, week) for table, weeks in held.items())
            and (self._now is None or week.end <= self._now)
        ]

    def described(self, weeks: Sequence[Week]) -> list[Week]:
        """Those of the weeks for which there are ads and users."""
        held = {table: self._held(table) for table in SNAPSHOTS}
        return [week for week in weeks if all(_newest(t, held[t], week) for t in SNAPSHOTS)]

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state."""
        return self.state_of(SCHEMAS, weeks)

    def state_of(self, tables: Iterable[str], weeks: Sequence[Week]) -> str:
        """`state` of some of the tables."""
        read = set[str]()
        for table in tables:
            held = self._held(table)
            newest = (_newest(table, held, week) for week in weeks)
            read.update(path for week in newest if week for path in held[week])
        return self.folder.fingerprint(read)

    def _held(self, table: str) -> dict[Week, list[str]]:
        """The files of each week of a table, weeks and files in order."""
        found: dict[Week, list[str]] = {}
        for path in self.folder.all_files(table):
            if (match := _PART.fullmatch(path)) and (week := _week(match[1])):
                found.setdefault(week, []).append(path)
        return {week: in_order(found[week]) for week in sorted(found)}

    def _absent(self, table: str, week: Week, held: dict[Week, list[str]]) -> str:
        self.folder.require()
        there = ", ".join(map(str, held)) or "none"
        wanted = self.folder.name(f"{table}/week={week}/part-0.parquet")
        remedy = (
            f"{table} are a whole snapshot, not changes: write the one that holds for the week "
            "there (or in an earlier week: it holds until there is a newer one)"
            if table in SNAPSHOTS
            else "ask for one of these, or write there what became known in the week (nothing: a "
            "table without rows)"
        )
        return f"{wanted} (or .csv): no such file; weeks held: {there}: {remedy}{self._odd(table)}"

    def _odd(self, table: str) -> str:
        """The first file of a table that lies or is called otherwise."""
        # Hidden files and such as _SUCCESS, which writers leave beside their parts, are no mistake.
        odd = [
            path
            for path in self.folder.all_files(table)
            if not ((match := _PART.fullmatch(path)) and _week(match[1]))
            and not path.rpartition("/")[2].startswith((".", "_"))
        ]
        if not odd:
            return ""
        return f"; {self.folder.name(odd[0])} is not read: its name is not of this form"


def _newest(table: str, held: Iterable[Week], week: Week) -> Week | None:
    """The week itself or, of a snapshot, the newest one at or before it."""
    if table not in SNAPSHOTS:
        return week if week in held else None
    return max((one for one in held if one <= week), default=None)


def _week(text: str) -> Week | None:
    try:
        return Week.parse(text)
    except UnknownWeek:
        return None


def _known(rows: pa.Table, as_of: int) -> pa.ChunkedArray:
    """Whether a row was known before `as_of`; what has no time is left to validation."""
    limit = pa.scalar(as_of, rows.schema.field(c.KNOWN_TIME).type)
    return pc.fill_null(pc.less(rows[c.KNOWN_TIME], limit), True)
