"""The data contract, checked: a row that breaks it is set aside with its first reason.

A row leaves with the first of its table's rules (rules.py) that it breaks, and later rules see only
rows that passed the earlier ones, so of two impressions with one id a broken one never displaces a
sound one.

What cannot be a matter of single rows stops the week: an unreadable file, a missing column or a
column of the wrong type (ContractError), and too many bad rows (QuarantineLimit).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data import lake, origin
from roiflow.data.rules import (
    RULES,
    Longs,
    Rule,
    Scope,
    impression_time,
    micros,
    shown,
    shown_keys,
    slot_keys,
    text_keys,
)
from roiflow.data.schemas import KEYS, SCHEMAS
from roiflow.data.weeks import Week
from roiflow.errors import ContractError, QuarantineLimit, UnknownWeek
from roiflow.params import ValidateParams

TABLES = ("ads", "users", "impressions", "behaviours", "conversions")
"""In the order of checking: impressions need the catalogue, conversions the impressions."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Example:
    """The first row that a rule set aside."""

    row: int
    """Its number in the partition, from 0."""
    key: dict[str, str]
    """What its owner finds it by."""
    fault: dict[str, str]
    """By column, the values that broke the rule, as a person reads them."""
    right: str


@dataclass(frozen=True)
class Checked:
    """One partition, split in two: every row is in exactly one of the tables."""

    table: str
    week: Week
    clean: pa.Table  # the contract's schema
    quarantined: pa.Table  # the same columns and `reason`
    examples: dict[str, Example]  # by reason
    orphans: int = 0  # conversions of no clean impression of the window: kept

    @property
    def rows(self) -> int:
        """Rows before the split."""
        return self.clean.num_rows + self.quarantined.num_rows

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason."""
        return _reasons(self.quarantined)


def check_types(name: str, rows: pa.Table, file: str) -> pa.Table:
    """The contract's columns of `rows`; further ones only of `users`, null or empty is `unknown`.

    A column that may be null may be absent. Nothing is converted: every source brings its tables
    to the contract's types itself, from other people's files by sources/conforming.py. Raises
    ContractError naming file, column and type.
    """
    schema = SCHEMAS[name]
    fields, columns = list(schema), [_column(rows, wanted, file) for wanted in schema]
    if name == "users":
        for extra in rows.column_names:
            if extra not in schema.names:
                fields.append(pa.field(extra, pa.string()))
                columns.append(_attribute(_column(rows, fields[-1], file)))
    return pa.table(columns, schema=pa.schema(fields))


def _column(rows: pa.Table, wanted: pa.Field, file: str) -> pa.ChunkedArray | pa.Array:
    if wanted.name not in rows.column_names:
        if wanted.nullable:
            return pa.nulls(rows.num_rows, wanted.type)
        raise ContractError(f"{file}: no column {wanted.name!r}")
    column = rows[wanted.name]
    if column.type != wanted.type:
        raise ContractError(
            f"{file}: column {wanted.name!r} is of type {column.type}, expected {wanted.type}"
        )
    return column


def _attribute(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pc.fill_null(texts, UNKNOWN)
    return pc.if_else(pc.equal(texts, ""), UNKNOWN, texts)


def check(name: str, rows: pa.Table, scope: Scope) -> Checked:
    """Split the rows of one partition, (n,) rows of the contract's types, by RULES."""
    # A rule sees what earlier ones left. `left` keeps those rows' places in the partition, since
    # reasons and examples are told by them.
    reasons = np.full(rows.num_rows, -1)
    left = np.arange(rows.num_rows)
    remaining = rows
    examples = {}
    for number, rule in enumerate(RULES[name]):
        if not left.size:
            break
        bad = rule.marks(remaining, scope)
        if bad.any():
            first = int(left[bad][0])
            examples[rule.reason] = _example(name, rows, first, rule, scope)
            reasons[left[bad]] = number
            left = left[~bad]
            remaining = remaining.filter(pa.array(~bad))
    broken = np.flatnonzero(reasons >= 0)
    texts = pa.array([rule.reason for rule in RULES[name]], pa.string())
    quarantined = rows.take(pa.array(broken)).append_column(
        pa.field(c.REASON, pa.string()), texts.take(pa.array(reasons[broken]))
    )
    orphans = 0
    if name == "conversions":
        orphans = int((~impression_time(remaining, scope)[0]).sum())
    return Checked(name, scope.week, remaining, _nullable(quarantined), examples, orphans)


def _example(name: str, rows: pa.Table, row: int, rule: Rule, scope: Scope) -> Example:
    key = {column: shown(rows[column][row]) for column in KEYS[name]}
    return Example(row, key, rule.fault(rows.slice(row, 1), scope), rule.expected(scope))


def _nullable(rows: pa.Table) -> pa.Table:
    # What is set aside may be null where the contract has no null: in its own schema it could not
    # be written.
    return pa.table(
        rows.columns, schema=pa.schema([column.with_nullable(True) for column in rows.schema])
    )


