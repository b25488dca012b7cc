"""Tables as somebody else's programs write them, made the data contract's.

Read where nothing is lost: every form of text (large, view, dictionary-encoded), whole numbers in
whatever type, pandas' floats with NaN for missing ones included, times of another unit or zone.
A time without a zone is UTC. A column of the contract that may be null may also be absent, pandas'
index is no column, and further columns count only in `users`, where they become text.

All else is a SourceError that names file, column, what is there, what is expected and what to do.
"""

import re
from collections import Counter
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from roiflow.data.schemas import SCHEMAS, TIME, kind_of
from roiflow.errors import SourceError

PANDAS_INDEX = re.compile(r"__index_level_\d+__|")
"""In Parquet and, without a name, in CSV."""

EXACT = 2.0**53
"""Below it a float64 has every whole number."""

Convert = Callable[[pa.ChunkedArray], pa.ChunkedArray]


def conform(rows: pa.Table, table: str, place: str) -> pa.Table:
    """Rows of a Parquet file in the contract's types; a null stays one, whatever the column."""
    return _in_order(rows, table, place, _converter)


def parse(rows: pa.Table, table: str, place: str) -> pa.Table:
    """Rows of texts, as a CSV has them, in the contract's types."""
    return _in_order(rows, table, place, lambda _, wanted: _PARSERS[kind_of(wanted)](wanted))


def _in_order(
    rows: pa.Table, table: str, place: str, of: Callable[[pa.DataType, pa.DataType], Convert | None]
) -> pa.Table:
    """The contract's columns in its order, then the further ones of `users`."""
    names = [name for name in rows.column_names if not PANDAS_INDEX.fullmatch(name)]
    counts, types = Counter(names), {field.name: field.type for field in SCHEMAS[table]}
    if table == "users":
        types |= {name: pa.string() for name in names if name not in types}
    # The contract's own word on nulls is left to validation, which sets the rows aside: a schema
    # without nulls could not carry them there.
    sure = {field.name for field in rows.schema if not field.nullable}
    fields = [pa.field(name, type_, name not in sure) for name, type_ in types.items()]
    columns = []
    for field in fields:
        if counts[field.name] > 1:
            raise SourceError(
                f"{place}: column {field.name!r} is there {counts[field.name]} times: leave one"
            )
        if counts[field.name] == 0:
            columns.append(_absent(field, table, place, rows))
        else:
            columns.append(_one(rows, field, place, of))
    return pa.table(columns, schema=pa.schema(fields))


def _absent(field: pa.Field, table: str, place: str, rows: pa.Table) -> pa.Array:
    if SCHEMAS[table].field(field.name).nullable:
        return pa.nulls(rows.num_rows, field.type)
    there = ", ".join(rows.column_names) or "none"
    # One name with another separator in it is the header of a file that was written with that one.
    if len(rows.column_names) == 1 and re.search("[;\t|]", there):
        there += " (columns are separated by commas)"
    raise SourceError(
        f"{place}: no column {field.name!r} ({field.type}): add it; the file has {there}"
    )


