"""A week of impressions out of PostgreSQL: Arrow batches against fetched rows."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import SecretStr

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.sql import Sql
from roiflow.data.weeks import MICROS_PER_WEEK, Week
from roiflow.params import SqlParams, SqlTables
from tests.databases import Database, postgresql
from tests.unit.data import worlds

WEEK = Week(2026, 4)
WEEKS_HELD = 4
TABLE = "public.impressions"


def impressions(count: int) -> pa.Table:
    """`count` rows of each of four weeks, in the order in which they became known."""
    rng = np.random.default_rng(7)
    total = count * WEEKS_HELD
    start = WEEK.start - (WEEKS_HELD - 1) * MICROS_PER_WEEK
    known = start + np.arange(total) * (MICROS_PER_WEEK // count)

    def ids(prefix: str, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pa.Array:
        return pa.array(np.char.add(prefix, numbers.astype(str)))

    values = {
        c.EVENT_TIME: pa.array(known - 1_000_000),
        c.KNOWN_TIME: pa.array(known),
        c.REQUEST: ids("r", np.arange(total) // 3),
        c.IMPRESSION: ids("i", np.arange(total)),
        c.USER: ids("u", rng.integers(0, 100_000, total)),
        c.AD: ids("a", rng.integers(0, 1_000, total)),
        c.POSITION: pa.array(np.arange(total) % 3 + 1),
        c.SLATE_SIZE: pa.array(np.full(total, 3)),
        c.BID: pa.array(rng.integers(0, 2**40, total)),
        c.COST: pa.array(rng.integers(0, 2**40, total)),
        c.PROPENSITY: pa.array(rng.random(total)),
        c.CLICKED: pa.array(rng.random(total) < 0.04),
    }
    constant = pa.array(["feed"]).take(pa.array(np.zeros(total, np.int64)))
    fields = [field for field in SCHEMAS["impressions"] if field.name != c.CLICK_KNOWN_TIME]
    return pa.table(
        [values.get(field.name, constant).cast(field.type) for field in fields],
        schema=pa.schema(fields),
    )


@pytest.fixture(scope="module")
def count(full: bool) -> int:
    return 1_000_000 if full else 200_000


@pytest.fixture(scope="module")
def database(count: int) -> Iterator[Database]:
    from adbc_driver_postgresql import dbapi

    with postgresql() as found:
        for name in SCHEMAS:
            if name != "impressions":
                found.create(("public", name), worlds.schema(name), [])
        with closing(dbapi.connect(found.uri)) as connection, closing(connection.cursor()) as one:
            one.adbc_ingest("impressions", impressions(count), db_schema_name="public")
            connection.commit()
        found.execute(f"CREATE INDEX ON {TABLE} (known_time)", f"ANALYZE {TABLE}")
        yield found


def rows_fetched(uri: str) -> pd.DataFrame:
    """The driver's rows as Python tuples, in no order: the least that a row interface can do."""
    from adbc_driver_postgresql import dbapi

    with closing(dbapi.connect(uri)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(
            f"SELECT * FROM {TABLE} WHERE known_time >= TIMESTAMPTZ '2026-01-19 00:00:00+00' "
            "AND known_time < TIMESTAMPTZ '2026-01-26 00:00:00+00'"
        )
        names = [column[0] for column in cursor.description or ()]
        return pd.DataFrame.from_records(cursor.fetchall(), columns=names)


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_arrow_against_rows(
    database: Database, count: int, record: Callable[[str, str], None]
) -> None:
    names = SqlTables(**{name: name for name in SCHEMAS})
    source = Sql(SqlParams(weeks=1, schema="public", tables=names), SecretStr(database.uri))
    arrow, rows = [], []
    for _ in range(2):
        started = time.perf_counter()
        pulled = source.pull(WEEK, WEEK.end)["impressions"]
        arrow.append(time.perf_counter() - started)
        started = time.perf_counter()
        fetched = rows_fetched(database.uri)
        rows.append(time.perf_counter() - started)
    assert pulled.num_rows == len(fetched) == count
    assert pulled[c.BID].to_numpy().sum() == fetched[c.BID].sum()
    ratio = min(rows) / min(arrow)
    record(
        f"PostgreSQL, a week of {count:,} impressions of {count * WEEKS_HELD:,}, ordered, as Arrow",
        f"{min(arrow):.2f} s, {ratio:.1f} times as fast as rows fetched into pandas",
    )
    assert ratio > 2
