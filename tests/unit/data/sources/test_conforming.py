"""Types as others write them: read where nothing is lost, refused in one line where it is."""

import decimal
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources.conforming import conform, parse
from roiflow.data.sources.files import Files
from roiflow.errors import SourceError
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND

GOOD = worlds.tables(SECOND)
WHOLE = pa.chunked_array([GOOD["conversions"][c.REVENUE].to_pylist()], pa.int64())


def changed(table: str, name: str, values: Any) -> pa.Table:
    rows = GOOD[table]
    return rows.set_column(rows.schema.get_field_index(name), name, values)


def cast(table: str, name: str, type_: pa.DataType) -> pa.Table:
    return changed(table, name, GOOD[table][name].cast(type_))


def naive(table: str, name: str, unit: str) -> pa.Table:
    stamps = GOOD[table][name].cast(pa.timestamp("us")).cast(pa.timestamp(unit), safe=False)
    return changed(table, name, stamps)


SAME: dict[str, tuple[str, Callable[[], pa.Table]]] = {
    "as the contract has it": ("impressions", lambda: GOOD["impressions"]),
    "string_view": ("impressions", lambda: cast("impressions", c.USER, pa.string_view())),
    "large_string": ("impressions", lambda: cast("impressions", c.USER, pa.large_string())),
    "dictionary": (
        "impressions",
        lambda: changed("impressions", c.USER, GOOD["impressions"][c.USER].dictionary_encode()),
    ),
    "large dictionary": (
        "impressions",
        lambda: changed(
            "impressions",
            c.USER,
            GOOD["impressions"][c.USER].cast(pa.large_string()).dictionary_encode(),
        ),
    ),
    "a dictionary of numbers": (
        "conversions",
        lambda: changed("conversions", c.REVENUE, WHOLE.dictionary_encode()),
    ),
    "int64 for int32": ("impressions", lambda: cast("impressions", c.POSITION, pa.int64())),
    "uint8 for int32": ("impressions", lambda: cast("impressions", c.POSITION, pa.uint8())),
    "float64 for int64": ("conversions", lambda: cast("conversions", c.REVENUE, pa.float64())),
    "decimal for int64": (
        "conversions",
        lambda: cast("conversions", c.REVENUE, pa.decimal128(38, 2)),
    ),
    "NaN for null": (
        "behaviours",
        lambda: changed(
            "behaviours",
            c.DWELL_MS,
            pa.array([x or np.nan for x in GOOD["behaviours"][c.DWELL_MS].to_pylist()]),
        ),
    ),
    "float32": ("impressions", lambda: cast("impressions", c.PROPENSITY, pa.float32())),
    "decimal for float64": (
        "impressions",
        lambda: changed("impressions", c.PROPENSITY, pa.array([decimal.Decimal("0.50")] * 10)),
    ),
    "0 and 1 for a flag": ("impressions", lambda: cast("impressions", c.CLICKED, pa.int8())),
    "0.0 and 1.0 for a flag": (
        "impressions",
        lambda: changed("impressions", c.CLICKED, pa.array([float(x % 2 == 0) for x in range(10)])),
    ),
    "nanoseconds": ("ads", lambda: cast("ads", c.CREATED_AT, pa.timestamp("ns", "UTC"))),
    "seconds of another zone": (
        "ads",
        lambda: cast("ads", c.CREATED_AT, pa.timestamp("s", "Asia/Tokyo")),
    ),
    "without a zone": ("ads", lambda: naive("ads", c.CREATED_AT, "ms")),
    "a day": ("ads", lambda: changed("ads", c.CREATED_AT, pa.array([date(2026, 1, 19)] * 2))),
    "nothing but nulls": ("ads", lambda: changed("ads", c.DAILY_BUDGET, pa.nulls(2))),
    "an absent propensity": (
        "impressions",
        lambda: changed("impressions", c.CLICK_KNOWN_TIME, pa.nulls(10)).drop_columns(
            [c.CLICK_KNOWN_TIME]
        ),
    ),
    "further columns": (
        "impressions",
        lambda: GOOD["impressions"].append_column("note", pa.array(["x"] * 10)),
    ),
    "another order": (
        "impressions",
        lambda: GOOD["impressions"].select(GOOD["impressions"].column_names[::-1]),
    ),
    "pandas' index": (
        "users",
        lambda: GOOD["users"].append_column("__index_level_0__", pa.array([0, 1, 2])),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_what_loses_nothing_is_read(case: str) -> None:
    table, make = SAME[case]
    assert conform(make(), table, "f").equals(GOOD[table])


def test_a_file_that_pandas_wrote_is_read(tmp_path: Path) -> None:
    frame = GOOD["behaviours"].to_pandas()
    frame[c.DWELL_MS] = frame[c.DWELL_MS].astype("Int64")
    frame[c.USER] = frame[c.USER].astype("category")
    path = tmp_path / "part-0.parquet"
    frame.set_index(pd.Index(range(5, 11))).to_parquet(path)
    assert conform(lake.read_parquet(path), "behaviours", "f").equals(GOOD["behaviours"])


@pytest.mark.parametrize("name", [one.name for one in SCHEMAS["ads"] if one.nullable])
def test_a_column_that_may_be_null_may_be_absent(name: str) -> None:
    found = conform(GOOD["ads"].drop_columns([name]), "ads", "f")
    assert found.schema.names == SCHEMAS["ads"].names
    assert found[name].null_count == found.num_rows


def test_profile_attributes_become_text() -> None:
    rows = GOOD["users"].append_column("visits", pa.array([1, None, 3]))
    rows = rows.append_column("score", pa.array([1.0, float("nan"), 3.0]))
    rows = rows.append_column("member", pa.array([True, False, None]))
    rows = rows.append_column("share", pa.array([0.25, 7.0, 1e300]))
    found = conform(rows, "users", "f").to_pydict()
    assert found["share"] == ["0.25", "7", "1e+300"]
    assert found["visits"] == found["score"] == ["1", None, "3"]
    assert found["member"] == ["true", "false", None]
    assert found["age"] == ["30-39"] * 3


def test_a_null_is_left_to_validation() -> None:
    rows = changed("conversions", c.REVENUE, pa.array([None, 1, 2, 3], pa.int64()))
    assert conform(rows, "conversions", "f")[c.REVENUE].null_count == 1


REFUSED: dict[str, tuple[str, Callable[[], pa.Table], str]] = {
    "a column twice": (
        "impressions",
        lambda: GOOD["impressions"].append_column(c.USER, GOOD["impressions"][c.USER]),
        r"^f: column 'user_id' is there 2 times: leave one$",
    ),
    "no column": (
        "conversions",
        lambda: GOOD["conversions"].drop_columns([c.REVENUE]),
        r"^f: no column 'revenue_micros' \(int64\): add it; the file has event_time, known_time",
    ),
    "half a micro": (
        "conversions",
        lambda: changed("conversions", c.REVENUE, pa.array([1.0, 2.0, 2.5, 3.0])),
        r"^f: row 3, column 'revenue_micros': 2\.5 \(double\) is not a whole number that fits",
    ),
    "a decimal's cents": (
        "conversions",
        lambda: changed("conversions", c.REVENUE, pa.array([decimal.Decimal("9.99")] * 4)),
        r"^f: row 1, column 'revenue_micros': 9\.99 \(decimal.*of money: micros",
    ),
    "too large": (
        "impressions",
        lambda: changed("impressions", c.POSITION, pa.array([1] * 9 + [2**40])),
        r"^f: row 10, column 'position': 1099511627776 \(int64\) is not a whole number that fits",
    ),
    "2 for a flag": (
        "impressions",
        lambda: changed("impressions", c.CLICKED, pa.array([0, 1, 2, *[0] * 7])),
        r"^f: row 3, column 'clicked': 2 \(int64\) is not true or false \(or 1 or 0\)$",
    ),
    "below a microsecond": (
        "ads",
        lambda: changed("ads", c.CREATED_AT, pa.array([1_000, 1_001], pa.timestamp("ns", "UTC"))),
        r"^f: row 2, column 'created_at': .*timestamp\[ns.* is not a time with its zone",
    ),
    "a year beyond": (
        "ads",
        lambda: changed("ads", c.CREATED_AT, pa.array([0, 2**60], pa.timestamp("s", "UTC"))),
        r"^f: row 2, column 'created_at': ",
    ),
    "text for a time": (
        "ads",
        lambda: changed("ads", c.CREATED_AT, pa.array(["2026-01-19T00:00:00Z"] * 2)),
        r"^f: column 'created_at' is of type string, expected timestamp\[us, tz=UTC\]: write a tim",
    ),
    "a number for a time": (
        "ads",
        lambda: changed("ads", c.CREATED_AT, pa.array([1, 2])),
        r"^f: column 'created_at' is of type int64, expected timestamp",
    ),
    "bytes for text": (
        "users",
        lambda: changed("users", c.USER, pa.array([b"\xff", b"a", b"b"])),
        r"^f: column 'user_id' is of type binary, expected string: write text in UTF-8$",
    ),
    "text that is not UTF-8": (
        "users",
        lambda: changed(
            "users",
            c.USER,
            pa.array([b"a", b"\xfc", b"b"]).cast(pa.string(), safe=False),
        ),
        r"^f: row 2, column 'user_id': '.*xfc' \(string\) is not text in UTF-8$",
    ),
    "a view that is not UTF-8": (
        "users",
        lambda: changed(
            "users",
            c.USER,
            pa.array([b"a", b"\xfc", b"b"]).cast(pa.string(), safe=False).cast(pa.string_view()),
        ),
        r"^f: row 2, column 'user_id': '.*xfc' \(string_view\) is not text in UTF-8$",
    ),
    "a list for an attribute": (
        "users",
        lambda: GOOD["users"].append_column("likes", pa.array([["a"], ["b"], []])),
        r"^f: column 'likes' is of type list<.*>, expected string: write text",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_something_is_refused_in_one_line(case: str) -> None:
    table, make, words = REFUSED[case]
    with pytest.raises(SourceError, match=words) as caught:
        conform(make(), table, "f")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 39), st.integers(40, 60))
def test_the_first_bad_row_is_named(bad: int, later: int) -> None:
    values = [1.0] * 61
    values[bad] = values[later] = 0.5
    rows = pa.concat_tables([GOOD["conversions"]] * 16).slice(0, 61)
    rows = rows.set_column(3, c.REVENUE, pa.array(values))
    with pytest.raises(SourceError, match=f"^f: row {bad + 1}, column"):
        conform(rows, "conversions", "f")


def test_parts_of_other_types_are_one_table(tmp_path: Path) -> None:
    root = worlds.write(tmp_path)
    folder = root / "impressions" / f"week={FIRST}"
    rows = worlds.tables(FIRST)["impressions"]
    index = rows.schema.get_field_index(c.USER)
    for number, type_ in enumerate((pa.string(), pa.large_string(), pa.string_view())):
        part = rows.slice(3 * number, 3 if number < 2 else 4)
        part = part.set_column(index, c.USER, part[c.USER].cast(type_))
        lake.write_parquet(folder / f"part-{number}.parquet", part)
    assert Files(str(root)).pull(FIRST, FIRST.end)["impressions"].equals(rows)


def texts(**columns: list[Any]) -> pa.Table:
    usual: dict[str, list[Any]] = {
        c.EVENT_TIME: ["2026-01-19T00:00:00Z"],
        c.KNOWN_TIME: ["2026-01-19T00:00:00Z"],
        c.IMPRESSION: ["i"],
        c.REVENUE: ["1"],
    }
    chosen = {**usual, **columns}
    return pa.table({name: pa.array(values, pa.string()) for name, values in chosen.items()})


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-01-19T08:30:00Z", datetime(2026, 1, 19, 8, 30, tzinfo=UTC)),
        ("2026-01-19T08:30:00", datetime(2026, 1, 19, 8, 30, tzinfo=UTC)),
        ("2026-01-19 08:30", datetime(2026, 1, 19, 8, 30, tzinfo=UTC)),
        ("2026-01-19 08:30:00 UTC", datetime(2026, 1, 19, 8, 30, tzinfo=UTC)),
        ("2026-01-19 08:30:00+00:00", datetime(2026, 1, 19, 8, 30, tzinfo=UTC)),
        (" 2026-01-19T08:30:00.123456+08:00", datetime(2026, 1, 19, 0, 30, 0, 123456, tzinfo=UTC)),
        ("2026-01-19", datetime(2026, 1, 19, tzinfo=UTC)),
        (None, None),
    ],
)
def test_times_of_a_csv(cell: str | None, expected: datetime | None) -> None:
    found = parse(texts(**{c.EVENT_TIME: [cell]}), "conversions", "f")[c.EVENT_TIME]
    assert found.type == TIME
    assert found.to_pylist() == [expected]