def _one(
    rows: pa.Table,
    field: pa.Field,
    place: str,
    of: Callable[[pa.DataType, pa.DataType], Convert | None],
) -> pa.ChunkedArray:
    column = _plain(rows[field.name])
    convert = of(column.type, field.type)
    if convert is None:
        raise SourceError(
            f"{place}: column {field.name!r} is of type {rows[field.name].type}, expected "
            f"{field.type}: write {_RIGHT[kind_of(field.type)]}"
        )
    try:
        return convert(column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        row = _first_fault(column, convert)
        raise SourceError(
            f"{place}: row {row + 1}, column {field.name!r}: {_shown(column[row])} "
            f"({rows[field.name].type}) is not {_RIGHT[kind_of(field.type)]}"
        ) from None


def _shown(value: pa.Scalar) -> str:
    """As a user would write it; a time in Arrow's words, since Python has not all of them."""
    type_ = value.type
    if pa.types.is_timestamp(type_):  # its zone may be one that nobody knows
        return str(pa.scalar(value.value, pa.timestamp(type_.unit)).cast(pa.string()))
    if pa.types.is_date(type_) or pa.types.is_decimal(type_):
        return str(value.cast(pa.string()))
    if _is_text(type_):  # it may be none
        return repr(bytes(value.as_buffer()).decode(errors="backslashreplace"))
    return repr(value.as_py())


def _first_fault(column: pa.ChunkedArray, convert: Convert) -> int:
    """The first row at which `convert` fails, which it does of the whole column."""
    # By halves, with the conversion itself: there is no second notion of what is right, and the
    # cost is that of converting the column about once more.
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(column.slice(low, middle - low))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            high = middle
        else:
            low = middle
    return low


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without a dictionary or an extension's name around the values."""
    type_ = column.type
    if isinstance(type_, pa.BaseExtensionType):
        return column.cast(type_.storage_type)
    if not pa.types.is_dictionary(type_):
        return column
    return pa.chunked_array([one.dictionary_decode() for one in column.chunks], type_.value_type)


_RIGHT = {
    "time": "a time with its zone, to the microsecond, such as 2026-01-19T08:30:00Z",
    "flag": "true or false (or 1 or 0)",
    "whole": "a whole number that fits (of money: micros)",
    "decimal": "a number",
    "text": "text in UTF-8",
}
"""What would be right, in a table or a cell."""


def _converter(found: pa.DataType, wanted: pa.DataType) -> Convert | None:
    """How to come from one type to the other without a loss; None where there is no way."""
    types = pa.types
    if _is_text(found) and kind_of(wanted) == "text":
        return _text
    if found == wanted or types.is_null(found):
        return lambda column: column.cast(wanted)
    whole = types.is_integer(found) or types.is_floating(found)
    match kind_of(wanted):
        case "time" if types.is_timestamp(found) or types.is_date(found):
            return _time
        case "flag" if whole:
            return lambda column: _flag(_missing(column))
        case "whole" if whole or types.is_decimal(found):
            return lambda column: _missing(column).cast(wanted)
        case "decimal" if whole or types.is_decimal(found):
            return lambda column: column.cast(wanted)
        case "text" if whole:
            return _text_of_numbers
        case "text" if types.is_boolean(found) or types.is_timestamp(found) or types.is_date(found):
            return lambda column: column.cast(wanted)
    return None


def _is_text(type_: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_)


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Parquet's readers take it on trust that text is UTF-8."""
    texts = column.cast(pa.string())
    texts.validate(full=True)
    return texts


def _missing(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """NaN, which pandas has for a missing whole number, as null."""
    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _text_of_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """7.0 is 7, as it was before pandas met a missing one beside it."""
    if pa.types.is_integer(column.type):
        return column.cast(pa.string())
    values = _missing(column).cast(pa.float64())
    whole = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), EXACT))
    # 0 where it is not whole: both branches are computed for every row, and the cast refuses
    # fractions.
    short = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, short, values.cast(pa.string()))


def _flag(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # By whole numbers, whose cast refuses 0.5.
    values = column.cast(pa.int64())
    if not pc.all(pc.is_in(values, value_set=pa.array([0, 1, None], pa.int64()))).as_py():
        raise pa.ArrowInvalid("neither 0 nor 1")
    return values.cast(pa.bool_())


def _time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:
        return column.cast(TIME)
    return column.cast(pa.timestamp("us")).cast(TIME)


def _parse_time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Days and times without a zone are completed as texts, so that one cast takes all of them.
    text = pc.replace_substring_regex(pc.utf8_trim_whitespace(column), r" UTC$", "Z")
    day = pc.match_substring_regex(text, r"^\d{4}-\d{2}-\d{2}$")
    text = pc.if_else(day, pc.binary_join_element_wise(text, "T00:00:00", ""), text)
    zoned = pc.match_substring_regex(text, r"(Z|[+-]\d{2}:?\d{2})$")
    return pc.if_else(zoned, text, pc.binary_join_element_wise(text, "Z", "")).cast(TIME)


def _parse_flag(column: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pc.utf8_trim_whitespace(column)
    return pc.replace_substring_regex(text, r"^([01])\.0*$", r"\1").cast(pa.bool_())


def _parse_number(wanted: pa.DataType) -> Convert:
    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        text = pc.utf8_trim_whitespace(column)
        if pa.types.is_integer(wanted):  # pandas writes 3.0 where another row has none
            text = pc.replace_substring_regex(text, r"^(-?\d+)\.0*$", r"\1")
        return text.cast(wanted)

    return convert


_PARSERS: dict[str, Callable[[pa.DataType], Convert]] = {
    "time": lambda _: _parse_time,
    "flag": lambda _: _parse_flag,
    "whole": _parse_number,
    "decimal": _parse_number,
    "text": lambda _: _text,
}
