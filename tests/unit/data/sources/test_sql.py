"""The parts of the SQL source that need no server."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from pydantic import SecretStr

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources.sql_address import Address, parse_address
from roiflow.data.sources.sql_columns import Column, select, written
from roiflow.data.sources.sql_dialects import MySQL, PostgreSQL
from roiflow.data.sources.sql_queries import part
from roiflow.data.sources.sql_types import fit
from roiflow.data.weeks import Week
from roiflow.errors import SourceError

WEEK = Week(2026, 4)


def address(uri: str) -> Address:
    return parse_address(SecretStr(uri))


class TestAddress:
    @pytest.mark.parametrize(
        ("uri", "dialect", "where", "driver"),
        [
            (
                "postgres://me:pw@db.example:5433/ads",
                "postgresql",
                "db.example:5433/ads",
                "postgresql://me:pw@db.example:5433/ads?connect_timeout=10",
            ),
            (
                "postgresql://me:pw@db/ads?sslmode=require&__extra__=%7B%22a%22%3A1%7D",
                "postgresql",
                "db:5432/ads",
                "postgresql://me:pw@db/ads?sslmode=require&connect_timeout=10",
            ),
            (
                "postgresql://me:pw@db/ads?connect_timeout=3",
                "postgresql",
                "db:5432/ads",
                "postgresql://me:pw@db/ads?connect_timeout=3",
            ),
            (
                "postgresql://me@/ads?host=/run/pg",
                "postgresql",
                "/run/pg:5432/ads",
                "postgresql://me@/ads?host=%2Frun%2Fpg&connect_timeout=10",
            ),
            (
                "postgres://me:pw@%2Frun%2Fpg/ads",
                "postgresql",
                "/run/pg:5432/ads",
                "postgresql://me:pw@%2Frun%2Fpg/ads?connect_timeout=10",
            ),
            ("mariadb://me:pw@db/ads", "mysql", "db:3306/ads", "mysql://me:pw@db/ads"),
            ("mysql://me:p%40@[::1]:33/ads", "mysql", "::1:33/ads", "mysql://me:p%40@[::1]:33/ads"),
        ],
    )
    def test_a_uri_is_what_its_driver_wants(
        self, uri: str, dialect: str, where: str, driver: str
    ) -> None:
        found = address(uri)
        assert (found.dialect, found.where, found.uri) == (dialect, where, driver)

    @pytest.mark.parametrize(
        "uri",
        [
            "oracle://me:hunter2@db/ads",
            "me:hunter2@db/ads",
            "postgresql://me:hunter2@db:port/ads",
            "postgresql://me:hunter2@[db/ads",
            "mysql://me:hunter2@hunter2/w@db/ads",
            "mysql://me:1@hunter2@db/ads",
            "mysql://me:1/hunter2@db/ads",
            "mysql://me:1?hunter2@db/ads",
            "mysql://me:1#hunter2@db/ads",
            "",
        ],
    )
    def test_what_is_no_such_uri_is_not_repeated(self, uri: str) -> None:
        with pytest.raises(SourceError, match=r"ROIFLOW_SQL is not of the form") as caught:
            address(uri)
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("uri", "message", "clean"),
        [
            ("mysql://me:hunter2@db/ads", "no hunter2\nand more hunter2", "no ***"),
            (
                "mysql://me:p%40ss@db/ads",
                'token "p%40ss", that is p@ss',
                'token "***", that is ***',
            ),
            ("postgresql://me@db/ads?password=hunter2", "hunter2", "***"),
            ("mysql://me@db/ads", "as it is", "as it is"),
            ("mysql://me:hunter2@db/ads", " \n", "no reason given"),
        ],
    )
    def test_a_message_loses_the_password(self, uri: str, message: str, clean: str) -> None:
        assert address(uri).clean(message) == clean

    def test_no_representation_holds_the_password(self) -> None:
        assert "hunter2" not in repr(address("mysql://me:hunter2@db/ads"))


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01 00:00:00.000000"),
        (-1, "1969-12-31 23:59:59.999999"),
        (WEEK.start + 1, "2026-01-19 00:00:00.000001"),
    ],
)
def test_a_time_is_written_to_the_microsecond(micros: int, text: str) -> None:
    assert written(micros) == text


def test_names_and_texts_are_quoted() -> None:
    assert PostgreSQL().name('a"b`c') == '"a""b`c"'
    assert MySQL().name('a"b`c') == '`a"b``c`'
    assert PostgreSQL().text("a'b\\") == "'a''b\\'"
    assert MySQL().text("a'b\\") == "CONVERT(0x6127625c USING utf8mb4)"
    assert MySQL().text("") == "''"


@pytest.mark.parametrize(
    ("dialect", "type_", "wanted", "expression"),
    [
        (PostgreSQL(), "timestamp with time zone", TIME, '"x"'),
        (PostgreSQL(), "timestamp without time zone", TIME, '"x"'),
        (PostgreSQL(), "bigint", pa.string(), '"x"::text'),
        (PostgreSQL(), "uuid", pa.string(), '"x"::text'),
        (PostgreSQL(), "character varying", pa.string(), '"x"'),
        (PostgreSQL(), "numeric", pa.float64(), '"x"::float8'),
        (PostgreSQL(), "real", pa.float64(), '"x"'),
        (PostgreSQL(), "smallint", pa.int64(), '"x"'),
        (PostgreSQL(), "boolean", pa.bool_(), '"x"'),
        (MySQL(), "bigint(20) unsigned", pa.int64(), "`x`"),
        (MySQL(), "bigint", pa.string(), "CONVERT(`x`, CHAR)"),
        (MySQL(), "decimal(9,6)", pa.float64(), "(`x` + 0e0)"),
        (MySQL(), "tinyint(1)", pa.bool_(), "`x`"),
        (MySQL(), "tinyint(4)", pa.int32(), "`x`"),
        (MySQL(), "enum('a','b')", pa.string(), "`x`"),
    ],
)
def test_a_column_that_fits_is_selected(
    dialect: PostgreSQL | MySQL, type_: str, wanted: pa.DataType, expression: str
) -> None:
    assert select(dialect, Column("x", type_), wanted) == expression


@pytest.mark.parametrize(
    ("dialect", "type_", "wanted"),
    [
        (PostgreSQL(), "numeric", pa.int64()),
        (PostgreSQL(), "date", TIME),
        (PostgreSQL(), "boolean", pa.int64()),
        (PostgreSQL(), "bytea", pa.string()),
        (MySQL(), "tinyint(4)", pa.bool_()),
        (MySQL(), "tinyint(1)", pa.int32()),
        (MySQL(), "varbinary(9)", pa.string()),
        (MySQL(), "time(6)", TIME),
    ],
)
def test_a_column_that_does_not_fit_is_named(
    dialect: PostgreSQL | MySQL, type_: str, wanted: pa.DataType
) -> None:
    with pytest.raises(SourceError) as caught:
        select(dialect, Column("x", type_), wanted)
    assert str(caught.value) == f"column 'x' is of type {type_}, expected {wanted}"


CONVERSIONS = {
    c.EVENT_TIME: Column(c.EVENT_TIME, "timestamp without time zone"),
    c.KNOWN_TIME: Column(c.KNOWN_TIME, "timestamp with time zone"),
    c.IMPRESSION: Column(c.IMPRESSION, "text"),
    c.REVENUE: Column(c.REVENUE, "bigint"),
    "internal": Column("internal", "json"),
}


class TestQueries:
    def test_events_are_filtered_by_known_time_in_its_own_type(self) -> None:
        one = part("conversions", '"s"."t"', CONVERSIONS, PostgreSQL())
        assert one.schema.names == SCHEMAS["conversions"].names
        assert one.pull(WEEK.start, WEEK.end) == (
            'SELECT "event_time" AS "event_time", "known_time" AS "known_time", '
            '"impression_id" AS "impression_id", "revenue_micros" AS "revenue_micros" '
            'FROM "s"."t" '
            "WHERE \"known_time\" >= TIMESTAMPTZ '2026-01-19 00:00:00.000000+00' "
            "AND \"known_time\" < TIMESTAMPTZ '2026-01-26 00:00:00.000000+00' "
            'ORDER BY "known_time", "event_time", "impression_id" COLLATE "C", "revenue_micros"'
        )

    def test_a_snapshot_has_no_beginning(self) -> None:
        held = {name: CONVERSIONS[name] for name in (c.EVENT_TIME, c.KNOWN_TIME)}
        held |= {c.USER: Column(c.USER, "uuid"), "age": Column("age", "smallint")}
        one = part("users", '"s"."t"', held, PostgreSQL())
        query = one.pull(WEEK.start, WEEK.end)
        assert ">=" not in query
        assert 'PARTITION BY "user_id"::text COLLATE "C" ORDER BY "known_time" DESC' in query
        assert 'WHERE "known_time" < TIMESTAMPTZ \'2026-01-26' in query
        assert one.schema.names == [*SCHEMAS["users"].names, "age"]
        assert one.schema.field("age").type == pa.string()

    def test_a_missing_column_is_named(self) -> None:
        held = {name: column for name, column in CONVERSIONS.items() if name != c.REVENUE}
        with pytest.raises(SourceError, match="no column 'revenue_micros'"):
            part("conversions", "t", held, MySQL())


class TestFit:
    SCHEMA = pa.schema([("time", TIME), ("flag", pa.bool_()), ("place", pa.int32())])

    def batch(self, time: pa.Array, flag: list[object], place: list[int | None]) -> pa.RecordBatch:
        arrays = [pa.array(place, pa.int64()), pa.array(flag), time]
        return pa.RecordBatch.from_arrays(arrays, names=["place", "flag", "time"])

    @pytest.mark.parametrize(
        "type_", [pa.timestamp("us"), pa.timestamp("ns"), TIME, pa.timestamp("us", "Asia/Shanghai")]
    )
    def test_a_time_is_utc_microseconds(self, type_: pa.DataType) -> None:
        micros = pa.array([WEEK.start + 1, None])
        time = micros.cast(pa.timestamp("us")).cast(pa.timestamp(type_.unit))
        time = time.cast(pa.int64()).cast(type_)
        fitted = fit(self.batch(time, [1, None], [1, None]), self.SCHEMA)
        assert fitted.schema == self.SCHEMA
        assert fitted.to_pylist() == [
            {"time": datetime(2026, 1, 19, 0, 0, 0, 1, UTC), "flag": True, "place": 1},
            {"time": None, "flag": None, "place": None},
        ]

    def test_whole_numbers_are_micros_and_flags(self) -> None:
        time = pa.array([WEEK.start, WEEK.end])
        fitted = fit(self.batch(time, [0, 1], [1, 2]), self.SCHEMA)
        assert fitted["time"].cast(pa.int64()).to_pylist() == [WEEK.start, WEEK.end]
        assert fitted["flag"].to_pylist() == [False, True]

    @pytest.mark.parametrize(
        ("flag", "place", "message"),
        [
            (2, 1, "column 'flag' does not fit bool: value 2 is neither 0 nor 1"),
            (-1, 1, "column 'flag' does not fit bool: value -1 is neither 0 nor 1"),
            (1, 2**31, "column 'place' does not fit int32: .*2147483648"),
        ],
    )
    def test_a_value_that_does_not_fit_is_named(self, flag: int, place: int, message: str) -> None:
        with pytest.raises(pa.ArrowInvalid, match=message):
            fit(self.batch(pa.array([WEEK.start]), [flag], [place]), self.SCHEMA)

    def test_no_nanosecond_is_dropped(self) -> None:
        time = pa.array([1], pa.timestamp("ns"))
        with pytest.raises(pa.ArrowInvalid, match="column 'time' does not fit"):
            fit(self.batch(time, [1], [1]), self.SCHEMA)