def _reasons(quarantined: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(quarantined[c.REASON])
    return {count["values"].as_py(): count["counts"].as_py() for count in counts}


class Rows(Protocol):
    """Where the rows to be checked are."""

    def read(self, table: str, week: Week) -> pa.Table:
        """A partition as its owner has it. Raises UnknownWeek where it is not there."""
        ...

    def column(self, table: str, week: Week, name: str) -> pa.ChunkedArray | None:
        """One of its columns, if it is there."""
        ...

    def place(self, table: str, week: Week, row: int | None = None) -> str:
        """What an error calls the partition, or one of its rows (from 0)."""
        ...


@dataclass(frozen=True)
class RawWindow:
    """The window that `ingest` wrote to a folder.

    Errors call its partitions by what they are of the source: nobody mends the run's own copy.
    """

    raw: Path
    source: str

    def read(self, table: str, week: Week) -> pa.Table:
        """See Rows."""
        return lake.read_parquet(self._file(table, week))

    def column(self, table: str, week: Week, name: str) -> pa.ChunkedArray | None:
        """See Rows."""
        file = self._file(table, week)
        there = name in lake.read_schema(file).names
        return lake.read_parquet(file, [name])[name] if there else None

    def _file(self, table: str, week: Week) -> Path:
        file = lake.partition(self.raw, table, week)
        if not file.exists():
            raise UnknownWeek(f"{file}: no such file")
        return file

    def place(self, table: str, week: Week, row: int | None = None) -> str:
        """See Rows."""
        file = lake.partition(self.raw, table, week)
        return named(self.source, table, week, lake.read_schema(file), row)


def named(source: str, table: str, week: Week, schema: pa.Schema, row: int | None = None) -> str:
    """What an error calls a pulled partition, or a row of it (from 0)."""
    found = origin.place(schema, row)
    if found is None:
        found = f"{table}/week={week}" + ("" if row is None else f", row {row + 1}")
    return f"source {source}: {found}"


def check_limit(checked: Checked, max_fraction: float, rows: Rows) -> None:
    """Raises QuarantineLimit, naming the first bad row, where too large a share of rows is bad."""
    bad = checked.quarantined
    # A product and no quotient: a partition without rows has no share.
    if bad.num_rows <= max_fraction * checked.rows:
        return
    reason, first = min(checked.examples.items(), key=lambda item: item[1].row)
    values = ", ".join(f"{key}={value}" for key, value in (first.key | first.fault).items())
    counts = ", ".join(f"{count} {text}" for text, count in checked.reasons.items())
    raise QuarantineLimit(
        f"{rows.place(checked.table, checked.week)}: {bad.num_rows} of {checked.rows} rows of "
        f"{checked.table} in {checked.week} ({bad.num_rows / checked.rows:.2%}) break the "
        f"contract, allowed {max_fraction:.2%}: {counts}; first: {reason}: "
        f"{rows.place(checked.table, checked.week, first.row)}: {values}; right: {first.right}"
    )


@dataclass
class _Window:
    """What checked weeks leave behind for the following ones."""

    catalogue: list[pa.Array] = field(default_factory=list)
    earlier_catalogue: list[pa.Array] = field(default_factory=list)
    impressions: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    times: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    slots: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    slates: Longs = field(default_factory=lambda: np.zeros(0, np.int64))

    def scope(
        self, bounds: ValidateParams, week: Week, as_of: int, propensities_logged: bool
    ) -> Scope:
        catalogue = pa.chunked_array([*self.earlier_catalogue, *self.catalogue], pa.string())
        return Scope(
            bounds,
            week,
            as_of,
            catalogue,
            not self.earlier_catalogue,
            propensities_logged,
            self.impressions,
            self.times,
            self.slots,
            self.slates,
        )

    def see(self, checked: Checked) -> None:
        clean = checked.clean
        if checked.table == "ads":
            # The one before stays: what was shown in its week may become known in this one.
            self.earlier_catalogue, self.catalogue = self.catalogue, clean[c.AD].chunks
        if checked.table == "impressions":
            keys = text_keys(clean[c.IMPRESSION])
            self.impressions = np.concatenate([self.impressions, keys])
            self.times = np.concatenate([self.times, micros(clean[c.EVENT_TIME])])
            self.slots = np.concatenate([self.slots, slot_keys(clean)])
            self.slates = np.concatenate([self.slates, shown_keys(clean)])


def validate(
    rows: Rows, weeks: Sequence[Week], as_of: int, params: ValidateParams
) -> Iterator[Checked]:
    """Check every partition of a window, oldest week first.

    All weeks of impressions are checked before the first conversions, which may belong to any of
    them. Raises ContractError or QuarantineLimit at the first partition that cannot be accepted.
    """
    for checked in checks(rows, weeks, as_of, params):
        check_limit(checked, params.max_quarantined_fraction, rows)
        yield checked


def checks(
    rows: Rows, weeks: Sequence[Week], as_of: int, params: ValidateParams
) -> Iterator[Checked]:
    """As `validate`, however many rows of a partition are bad."""
    window = _Window()
    # Of the whole window and before the first check: a missing one is a fault only among others.
    logged = any(_logs_propensity(rows, week) for week in weeks)

    def checked(name: str, week: Week) -> Checked:
        table = check_types(name, rows.read(name, week), rows.place(name, week))
        result = check(name, table, window.scope(params, week, as_of, logged))
        window.see(result)
        return result

    for week in weeks:
        for name in ("ads", "users", "impressions", "behaviours"):
            yield checked(name, week)
    for week in weeks:
        yield checked("conversions", week)


def _logs_propensity(rows: Rows, week: Week) -> bool:
    column = rows.column("impressions", week, c.PROPENSITY)
    return column is not None and column.null_count < len(column)
