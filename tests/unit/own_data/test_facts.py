"""What is counted of the small world of data/worlds.py, whose numbers are known."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.files import Files
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ContractError, SourceError
from roiflow.own_data.facts import Amounts, Day, Facts, Join, Looked, look, window_there
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND, WEEKS, bounds


def facts(root: Path, limit: float = 1.0) -> Facts:
    return look(Looked(Files(str(root)), SECOND.end), WEEKS, bounds(limit))


def changed(root: Path, name: str, rows: list[dict[str, Any]]) -> Facts:
    return facts(worlds.write(root, {(name, SECOND): worlds.table(name, rows)}))


def joins(found: Facts) -> dict[str, tuple[int, int]]:
    return {join.what: (join.missing, join.of) for join in found.joins}


def test_a_sound_week_in_numbers(tmp_path: Path) -> None:
    found = facts(worlds.write(tmp_path), limit=0.0)
    assert (found.week, found.aside, found.refused) == (SECOND, [], [])
    rows = {(part.table, part.week): part.rows for part in found.parts}
    assert rows == {(name, week): worlds.MAKERS[name][1] for name in SCHEMAS for week in WEEKS}
    assert found.amounts == Amounts(
        impressions=10,
        clicks=5,
        conversions=4,
        cost=1_000_000.0,
        revenue=8_000_000.0,
        earlier_impressions=10,
        earlier_clicks=5,
        earlier_conversions=4,
        slates=5,
        slates_logged=5,
        mean_propensity=0.5,
        least_propensity=0.5,
    )
    assert found.days[0] == Day(SECOND.start, 10, 10, 5, 4, 0.0)
    starts = [SECOND.start + day * MICROS_PER_DAY for day in range(7)]
    assert [day.start for day in found.days] == starts
    assert found.days[1:] == [Day(start, 0, 0, 0, 0, 0.0) for start in starts[1:]]
    assert all(missing == 0 for missing, _ in joins(found).values())
    (shown,) = (part for part in found.parts if (part.table, part.week) == ("impressions", SECOND))
    assert shown.event is not None
    assert (shown.event.first - SECOND.start, shown.bad) == (0, 0)


def test_joins_that_find_nothing(tmp_path: Path) -> None:
    users = changed(tmp_path / "users", "users", worlds.week_rows("users", SECOND)[:2])
    assert joins(users)["impressions whose user is not in users"] == (3, 10)
    assert joins(users)["behaviours whose user is not in users"] == (2, 6)
    sold = worlds.week_rows("conversions", SECOND)
    sold[0][c.IMPRESSION] = "long ago"
    orphan = changed(tmp_path / "sold", "conversions", sold)
    assert joins(orphan)["conversions without an impression of the window"] == (1, 4)
    assert orphan.amounts.conversions == 3
    ads = [*worlds.week_rows("ads", SECOND), worlds.ad(SECOND, 7)]
    unseen = changed(tmp_path / "ads", "ads", ads)
    assert joins(unseen)["ads that were not shown"] == (1, 3)
    before = changed(tmp_path / "before", "ads", worlds.week_rows("ads", SECOND)[:1])
    assert joins(before)["impressions whose ad is not in the week's ads"] == (5, 10)
    behaved = worlds.week_rows("behaviours", SECOND)
    behaved[2][c.AD] = "a9"
    unknown = changed(tmp_path / "behaved", "behaviours", behaved)
    assert joins(unknown)["behaviours whose ad is not in ads"] == (1, 6)
    assert isinstance(unknown.joins[0], Join)


def test_a_row_is_named_by_the_file_and_row_of_its_owner(tmp_path: Path) -> None:
    """Two parts; what became known after the week, and is not pulled, counts as a row there."""
    root = worlds.write(tmp_path)
    rows = worlds.week_rows("impressions", SECOND)
    rows[7][c.COST] = -3
    late = worlds.impression(SECOND, 0, known_time=SECOND.end, impression_id="late")
    parts = [rows[:4], [late, *rows[4:]]]
    folder = root / "impressions" / f"week={SECOND}"
    for number, part in enumerate(parts):
        pq.write_table(worlds.table("impressions", part), folder / f"part-{number}.parquet")
    (one,) = facts(root).aside
    assert one.place == f"source files: impressions/week={SECOND}/part-1.parquet, row 5"
    assert (one.reason, one.rows) == ("negative bid or cost", 1)
    assert one.first.key == {c.IMPRESSION: f"'{SECOND}-i7'"}
    assert one.first.fault == {c.COST: "-3"}


def test_a_week_over_the_limit_is_refused_and_still_counted(tmp_path: Path) -> None:
    rows = worlds.week_rows("impressions", SECOND)
    for row in rows[:2]:
        row[c.USER] = "\0"
    root = worlds.write(tmp_path, {("impressions", SECOND): worlds.table("impressions", rows)})
    assert [(part.table, part.week) for part in facts(root, 0.19).refused] == [
        ("impressions", SECOND)
    ]
    found = facts(root, 0.2)
    assert (found.refused, found.amounts.impressions, found.amounts.slates) == ([], 8, 4)


def test_without_propensities_no_slate_is_logged(tmp_path: Path) -> None:
    tables = {
        ("impressions", week): worlds.tables(week)["impressions"].drop_columns([c.PROPENSITY])
        for week in WEEKS
    }
    found = facts(worlds.write(tmp_path, tables)).amounts
    assert (found.slates, found.slates_logged, found.mean_propensity) == (5, 0, 0.0)


def test_what_is_still_to_come_is_expected_of_the_last_days(tmp_path: Path) -> None:
    """Half the conversions take a day: of the last hours' clicks, half are not there yet."""
    end = SECOND.end
    shown, sold = [], []
    for number in range(200):
        time = SECOND.start + number * (end - SECOND.start) // 200
        name = {c.IMPRESSION: f"i{number}", c.REQUEST: f"r{number}", c.SLATE_SIZE: 1}
        times = {c.EVENT_TIME: time, c.KNOWN_TIME: time, c.POSITION: 1, c.CLICKED: True}
        shown.append(worlds.impression(SECOND, number, **name, **times))
        known = time + (1_000_000 if number % 2 else MICROS_PER_DAY)
        if known < end:
            sold.append(
                worlds.conversion(SECOND, 0, event_time=time, known_time=known, **{
                    c.IMPRESSION: f"i{number}"})
            )  # fmt: skip
    tables = {
        ("impressions", SECOND): worlds.table("impressions", shown),
        ("conversions", SECOND): worlds.table("conversions", sold),
    }
    days = facts(worlds.write(tmp_path, tables)).days
    assert [round(day.to_come) for day in days[:6]] == [0] * 6
    missing = 200 - len(sold)
    assert days[6].to_come == pytest.approx(missing, rel=0.15)


