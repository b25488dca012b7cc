"""Events as the contract's tables, by hand."""

from pathlib import Path

import msgspec
import pyarrow as pa

from roiflow.data import event_lake, schemas
from roiflow.data.events import EVENTS, complete, new_rows, of_kind, shown, with_outcomes
from roiflow.data.weeks import MICROS_PER_WEEK, Week
from roiflow.stream import rows
from roiflow.stream.events import Event
from tests.unit.stream.streams import behaviour, click, conversion, slate


def test_a_store_takes_every_ad_of_a_slate_unclicked() -> None:
    events: list[Event] = [
        slate("r1", "u1", ["a1", "a2"], 5, 6),
        slate("r2", "u2", [], 5, 7),
        slate("r3", "u1", ["a3"], 5, 8),
        click("r1:2", 9),
        conversion("r1:2", 70, 10),
        behaviour("b1", "u3", "a9", 11),
    ]
    tables = new_rows(rows.table(events))
    shown_rows = tables["impressions"].to_pylist()
    assert tables["impressions"].schema == schemas.OPEN_IMPRESSIONS
    assert [row["impression_id"] for row in shown_rows] == ["r1:1", "r1:2", "r3:1"]
    assert [row["position"] for row in shown_rows] == [1, 2, 1]
    assert [row["slate_size"] for row in shown_rows] == [2, 2, 1]
    assert [row["ad_id"] for row in shown_rows] == ["a1", "a2", "a3"]
    assert [row["cost_micros"] for row in shown_rows] == [10, 20, 10]  # bid x 0.1
    assert [row["clicked"] for row in shown_rows] == [False] * 3
    assert tables["clicks"].schema == schemas.CLICKS
    assert tables["clicks"]["impression_id"].to_pylist() == ["r1:2"]
    assert tables["conversions"].schema == schemas.CONVERSIONS
    assert tables["conversions"]["revenue_micros"].to_pylist() == [70]
    assert tables["behaviours"].schema == schemas.BEHAVIOURS
    assert tables["behaviours"]["category_id"].to_pylist() == ["shoes"]
    assert {name: len(table) for name, table in new_rows(rows.table([])).items()} == dict.fromkeys(
        tables, 0
    )


def test_a_click_makes_clicked_its_time_and_the_cost() -> None:
    events: list[Event] = [
        slate("r1", "u1", ["a1", "a2", "a3"], 5, 20),
        click("r1:1", 9, 30),
        click("r1:2", 9, 10),  # it overtook its impression
        conversion("r1:1", 70, 10, known=40),
        conversion("r1:3", 70, 10, known=40),
        click("other:1", 9, 30),
    ]
    table = rows.table(events)
    found = with_outcomes(shown(table), of_kind(table, "click"), of_kind(table, "conversion"))
    assert found.schema == schemas.IMPRESSIONS
    assert found["clicked"].to_pylist() == [True, True, False]
    known = found["click_known_time"].cast(pa.int64()).to_pylist()
    assert known == [30, None, None]
    # bid x (0.1 + 0.5 clicked + 0.25 converted)
    assert found["cost_micros"].to_pylist() == [85, 120, 105]


def test_terms_that_change_between_a_slate_and_its_click_change_no_cost() -> None:
    """An ad pays the bid of its slate, 100 before the change and 300 after, whenever clicked."""
    before = slate("r1", "u1", ["a1"], 5)
    after = msgspec.structs.replace(
        slate("r2", "u1", ["a1"], 7), ads=[msgspec.structs.replace(before.ads[0], bid_micros=300)]
    )
    table = rows.table([before, after, click("r1:1", 9), click("r2:1", 9)])
    found = with_outcomes(shown(table), of_kind(table, "click"), of_kind(table, "conversion"))
    assert found["bid_micros"].to_pylist() == [100, 300]
    assert found["cost_micros"].to_pylist() == [60, 180]  # bid x (0.1 + 0.5)


def test_columns_that_are_not_there_are_null() -> None:
    table = rows.table([behaviour("b1", "u3", "a9", 11)])
    assert complete(table.drop_columns(["dwell_ms"]), EVENTS) == table


def test_the_lake_keeps_events_by_week_and_number(tmp_path: Path) -> None:
    week = Week.parse("2026-W01")
    for number in (10, 9, 2):
        events = [
            behaviour(f"{number}-{n}", "u", "a", week.start + n * MICROS_PER_WEEK) for n in (0, 1)
        ]
        event_lake.write(tmp_path, number, rows.table(events))
    parts = event_lake.parts(tmp_path)
    assert [(part.number, part.week.number) for part in parts] == [
        (2, 1), (2, 2), (9, 1), (9, 2), (10, 1), (10, 2),
    ]  # fmt: skip
    assert parts[3].read()["event_id"].to_pylist() == ["9-1"]
    before = [part.path.read_bytes() for part in parts]
    for part in parts[::2]:
        both = pa.concat_tables([part.read(), parts[parts.index(part) + 1].read()])
        event_lake.write(tmp_path, part.number, both)
    assert [part.path.read_bytes() for part in event_lake.parts(tmp_path)] == before
