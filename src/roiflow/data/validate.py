"""The data contract, checked: a row that breaks it is set aside with its first reason.

A rule is a function of one table that marks the bad rows; RULES lists each table's, most basic
first. A row leaves with the first rule that it breaks, and later rules see only rows that passed
the earlier ones, so of two impressions with one id a broken one never displaces a sound one.

What cannot be a matter of single rows stops the week: an unreadable file, a missing column or a
column of the wrong type (ContractError), and too many bad rows (QuarantineLimit).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import Week
from roiflow.errors import ContractError, QuarantineLimit, UnknownWeek

Flags = NDArray[np.bool_]
Longs = NDArray[np.int64]

TABLES = ("ads", "users", "impressions", "behaviours", "conversions")
"""In the order of checking: impressions need the catalogue, conversions the impressions."""
MAX_ID_BYTES = 256
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Scope:
    """What a row is held against."""

    week: Week
    as_of: int  # microseconds, UTC
    catalogue: pa.ChunkedArray  # ids of the ads of this week and of the one before
    first: bool  # of the window: the week before it is not there
    propensities_logged: bool  # anywhere in the window
    impressions: Longs  # keys of the clean impressions of the window so far, see text_keys
    impression_times: Longs  # their event_time, micros
    slots: Longs  # keys of their request and position


Rule = Callable[[pa.Table, Scope], Flags]


@dataclass(frozen=True)
class Checked:
    """One partition, split in two: every row is in exactly one of the tables."""

    table: str
    week: Week
    clean: pa.Table  # the contract's schema
    quarantined: pa.Table  # the same columns and `reason`
    orphans: int = 0  # conversions of no clean impression of the window: kept

    @property
    def rows(self) -> int:
        """Rows before the split."""
        return self.clean.num_rows + self.quarantined.num_rows

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason."""
        return _reasons(self.quarantined)


def _micros(column: pa.ChunkedArray) -> Longs:
    return column.cast(pa.int64()).to_numpy()


def _negative(*names: str) -> Rule:
    def rule(rows: pa.Table, _: Scope) -> Flags:
        flags = np.zeros(rows.num_rows, bool)
        for name in names:
            flags |= pc.fill_null(pc.less(rows[name], 0), False).to_numpy()
        return flags

    return rule


def _null(rows: pa.Table, _: Scope) -> Flags:
    flags = np.zeros(rows.num_rows, bool)
    for column in rows.schema:
        if not column.nullable and rows[column.name].null_count:
            flags |= rows[column.name].is_null().to_numpy()
    return flags


def _bad_id(rows: pa.Table, _: Scope) -> Flags:
    flags = np.zeros(rows.num_rows, bool)
    for column in rows.schema:
        if column.name.endswith("_id"):
            size = pc.binary_length(rows[column.name]).to_numpy()
            flags |= (size == 0) | (size > MAX_ID_BYTES)
    return flags


def _known_before_event(rows: pa.Table, _: Scope) -> Flags:
    return pc.less(rows[c.KNOWN_TIME], rows[c.EVENT_TIME]).to_numpy()


def _known_after_as_of(rows: pa.Table, scope: Scope) -> Flags:
    return _micros(rows[c.KNOWN_TIME]) >= scope.as_of


def _outside_week(rows: pa.Table, scope: Scope) -> Flags:
    known = _micros(rows[c.KNOWN_TIME])
    return (known < scope.week.start) | (known >= scope.week.end)


def _known_after_week(rows: pa.Table, scope: Scope) -> Flags:
    return _micros(rows[c.KNOWN_TIME]) >= scope.week.end


def _bad_propensity(rows: pa.Table, _: Scope) -> Flags:
    value = pc.fill_null(rows[c.PROPENSITY], 1.0).to_numpy()
    return ~((value > 0) & (value <= 1))


def _missing_propensity(rows: pa.Table, scope: Scope) -> Flags:
    if not scope.propensities_logged:
        return np.zeros(rows.num_rows, bool)
    return rows[c.PROPENSITY].is_null().to_numpy()


def _click_time_without_click(rows: pa.Table, _: Scope) -> Flags:
    unclicked = pc.fill_null(pc.invert(rows[c.CLICKED]), False)
    flags: Flags = pc.and_(rows[c.CLICK_KNOWN_TIME].is_valid(), unclicked).to_numpy()
    return flags


def _click_known_after_as_of(rows: pa.Table, scope: Scope) -> Flags:
    known = pc.fill_null(rows[c.CLICK_KNOWN_TIME].cast(pa.int64()), 0)
    return known.to_numpy() >= scope.as_of