def test_an_empty_week_has_no_facts_and_no_fault(tmp_path: Path) -> None:
    empty = {(name, SECOND): worlds.table(name, []) for name in SCHEMAS}
    found = facts(worlds.write(tmp_path, empty))
    assert found.amounts.impressions == found.amounts.slates == 0
    assert found.amounts.earlier_clicks == 5
    assert all(part.event is None for part in found.parts if part.week == SECOND)


def test_a_column_of_another_type_ends_it_with_its_name(tmp_path: Path) -> None:
    rows = worlds.tables(SECOND)["ads"]
    place = rows.column_names.index(c.PRICE)
    wrong = rows.set_column(place, c.PRICE, pc.cast(rows[c.PRICE], pa.string()))
    root = worlds.write(tmp_path, {("ads", SECOND): wrong})
    with pytest.raises((SourceError, ContractError), match=r"ads/week=2026-W04.*price_micros"):
        facts(root)


def test_the_window_is_what_is_there_without_a_gap() -> None:
    week = Week(2026, 10)
    whole = [week.plus(back) for back in (-5, -3, -2, -1, 0)]
    assert window_there(week, whole, 4) == whole[1:]
    assert window_there(week, whole, 6) == whole[1:]
    assert window_there(week, whole, 2) == whole[3:]
    assert window_there(week.plus(1), whole, 4) == []
    assert FIRST.plus(1) == SECOND