@pytest.mark.parametrize(
    ("name", "cell", "right"),
    [
        (c.EVENT_TIME, "19.01.2026", "a time with its zone"),
        (c.EVENT_TIME, "1768811400", "a time with its zone"),
        (c.EVENT_TIME, "2026-01-19T08:30:00.1234567Z", "to the microsecond"),
        (c.EVENT_TIME, "2026-02-30T00:00:00Z", "such as 2026-01-19T08:30:00Z"),
        (c.REVENUE, "9.99", "a whole number that fits"),
        (c.REVENUE, "9223372036854775808", "a whole number that fits"),
        (c.REVENUE, "1,000", "a whole number"),
        (c.REVENUE, "free", "a whole number"),
    ],
)
def test_a_bad_cell_is_named_with_what_would_be_right(name: str, cell: str, right: str) -> None:
    rows = pa.concat_tables([texts(), texts(**{name: [cell]})])
    with pytest.raises(SourceError) as caught:
        parse(rows, "conversions", "f.csv")
    assert str(caught.value).startswith(f"f.csv: row 2, column {name!r}: {cell!r} ")
    assert right in str(caught.value)


@pytest.mark.parametrize(("cell", "expected"), [("7", 7), ("7.0", 7), ("-7.", -7), (" 7 ", 7)])
def test_whole_numbers_of_a_csv(cell: str, expected: int) -> None:
    found = parse(texts(**{c.REVENUE: [cell]}), "conversions", "f")
    assert found[c.REVENUE].to_pylist() == [expected]