def _bad_position(rows: pa.Table, _: Scope) -> Flags:
    position = rows[c.POSITION].to_numpy()
    return (position < 1) | (position > rows[c.SLATE_SIZE].to_numpy())


def _not_in_catalogue(rows: pa.Table, scope: Scope) -> Flags:
    missing = ~pc.is_in(rows[c.AD], value_set=scope.catalogue.combine_chunks()).to_numpy()
    if scope.first:  # what happened in the week before had a catalogue that is not there
        missing &= _micros(rows[c.EVENT_TIME]) >= scope.week.start
    return missing


def text_keys(column: pa.ChunkedArray) -> Longs:
    """64-bit keys of strings of at most MAX_ID_BYTES bytes, (n,); equal strings have equal keys.

    Multilinear hashing, sum of r_i (byte_i + 1) mod 2^64 with fixed random odd r_i (Carter &
    Wegman, 1979): among 10 million ids two would share a key with a probability of 3e-6.
    """
    factors = np.random.default_rng(0).integers(0, 2**63, MAX_ID_BYTES, np.uint64) * 2 + 1
    keys = [np.zeros(0, np.uint64)]
    for chunk in column.chunks:
        for start in range(0, len(chunk), 65_536):
            part = chunk.slice(start, 65_536)
            offsets = np.frombuffer(part.buffers()[1], np.int32)[part.offset :][: len(part) + 1]
            offsets = offsets.astype(np.int64)
            length, ends = np.diff(offsets), offsets[1:] - offsets[0]
            text = np.frombuffer(part.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
            place = np.arange(text.size) - np.repeat(ends - length, length)
            terms = factors[place] * (text.astype(np.uint64) + 1)
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
            keys.append(sums[ends] - sums[ends - length])
    return np.concatenate(keys).view(np.int64)


def _later(earlier: Longs, keys: Longs, rows: pa.Table) -> Flags:
    """True where a key is among the earlier ones, or in a row known before or listed before."""
    ordered = np.sort(np.concatenate([earlier, keys]))
    if (ordered[1:] != ordered[:-1]).all():
        return np.zeros(keys.size, bool)
    known = np.argsort(_micros(rows[c.KNOWN_TIME]), kind="stable")
    _, first = np.unique(keys[known], return_index=True)
    again = np.ones(keys.size, bool)
    again[known[first]] = False
    return again | np.isin(keys, earlier)


def _slot_keys(rows: pa.Table) -> Longs:
    """Keys of (request, position): the request's key, moved by an odd multiple of position."""
    moved = rows[c.POSITION].to_numpy().astype(np.int64) * np.int64(0x1E3779B97F4A7C15)
    return text_keys(rows[c.REQUEST]) + moved


def _duplicate_impression(rows: pa.Table, scope: Scope) -> Flags:
    return _later(scope.impressions, text_keys(rows[c.IMPRESSION]), rows)


def _duplicate_slot(rows: pa.Table, scope: Scope) -> Flags:
    return _later(scope.slots, _slot_keys(rows), rows)


def _duplicate(name: str) -> Rule:
    def rule(rows: pa.Table, _: Scope) -> Flags:
        return _later(np.zeros(0, np.int64), text_keys(rows[name]), rows)

    return rule


def _impression_time(rows: pa.Table, scope: Scope) -> tuple[Flags, Longs]:
    """(has an impression in the window, its event_time or 0), per conversion."""
    wanted, place = np.unique(text_keys(rows[c.IMPRESSION]), return_inverse=True)
    # The few conversions are the table that is searched, the many impressions pass by.
    match = pc.index_in(pa.array(scope.impressions), value_set=pa.array(wanted))
    seen = match.is_valid().to_numpy(zero_copy_only=False)
    of = pc.drop_null(match).to_numpy()
    found, times = np.zeros(wanted.size, bool), np.zeros(wanted.size, np.int64)
    found[of], times[of] = True, scope.impression_times[seen]
    return found[place], times[place]


def _twice(rows: pa.Table, _: Scope) -> Flags:
    """The same conversion again: it has no id of its own, but the microsecond tells it apart."""
    values = [text_keys(rows[c.IMPRESSION]), _micros(rows[c.EVENT_TIME])]
    values.append(rows[c.REVENUE].to_numpy())
    order = np.lexsort(values)
    again = np.zeros(rows.num_rows, bool)
    same = [value[order][1:] == value[order][:-1] for value in values]
    again[order[1:]] = np.logical_and.reduce(same)
    return again


def _before_impression(rows: pa.Table, scope: Scope) -> Flags:
    found, times = _impression_time(rows, scope)
    return found & (_micros(rows[c.EVENT_TIME]) < times)


_EVERY: list[tuple[str, Rule]] = [
    ("null", _null),
    ("id empty or too long", _bad_id),
    ("known_time before event_time", _known_before_event),
    ("known after as_of", _known_after_as_of),
]
_OF_EVENTS: list[tuple[str, Rule]] = [("known outside its week", _outside_week)]
_OF_SNAPSHOTS: list[tuple[str, Rule]] = [("known after its week", _known_after_week)]

RULES: dict[str, list[tuple[str, Rule]]] = {
    "ads": [
        *_EVERY,
        *_OF_SNAPSHOTS,
        ("negative price, bid or budget", _negative(c.PRICE, c.BID, c.DAILY_BUDGET)),
        ("duplicate ad_id", _duplicate(c.AD)),
    ],
    "users": [*_EVERY, *_OF_SNAPSHOTS, ("duplicate user_id", _duplicate(c.USER))],
    "impressions": [
        *_EVERY,
        *_OF_EVENTS,
        ("negative bid or cost", _negative(c.BID, c.COST)),
        ("propensity outside (0, 1]", _bad_propensity),
        ("propensity missing where others are logged", _missing_propensity),
        ("click_known_time without a click", _click_time_without_click),
        ("click known after as_of", _click_known_after_as_of),
        ("position outside 1 to slate_size", _bad_position),
        ("ad not in the catalogue", _not_in_catalogue),
        ("duplicate impression_id", _duplicate_impression),
        ("duplicate request_id and position", _duplicate_slot),
    ],
    "behaviours": [*_EVERY, *_OF_EVENTS, ("negative dwell", _negative(c.DWELL_MS))],
    "conversions": [
        *_EVERY,
        *_OF_EVENTS,
        ("conversion before its impression", _before_impression),
        ("duplicate conversion", _twice),
    ],
}
"""Revenue may be negative: a return arrives as a conversion of its own."""


def check_types(name: str, rows: pa.Table, file: Path) -> pa.Table:
    """The contract's columns of `rows`, in its types; further columns only of `users`.

    Widening and narrowing within a kind (whole numbers, decimals, text, times) is allowed where no
    value changes; a time without a zone is UTC. Profile attributes become strings, null `unknown`.
    Raises ContractError naming file, column and type.
    """
    schema = SCHEMAS[name]
    columns = []
    for wanted in schema:
        if wanted.name in rows.column_names:
            columns.append(_cast(rows[wanted.name], wanted, file))
        elif wanted.nullable:
            columns.append(pa.nulls(rows.num_rows, wanted.type))
        else:
            raise ContractError(f"{file}: no column {wanted.name!r}")
    fields = list(schema)
    if name == "users":
        for extra in rows.schema:
            if extra.name not in schema.names:
                text = pa.field(extra.name, pa.string())
                columns.append(pc.fill_null(_cast(rows[extra.name], text, file), UNKNOWN))
                fields.append(text)
    return pa.table(columns, schema=pa.schema(fields))


def _kind(type_: pa.DataType) -> str:
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    tests = {
        "whole": pa.types.is_integer,
        "decimal": pa.types.is_floating,
        "text": lambda of: pa.types.is_string(of) or pa.types.is_large_string(of),
        "time": pa.types.is_timestamp,
        "null": pa.types.is_null,
    }
    return next((kind for kind, test in tests.items() if test(type_)), str(type_))


def _cast(column: pa.ChunkedArray, wanted: pa.Field, file: Path) -> pa.ChunkedArray:
    if column.type == wanted.type:
        return column
    kinds = _kind(column.type), _kind(wanted.type)
    if kinds[0] not in (kinds[1], "null") and kinds != ("whole", "decimal"):
        raise ContractError(
            f"{file}: column {wanted.name!r} is of type {column.type}, expected {wanted.type}"
        )
    try:
        return column.cast(wanted.type, safe=True)
    except pa.ArrowInvalid as error:
        raise ContractError(
            f"{file}: column {wanted.name!r} of type {column.type} does not fit "
            f"{wanted.type}: {error}"
        ) from None


def check(name: str, rows: pa.Table, scope: Scope) -> Checked:
    """Split the rows of one partition, (n,) rows of the contract's types, by RULES."""
    reasons = np.full(rows.num_rows, -1)
    left = np.arange(rows.num_rows)
    remaining = rows
    for number, (_, rule) in enumerate(RULES[name]):
        if not left.size:
            break
        bad = rule(remaining, scope)
        if bad.any():
            reasons[left[bad]] = number
            left = left[~bad]
            remaining = remaining.filter(pa.array(~bad))
    broken = np.flatnonzero(reasons >= 0)
    texts = pa.array([reason for reason, _ in RULES[name]], pa.string())
    quarantined = rows.take(pa.array(broken)).append_column(
        pa.field(c.REASON, pa.string()), texts.take(pa.array(reasons[broken]))
    )
    orphans = 0
    if name == "conversions":
        orphans = int((~_impression_time(remaining, scope)[0]).sum())
    return Checked(name, scope.week, remaining, _nullable(quarantined), orphans)


def _nullable(rows: pa.Table) -> pa.Table:
    return pa.table(
        rows.columns, schema=pa.schema([column.with_nullable(True) for column in rows.schema])
    )


def _reasons(quarantined: pa.Table) -> dict[str, int]:
    counts = pc.value_counts(quarantined[c.REASON])
    return {count["values"].as_py(): count["counts"].as_py() for count in counts}


def check_limit(checked: Checked, max_fraction: float, file: Path) -> None:
    """Raises QuarantineLimit, naming the first bad row, where too large a share of rows is bad."""
    bad = checked.quarantined
    if bad.num_rows <= max_fraction * checked.rows:
        return
    first = bad.slice(0, 1).to_pylist()[0]
    reason = first.pop(c.REASON)
    values = ", ".join(f"{key}={value}" for key, value in first.items())
    counts = ", ".join(f"{count} {text}" for text, count in checked.reasons.items())
    raise QuarantineLimit(
        f"{file}: {bad.num_rows} of {checked.rows} rows of {checked.table} in {checked.week} "
        f"({bad.num_rows / checked.rows:.2%}) break the contract, allowed {max_fraction:.2%}: "
        f"{counts}; first: {reason}: {values}"
    )


@dataclass
class _Window:
    """What checked weeks leave behind for the following ones."""

    catalogue: list[pa.Array] = field(default_factory=list)
    earlier_catalogue: list[pa.Array] = field(default_factory=list)
    impressions: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    times: Longs = field(default_factory=lambda: np.zeros(0, np.int64))
    slots: Longs = field(default_factory=lambda: np.zeros(0, np.int64))

    def scope(self, week: Week, as_of: int, propensities_logged: bool) -> Scope:
        catalogue = pa.chunked_array([*self.earlier_catalogue, *self.catalogue], pa.string())
        return Scope(
            week,
            as_of,
            catalogue,
            not self.earlier_catalogue,
            propensities_logged,
            self.impressions,
            self.times,
            self.slots,
        )

    def see(self, checked: Checked) -> None:
        clean = checked.clean
        if checked.table == "ads":
            self.earlier_catalogue, self.catalogue = self.catalogue, clean[c.AD].chunks
        if checked.table == "impressions":
            keys = text_keys(clean[c.IMPRESSION])
            self.impressions = np.concatenate([self.impressions, keys])
            self.times = np.concatenate([self.times, _micros(clean[c.EVENT_TIME])])
            self.slots = np.concatenate([self.slots, _slot_keys(clean)])


def validate(
    raw: Path, weeks: Sequence[Week], as_of: int, max_fraction: float
) -> Iterator[Checked]:
    """Check every partition of a window of the lake `raw`, oldest week first.

    All weeks of impressions are checked before the first conversions, which may belong to any of
    them. Raises ContractError or QuarantineLimit at the first partition that cannot be accepted.
    """
    window = _Window()
    logged = any(_logs_propensity(raw, week) for week in weeks)

    def checked(name: str, week: Week) -> Checked:
        file = lake.partition(raw, name, week)
        if not file.exists():
            raise UnknownWeek(f"{file}: no such file")
        rows = check_types(name, lake.read_parquet(file), file)
        result = check(name, rows, window.scope(week, as_of, logged))
        check_limit(result, max_fraction, file)
        window.see(result)
        return result

    for week in weeks:
        for name in ("ads", "users", "impressions", "behaviours"):
            yield checked(name, week)
    for week in weeks:
        yield checked("conversions", week)


def _logs_propensity(raw: Path, week: Week) -> bool:
    file = lake.partition(raw, "impressions", week)
    column = lake.read_parquet(file, [c.PROPENSITY])[c.PROPENSITY]
    return column.null_count < len(column)
