"""One contract over PostgreSQL and MariaDB: rows whose answer is known beforehand."""

import json
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic import SecretStr

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources import sql, sql_clients
from roiflow.data.sources.files import Files
from roiflow.data.sources.protocol import Tables
from roiflow.data.sources.sql import Sql
from roiflow.data.validate import RawWindow, validate
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_WEEK, Week
from roiflow.errors import RunError, SourceError, UnknownWeek
from roiflow.params import SqlParams, SqlTables
from roiflow.weekly import run
from roiflow.weekly.checkout import checkout_of, prepare
from tests import needs
from tests.clones import clone_tree
from tests.databases import TOKEN, Database, free_port
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND, WEEKS, bounds

ROOT = Path(__file__).parents[2]
SERVERS = {"postgresql": "postgres", "mysql": "mysql"}
"""The fixture of each dialect's server."""
NAMES = {name: name for name in SCHEMAS}
AWKWARD = ["é漢😀", "'; DROP TABLE impressions; --", "a\\'b", "%s {} $1 ?", 'q"`', "A", "a", "a "]


def params(schema: str, names: dict[str, str] | None = None) -> SqlParams:
    return SqlParams(weeks=2, schema=schema, tables=SqlTables(**(names or NAMES)))


@dataclass
class Shop:
    """A schema of a server with the contract's tables."""

    database: Database
    schema: str
    names: dict[str, str] = field(default_factory=lambda: dict(NAMES))

    @property
    def source(self) -> Sql:
        return Sql(params(self.schema, self.names), SecretStr(self.database.uri))

    def create(
        self,
        table: str,
        rows: list[dict[str, Any]],
        fields: pa.Schema | None = None,
        types: dict[str, str] | None = None,
    ) -> None:
        place = (self.schema, self.names[table])
        self.database.create(place, fields or worlds.schema(table), rows, types)

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        place = (self.schema, self.names[table])
        self.database.execute(*self.database.inserts(place, worlds.schema(table), rows))

    def fill(self, **instead: list[dict[str, Any]]) -> "Shop":
        """Every table: the rows given, else those of the small world's two weeks."""
        for name in SCHEMAS:
            usual = [row for week in WEEKS for row in worlds.week_rows(name, week)]
            self.create(name, instead.get(name, usual))
        return self

    def pull(self, week: Week = SECOND, as_of: int | None = None) -> Tables:
        return self.source.pull(week, week.end if as_of is None else as_of)


@pytest.fixture(scope="module", params=SERVERS)
def database(request: pytest.FixtureRequest) -> Database:
    found: Database = request.getfixturevalue(SERVERS[request.param])
    return found


def of(dialect: str) -> pytest.MarkDecorator:
    """Marks what only one kind of server has."""
    return pytest.mark.parametrize("database", [dialect], indirect=True)


@pytest.fixture
def shop(database: Database) -> Shop:
    return Shop(database, database.new_schema())


def ids(rows: pa.Table, name: str = c.IMPRESSION) -> list[str]:
    return rows[name].to_pylist()


def at(*times: int) -> list[dict[str, Any]]:
    """Impressions known at these times, named by them."""
    return [
        worlds.impression(SECOND, number, known_time=time, event_time=time, impression_id=str(time))
        for number, time in enumerate(times)
    ]


