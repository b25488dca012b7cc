"""A log of hand-written tables, whose every number is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow.calibration.logs import LEAST_SHOWN, Log, of_tables, read_lake
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.errors import SourceError, UnknownWeek

WEEK = Week.parse("2026-W01")
MAY_BE_NULL = ("click_known_time", "ends_at")
ZERO = {pa.string(): "x", pa.int32(): 1, pa.int64(): 0, pa.float64(): 1.0, pa.bool_(): False}


def table(name: str, *rows: dict[str, object]) -> pa.Table:
    """Rows of the contract; `at` is hours after the week's start, columns not named are zero."""
    schema = SCHEMAS[name]
    columns: dict[str, list[object]] = {field.name: [] for field in schema}
    for row in rows:
        time = WEEK.start + round(float(str(row["at"])) * MICROS_PER_HOUR)
        times = dict.fromkeys(("event_time", "known_time", "created_at"), time)
        for field in schema:
            columns[field.name].append(row.get(field.name, times.get(field.name, None)))
            if columns[field.name][-1] is None and field.name not in MAY_BE_NULL:
                columns[field.name][-1] = ZERO[field.type]
    return pa.table(columns, schema=schema)


def shown(at: float, user: str, ad: str, position: int, clicked: bool = False) -> dict[str, object]:
    """One impression, named by user, hour and position."""
    name = f"{user}{at:g}/{position}"
    named = {"user_id": user, "ad_id": ad, "position": position, "clicked": clicked}
    return {"at": at, "impression_id": name, **named}


@pytest.fixture
def tables() -> Tables:
    """Two slates of two by u and v, three behaviours, one conversion with its return."""
    return {
        "impressions": table(
            "impressions",
            shown(1, "u", "a", 1, clicked=True),
            shown(1, "u", "b", 2),
            shown(170, "v", "b", 1),
            shown(170, "v", "c", 2, clicked=True),
        ),
        "behaviours": table(
            "behaviours",
            {"at": 0.5, "user_id": "v", "ad_id": "c"},
            {"at": 2, "user_id": "u", "ad_id": "c"},
            {"at": 3, "user_id": "w", "ad_id": "a"},
        ),
        "conversions": table(
            "conversions",
            {"at": 171, "impression_id": "u1/1", "revenue_micros": 5_000_000},
            {"at": 172, "impression_id": "u1/1", "revenue_micros": -5_000_000},
            {"at": 172, "impression_id": "unknown", "revenue_micros": 9_000_000},
        ),
        "ads": table(
            "ads",
            {"at": 0, "ad_id": "a", "price_micros": 2_000_000},
            {"at": 0, "ad_id": "b", "price_micros": 3_000_000},
            {"at": 0, "ad_id": "never shown", "price_micros": 4_000_000},
            {"at": 168, "ad_id": "a", "price_micros": 7_000_000},
        ),
    }


def hours(log: Log) -> list[float]:
    return (log.time / MICROS_PER_HOUR).tolist()


def test_every_number_of_a_log(tables: Tables) -> None:
    log = of_tables("hand", tables, WEEK, days=14)
    assert hours(log) == [0.5, 1, 2, 3, 170]
    v, u = log.user[0], log.user[1]
    assert log.user.tolist() == [v, u, u, 3 - u - v, v]  # w is the third
    assert log.requests == 2
    assert sorted(log.items) == [1, 2]
    assert log.by_position.tolist() == [[2, 2], [1, 1]]
    # The conversion became known in the second week, but its impression is of the first.
    assert log.by_week.tolist() == [[2, 2], [1, 1], [1, 0]]
    assert sorted(log.price) == [2.0, 3.0]  # c has none, and the first one known counts
    assert log.revenue.tolist() == [5.0]


def test_a_conversion_that_brings_nothing_is_one(tables: Tables) -> None:
    """It counts in its week, and has no revenue whose logarithm could be compared."""
    free = table("conversions", {"at": 171, "impression_id": "u1/1", "revenue_micros": 0})
    log = of_tables("hand", tables | {"conversions": free}, WEEK, days=14)
    assert log.by_week[2].tolist() == [1, 0]
    assert log.revenue.tolist() == []
    assert "conversion" not in log.lacks
    assert log.lacks["revenue"] == "no conversion brings anything"


def test_a_log_is_cut_to_days_and_positions(tables: Tables) -> None:
    log = of_tables("hand", tables, WEEK, days=1, positions=1)
    assert hours(log) == [0.5, 1, 2, 3]
    assert log.by_position.tolist() == [[1], [1]]
    assert log.by_week.tolist() == [[1], [1], [1]]
    assert log.lacks["position"] == "slates of one"


def test_what_is_not_there_is_named(tables: Tables) -> None:
    log = of_tables("hand", tables, WEEK, days=14)
    assert log.lacks == {
        "position": f"fewer than {LEAST_SHOWN} slates",
        "revenue": "every conversion brings the same",
    }
    bare = {name: rows.slice(0, 2 if name == "impressions" else 0) for name, rows in tables.items()}
    assert of_tables("bare", bare, WEEK, days=7).lacks == {
        "gap": "no user comes twice",
        "popularity": "no behaviours",
        "position": f"fewer than {LEAST_SHOWN} slates",
        "price": "no prices",
        "conversion": "no conversions",
        "revenue": "no conversions",
    }
    with pytest.raises(SourceError, match="none: no impressions in 7 days from 2026-W02 on"):
        of_tables("none", bare, WEEK.plus(1), days=7)


def write(folder: Path, week: Week, tables: Tables) -> None:
    for name, rows in tables.items():
        lake.write(folder, name, week, rows)


def test_a_folder_of_weeks_is_one_log(tables: Tables, tmp_path: Path) -> None:
    write(tmp_path, WEEK, {name: rows.slice(0, 2) for name, rows in tables.items()})
    write(tmp_path, WEEK.plus(1), {name: rows.slice(2) for name, rows in tables.items()})
    read, made = read_lake(tmp_path), of_tables("hand", tables, WEEK, days=14)
    assert read.name == str(tmp_path)
    assert read.days == 14
    for name in ("user", "time", "by_position", "by_week", "price", "revenue"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))


def test_a_folder_without_a_week_is_refused(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no impressions/week=YYYY-Www/part-0\.parquet"):
        read_lake(tmp_path)
    write(tmp_path, WEEK, tables)
    write(tmp_path, WEEK.plus(2), tables)
    with pytest.raises(UnknownWeek, match=r"week=2026-W02.*weeks held: 2026-W01, 2026-W03"):
        read_lake(tmp_path)


def test_time_is_since_the_first_day(tables: Tables) -> None:
    log = of_tables("hand", tables, WEEK, days=14)
    assert log.time.max() < 14 * MICROS_PER_DAY
    assert (np.diff(log.time) >= 0).all()