STRANGE: dict[str, Callable[[], pa.Array]] = {
    "struct": lambda: pa.array([{"a": 1}]),
    "list": lambda: pa.array([[1]]),
    "map": lambda: pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "binary": lambda: pa.array([b"\xff"]),
    "binary_view": lambda: pa.array([b"a"], pa.binary_view()),
    "large_binary": lambda: pa.array([b"a"], pa.large_binary()),
    "fixed binary": lambda: pa.array([b"ab"], pa.binary(2)),
    "uuid": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16))),
    "json": lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}"])),
    "time of day": lambda: pa.array([1], pa.time64("us")),
    "duration": lambda: pa.array([1], pa.duration("us")),
    "interval": lambda: pa.array([(1, 1, 1)], pa.month_day_nano_interval()),
    "date64": lambda: pa.array([date(2026, 1, 19)], pa.date64()),
    "an old date": lambda: pa.array([-(2**31)], pa.int32()).view(pa.date32()),
    "float16": lambda: pa.array([np.float16(0.5)]),
    "infinity": lambda: pa.array([float("inf")]),
    "the largest double": lambda: pa.array([1.7e308]),
    "decimal256": lambda: pa.array([decimal.Decimal(10) ** 70], pa.decimal256(76, 0)),
    "uint64": lambda: pa.array([2**64 - 1], pa.uint64()),
    "nanoseconds": lambda: pa.array([-(2**63) + 1], pa.timestamp("ns")),
    "milliseconds": lambda: pa.array([2**62], pa.timestamp("ms", "Europe/Berlin")),
    "no such zone": lambda: pa.array([1], pa.timestamp("us", "Nowhere/At_all")),
    "an offset": lambda: pa.array([1], pa.timestamp("us", "+08:00")),
    "text": lambda: pa.array(["x"]),
    "a dictionary of structs": lambda: pa.DictionaryArray.from_arrays(
        pa.array([0]), pa.array([{"a": 1}])
    ),
    "a dictionary with a null": lambda: pa.DictionaryArray.from_arrays(
        pa.array([0]), pa.array([None], pa.string())
    ),
    "run ends": lambda: pa.RunEndEncodedArray.from_arrays([1], ["x"]),
    "a union": lambda: pa.UnionArray.from_dense(
        pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])]
    ),
}


def refusal(rows: pa.Table, table: str) -> str | None:
    """What is said where the rows are not read."""
    try:
        found = conform(rows, table, "f")
    except SourceError as error:
        return str(error)
    assert found.num_rows == rows.num_rows
    assert found.schema.types[: len(SCHEMAS[table])] == SCHEMAS[table].types
    return None


@pytest.mark.parametrize("strange", STRANGE)
def test_whatever_a_column_is_there_is_no_traceback(strange: str) -> None:
    values = STRANGE[strange]()
    for table, schema in SCHEMAS.items():
        first = GOOD[table].slice(0, 1)
        for name in (*schema.names, "further"):
            index = first.schema.get_field_index(name)
            if index < 0:
                said = refusal(first.append_column(name, values), table)
            else:
                said = refusal(first.set_column(index, name, values), table)
            assert said is None or (said.startswith("f: ") and name in said and "\n" not in said)