class TestEveryServer:
    def test_a_pull_equals_that_of_files_with_the_same_rows(
        self, shop: Shop, tmp_path: Path
    ) -> None:
        shop.fill()
        files = Files(str(worlds.write(tmp_path)))
        for week in WEEKS:
            pulled, expected = shop.pull(week), files.pull(week, week.end)
            assert list(pulled) == list(expected)
            for name, rows in pulled.items():
                assert rows.schema.equals(worlds.schema(name, nullable=True)), name
                assert rows.to_pylist() == expected[name].to_pylist(), name
                lake.write(tmp_path / "raw", name, week, rows)
        parts = list(validate(RawWindow(tmp_path / "raw", "files"), WEEKS, SECOND.end, bounds(0.0)))
        assert sum(part.clean.num_rows for part in parts) == 2 * (10 + 6 + 4 + 2 + 3)

    def test_a_week_has_its_first_microsecond_and_not_the_next_weeks(self, shop: Shop) -> None:
        start, end = SECOND.start, SECOND.end
        shop.fill(impressions=at(start - 1, start, start + 1, end - 1, end, end + 1))
        assert ids(shop.pull()["impressions"]) == [str(start), str(start + 1), str(end - 1)]

    def test_nothing_known_at_or_after_as_of_comes(self, shop: Shop) -> None:
        cut = SECOND.start + MICROS_PER_DAY
        shop.fill(
            impressions=at(cut - 1, cut, cut + 1),
            ads=[
                worlds.ad(SECOND, 0, known_time=cut - 1, price_micros=1),
                worlds.ad(SECOND, 0, known_time=cut, price_micros=2),
                worlds.ad(SECOND, 1, known_time=cut),
            ],
        )
        tables = shop.pull(as_of=cut)
        assert ids(tables["impressions"]) == [str(cut - 1)]
        assert [(row[c.AD], row[c.PRICE]) for row in tables["ads"].to_pylist()] == [("a0", 1)]
        assert shop.pull(as_of=SECOND.start)["impressions"].num_rows == 0

    def test_late_and_back_filled_rows_come_when_they_became_known(self, shop: Shop) -> None:
        known = SECOND.start + 5
        late = worlds.impression(SECOND, 0, event_time=SECOND.start - 1, known_time=known)
        old = worlds.impression(SECOND, 1, event_time=Week(2020, 1).start, known_time=known + 1)
        shop.fill(impressions=[old, late])
        rows = shop.pull()["impressions"].to_pylist()
        assert [row[c.IMPRESSION] for row in rows] == ["2026-W04-i0", "2026-W04-i1"]
        assert rows[1][c.EVENT_TIME].isoformat() == "2019-12-30T00:00:00+00:00"

    def test_the_newest_row_of_an_id_that_was_known_is_taken(self, shop: Shop) -> None:
        def row(name: str, known: int, event: int, age: str) -> dict[str, Any]:
            return worlds.user(SECOND, 0, user_id=name, known_time=known, event_time=event, age=age)

        start, end = SECOND.start, SECOND.end
        shop.fill(
            users=[
                row("changed", FIRST.start, FIRST.start, "old"),
                row("changed", start, start, "new"),
                row("changed", end, end, "too late"),
                row("unchanged", FIRST.start - MICROS_PER_WEEK, FIRST.start - MICROS_PER_WEEK, "x"),
                row("tied", start, start - 1, "earlier event"),
                row("tied", start, start, "later event"),
                row("TIED", start, start, "another id"),
                row("to come", end, start, "y"),
            ]
        )
        found = {row[c.USER]: row["age"] for row in shop.pull()["users"].to_pylist()}
        assert found == {
            "changed": "new",
            "unchanged": "x",
            "tied": "later event",
            "TIED": "another id",
        }
        assert ids(shop.pull(FIRST)["users"], c.USER) == ["changed", "unchanged"]

    def test_no_order_of_storage_shows(self, shop: Shop) -> None:
        same = [worlds.behaviour(SECOND, 0, ad_id=f"a{number}") for number in range(20)]
        random.Random(1).shuffle(same)
        shop.fill(behaviours=same)
        assert ids(shop.pull()["behaviours"], c.AD) == sorted(row[c.AD] for row in same)

    def test_null_text_and_large_money_come_as_they_are(self, shop: Shop) -> None:
        start = SECOND.start
        shop.fill(
            impressions=[
                worlds.impression(
                    SECOND,
                    number,
                    known_time=start + number,
                    user_id=name,
                    propensity=None if number else 0.1,
                    bid_micros=2**31 + number,
                    cost_micros=2**62 + 1,
                )
                for number, name in enumerate(AWKWARD)
            ],
            ads=[worlds.ad(SECOND, 0, ad_id=name) for name in AWKWARD],
        )
        tables = shop.pull()
        rows = tables["impressions"].to_pylist()
        assert [row[c.USER] for row in rows] == AWKWARD
        assert [row[c.PROPENSITY] for row in rows] == [0.1] + [None] * (len(AWKWARD) - 1)
        assert [row[c.BID] for row in rows] == [2**31 + number for number in range(len(rows))]
        assert {row[c.COST] for row in rows} == {2**62 + 1}
        assert ids(tables["ads"], c.AD) == sorted(AWKWARD, key=str.encode)
        assert tables["ads"][c.DAILY_BUDGET].null_count == len(AWKWARD)

    def test_a_null_where_none_may_be_is_left_to_validation(
        self, shop: Shop, tmp_path: Path
    ) -> None:
        shop.fill(impressions=[worlds.impression(SECOND, 0, user_id=None)])
        for name, rows in shop.pull().items():
            lake.write(tmp_path, name, SECOND, rows)
        parts = validate(RawWindow(tmp_path, "files"), [SECOND], SECOND.end, bounds(1.0))
        found = next(part for part in parts if part.table == "impressions")
        assert found.reasons == {"null": 1}

    def test_further_columns_of_users_are_profile_attributes_as_text(self, shop: Shop) -> None:
        more = [("floor", pa.int64()), ("share", pa.float64()), ("home town", pa.string())]
        more += [("since", TIME)]
        fields = pa.schema([*worlds.schema("users"), *(pa.field(*one) for one in more)])
        shop.fill()
        shop.names["users"] = "people"
        rows: list[dict[str, Any]] = [
            {"floor": 3, "share": 0.25, "home town": "Köln", "since": 0},
            {"age": None},
        ]
        shop.create("users", [worlds.user(SECOND, n, **row) for n, row in enumerate(rows)], fields)
        pulled = shop.pull()["users"]
        assert pulled.schema.names == [*SCHEMAS["users"].names, "age", *(one[0] for one in more)]
        assert set(pulled.schema.types[3:]) == {pa.string()}
        *texts, since = list(pulled.to_pylist()[0].values())[3:]
        assert texts == ["30-39", "3", "0.25", "Köln"]
        assert since.startswith("1970-01-01 00:00:00")  # UTC, wherever the server is
        assert list(pulled.to_pylist()[1].values())[3:] == [None] * 5

    def test_ids_may_be_numbers(self, shop: Shop) -> None:
        shop.fill()
        shop.names["conversions"] = "sales"
        rows = [worlds.conversion(SECOND, 0, impression_id=2**40)]
        shop.create("conversions", rows, types={c.IMPRESSION: "bigint"})
        assert ids(shop.pull()["conversions"]) == [str(2**40)]

    def test_a_column_that_may_be_null_may_be_missing(self, shop: Shop) -> None:
        shop.fill()
        assert shop.pull()["impressions"][c.PROPENSITY].null_count == 0
        shop.names["impressions"] = "without"
        whole = worlds.schema("impressions")
        less = pa.schema([one for one in whole if not one.nullable])
        shop.create("impressions", worlds.week_rows("impressions", SECOND), less)
        found = shop.pull()["impressions"]
        assert found.column_names == whole.names
        assert found[c.PROPENSITY].null_count == found[c.CLICK_KNOWN_TIME].null_count == 10

    def test_an_empty_table_is_empty(self, shop: Shop) -> None:
        shop.fill(conversions=[], behaviours=[], ads=[], users=[])
        tables = shop.pull()
        assert {name: rows.num_rows for name, rows in tables.items() if rows.num_rows} == {
            "impressions": 10
        }
        assert tables["users"].schema.equals(worlds.schema("users", nullable=True))

    def test_a_week_that_is_not_there_is_told_with_those_that_are(self, shop: Shop) -> None:
        shop.fill()
        with pytest.raises(UnknownWeek, match=r"2026-W05; weeks held: 2026-W03 to 2026-W04$"):
            shop.pull(Week(2026, 5))
        empty = Shop(shop.database, shop.database.new_schema()).fill(impressions=[])
        with pytest.raises(UnknownWeek, match=r"2026-W04; weeks held: none$"):
            empty.pull()

    def test_a_missing_table_is_named_with_those_that_are_there(self, shop: Shop) -> None:
        shop.fill()
        shop.names["ads"] = "adds"
        with pytest.raises(SourceError, match=rf"{shop.schema}\.adds: no such table.*ads, behav"):
            shop.pull()

    @pytest.mark.parametrize("column", [c.KNOWN_TIME, c.REVENUE])
    def test_a_missing_column_is_named_with_its_table(self, shop: Shop, column: str) -> None:
        shop.fill()
        shop.names["conversions"] = "sales"
        fields = pa.schema([one for one in SCHEMAS["conversions"] if one.name != column])
        shop.create("conversions", [], fields)
        with pytest.raises(SourceError, match=rf"{shop.schema}\.sales: no column '{column}'"):
            shop.pull()

    @pytest.mark.parametrize(
        ("column", "type_"),
        [
            (c.BID, "varchar(20)"),
            (c.BID, "double precision"),
            (c.KNOWN_TIME, "date"),
            (c.EVENT_TIME, "bigint"),
            (c.CLICKED, "bigint"),
            (c.USER, "double precision"),
            (c.PROPENSITY, "varchar(9)"),
        ],
    )
    def test_a_type_that_does_not_fit_is_named(self, shop: Shop, column: str, type_: str) -> None:
        shop.fill()
        shop.names["impressions"] = "odd"
        shop.create("impressions", [], types={column: type_})
        message = rf"{shop.schema}\.odd: column '{column}' is of type .*, expected "
        with pytest.raises(SourceError, match=message):
            shop.pull()

    def test_a_value_that_does_not_fit_is_named(self, shop: Shop) -> None:
        shop.fill()
        shop.names["impressions"] = "wide"
        rows = [worlds.impression(SECOND, 0, position=2**40)]
        shop.create("impressions", rows, types={c.POSITION: "bigint"})
        with pytest.raises(SourceError, match=rf"wide: column 'position' .*{2**40}"):
            shop.pull()

    def test_names_may_hold_anything(self, database: Database) -> None:
        odd = "s'h\"o`p; DROP TABLE users; --é"
        names = {name: f"{name[:3]} '\"`;\\ %s" for name in SCHEMAS}
        shop = Shop(database, database.new_schema(odd), names).fill()
        assert shop.pull()["impressions"].num_rows == 10
        assert "impressions" in shop.source.pull(FIRST, FIRST.end)

    def test_only_rows_of_the_week_cross_the_wire(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weeks = [SECOND.plus(back) for back in range(-9, 1)]
        shop.fill(
            **{
                name: [row for week in weeks for row in worlds.week_rows(name, week)]
                for name in SCHEMAS
            }
        )
        crossed: list[int] = []
        real = sql_clients.connect

        @contextmanager
        def counted(*arguments: Any) -> Iterator[Any]:
            def count(query: str) -> Iterator[pa.RecordBatch]:
                for batch in read(query):
                    if "information_schema" not in query:
                        crossed.append(batch.num_rows)
                    yield batch

            with real(*arguments) as read:
                yield count

        monkeypatch.setattr(sql, "connect", counted)
        shop.pull()
        # Of ten weeks one, of each ad's and user's ten rows one, and one to see that there are any.
        assert sum(crossed) == 10 + 6 + 4 + 2 + 3 + 1

    def test_the_state_changes_with_what_a_pull_would_see(self, shop: Shop) -> None:
        shop.fill()
        before = shop.source.state([SECOND])
        assert shop.source.state([SECOND]) == before
        shop.add("impressions", *at(SECOND.end), *at(SECOND.start - 1))
        shop.add("users", worlds.user(SECOND, 9, known_time=SECOND.end))
        assert shop.source.state([SECOND]) == before
        assert shop.source.state(WEEKS) != before
        for table, row in (
            ("impressions", at(SECOND.start)[0]),
            ("ads", worlds.ad(FIRST, 0)),
            ("users", worlds.user(SECOND, 0, known_time=SECOND.end - 1)),
        ):
            shop.add(table, row)
            after = shop.source.state([SECOND])
            assert after != before, table
            before = after

    @pytest.mark.parametrize(
        ("table", "column", "value"),
        [
            ("conversions", c.REVENUE, "1"),
            ("behaviours", c.DWELL_MS, "NULL"),
            ("impressions", c.PROPENSITY, "0.25"),
            ("impressions", c.CLICKED, "FALSE"),
            ("users", "age", "'É, \"40\"'"),
            ("ads", c.CREATED_AT, "known_time - INTERVAL '1' SECOND"),
        ],
    )
    def test_a_row_that_is_altered_in_place_counts(
        self, shop: Shop, table: str, column: str, value: str
    ) -> None:
        shop.fill()
        before = shop.source.state([SECOND])
        place = ".".join(map(shop.database.quoted, (shop.schema, table)))
        shop.database.execute(f"UPDATE {place} SET {column} = {value}")
        after = shop.source.state([SECOND])
        assert after != before
        assert shop.source.state([SECOND]) == after

    def test_the_order_of_rows_does_not_count(self, shop: Shop) -> None:
        shop.fill()
        before = shop.source.state(WEEKS)
        place = ".".join(map(shop.database.quoted, (shop.schema, "conversions")))
        usual = [row for week in WEEKS for row in worlds.week_rows("conversions", week)]
        shop.database.execute(f"DELETE FROM {place}")
        shop.add("conversions", *usual[::-1])
        assert shop.source.state(WEEKS) == before

    def test_a_wrong_password_is_not_repeated(self, shop: Shop, full: bool) -> None:
        if shop.database.dialect == "mysql":
            needs.full_size(full, "the MySQL driver tries for 30 seconds")
        wrong = "wr0ng-passw0rd"
        place, _, rest = shop.database.uri.partition("://")
        uri = f"{place}://{rest.partition(':')[0]}:{wrong}@{rest.rpartition('@')[2]}"
        source = Sql(params(shop.schema), SecretStr(uri))
        with pytest.raises(SourceError, match=r"source sql: .*:\d+/\w+: ") as caught:
            source.pull(SECOND, SECOND.end)
        said = "".join(traceback.format_exception(caught.value)) + repr(vars(source))
        assert wrong not in said

    def test_a_server_that_is_not_there_is_named_without_the_password(self, shop: Shop) -> None:
        port = free_port()
        uri = f"{shop.database.dialect}://reader:hunter2@127.0.0.1:{port}/ads"
        source = Sql(params(shop.schema), SecretStr(uri))
        with pytest.raises(SourceError, match=rf"127\.0\.0\.1:{port}/ads: .*refused") as caught:
            source.pull(SECOND, SECOND.end)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


class TestTimes:
    """Each server's other column types for times; the session's zone is Shanghai's."""

    def shop(self, database: Database, types: str, *literals: str) -> Shop:
        shop = Shop(database, database.new_schema()).fill()
        shop.names["conversions"] = "sales"
        times = {c.EVENT_TIME: types, c.KNOWN_TIME: types}
        shop.create("conversions", [], types=times)
        place = ".".join(map(database.quoted, (shop.schema, "sales")))
        for number, text in enumerate(literals):
            database.execute(f"INSERT INTO {place} VALUES ({text}, {text}, 'i{number}', 1)")
        return shop

    @of("postgresql")
    def test_timestamptz_written_in_another_zone(self, database: Database) -> None:
        shop = self.shop(
            database,
            "timestamptz",
            "'2026-01-19 07:59:59.999999+08'",
            "'2026-01-19 08:00:00+08'",
            "'2026-01-18 19:00:00.000001-05'",
            "'2026-01-19 08:00:00.000002'",
        )
        assert shop.pull()["conversions"][c.KNOWN_TIME].cast(pa.int64()).to_pylist() == [
            SECOND.start,
            SECOND.start + 1,
            SECOND.start + 2,
        ]

    def test_a_time_without_zone_is_utc(self, database: Database) -> None:
        type_ = "datetime(6)" if database.dialect == "mysql" else "timestamp"
        shop = self.shop(
            database,
            type_,
            "'2026-01-18 23:59:59.999999'",
            "'2026-01-19 00:00:00'",
            "'2026-01-25 23:59:59.999999'",
            "'2026-01-26 00:00:00'",
        )
        pulled = shop.pull()["conversions"]
        assert ids(pulled) == ["i1", "i2"]
        known = pulled[c.KNOWN_TIME].cast(pa.int64()).to_pylist()
        assert known == [SECOND.start, SECOND.end - 1]
        state = shop.source.state([SECOND])
        assert f'"conversions": [2, {SECOND.end - 1}, "' in state

    @of("mysql")
    def test_mysqls_timestamp_is_an_instant(self, database: Database) -> None:
        shop = self.shop(
            database,
            "timestamp(6)",
            "'2026-01-19 07:59:59.999999'",  # the session that writes is at +08:00
            "'2026-01-19 08:00:00'",
            "'2026-01-26 07:59:59.999999'",
            "'2026-01-26 08:00:00'",
        )
        known = shop.pull()["conversions"][c.KNOWN_TIME].cast(pa.int64()).to_pylist()
        assert known == [SECOND.start, SECOND.end - 1]

    @of("mysql")
    def test_mysqls_flags_are_0_or_1(self, database: Database) -> None:
        shop = Shop(database, database.new_schema()).fill()
        shop.add("impressions", worlds.impression(SECOND, 99, clicked=2))
        with pytest.raises(SourceError, match=r"column 'clicked' .*value 2 is neither 0 nor 1"):
            shop.pull()


class TestRun:
    """A weekly run's ingest on the database, its URI given by the caller alone."""

    @pytest.fixture(autouse=True)
    def no_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ROIFLOW_SQL", raising=False)

    def files_with(self, folder: Path, secret: str) -> list[Path]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return [path for path in files if secret.encode() in path.read_bytes()]

    def test_the_secret_is_in_no_file_and_a_new_row_is_pulled(
        self, postgres: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shop = Shop(postgres, postgres.new_schema()).fill()
        clone, home = tmp_path / "clone", tmp_path / "home"
        said: list[str] = []
        clone_tree(clone)
        monkeypatch.chdir(clone)
        uri = SecretStr(postgres.uri)

        def once() -> tuple[str, int]:
            values: dict[str, str | float] = {"ingest.sql.weeks": 2}
            values["ingest.sql.schema"] = shop.schema
            checkout = prepare(clone, home, "sql", str(SECOND), values=values)
            run.repro(checkout, home, run.READERS, said.append, sql=uri)
            impressions = lake.read_weeks(checkout / "data" / "raw", "impressions", WEEKS)
            return (checkout / "data" / "held.json").read_text(), impressions.num_rows

        first, rows = once()
        assert rows == 20
        assert '"source": "sql"' in first
        again, _ = once()
        assert again == first
        assert any("didn't change" in line for line in said)
        shop.add("impressions", *at(SECOND.start))
        changed, rows = once()
        assert (changed != first, rows) == (True, 21)
        assert self.files_with(tmp_path, TOKEN) == []
        assert TOKEN not in "\n".join(said)

        other = TOKEN[::-1]
        wrong = SecretStr(postgres.uri.replace(TOKEN, other))
        checkout = prepare(clone, home, "sql", str(SECOND))
        with pytest.raises(RunError, match="authentication failed") as caught:
            run.repro(checkout, home, run.READERS, said.append, sql=wrong)
        assert other not in str(caught.value) + "\n".join(said)
        assert self.files_with(tmp_path, other) == []
        with pytest.raises(RunError, match="set the environment variable ROIFLOW_SQL"):
            run.repro(checkout, home, ["look"], said.append)

    @pytest.mark.proof
    def test_airflow_hands_over_a_connection_and_logs_no_secret(
        self, postgres: Database, tmp_path: Path, full: bool
    ) -> None:
        needs.full_size(full, "about a minute of Airflow")
        schema = postgres.new_schema()
        Shop(postgres, schema).fill(users=[worlds.user(SECOND, 0, user_id=None)])
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        content["ingest"]["sql"] |= {"weeks": 2, "schema": schema}
        clone, home = tmp_path / "clone", tmp_path / "home"
        clone_tree(clone, content)
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW_CONN_ROIFLOW_SQL": postgres.uri,
            "AIRFLOW__CORE__DAGS_FOLDER": str(clone / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "PYTHONWARNINGS": "ignore",
            "ROIFLOW_HOME": str(home),
        }

        def airflow(*arguments: str) -> str:
            command = [sys.executable, "-m", "airflow", *arguments]
            done = subprocess.run(
                command, env=variables, capture_output=True, text=True, check=False
            )
            return done.stdout + done.stderr

        airflow("db", "migrate")
        conf = json.dumps({"source": "sql", "week": str(SECOND)})
        said = airflow("dags", "test", "weekly_training", "--conf", conf)
        # The second stage stops the run, at the user without an id.
        assert "QuarantineLimit" in said
        raw = checkout_of(home, "sql", str(SECOND)) / "data" / "raw"
        assert lake.read_weeks(raw, "impressions", WEEKS).num_rows == 20
        assert TOKEN not in said
        assert self.files_with(tmp_path, TOKEN) == []
