"""Weeks of the stream: what was known in each, once."""

from pathlib import Path

import pyarrow as pa
import pytest

from roiflow.catalogue.catalogue import with_changes
from roiflow.data import event_lake, lake, schemas
from roiflow.data.sources.stream import Stream
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_WEEK, Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.stream import rows
from roiflow.stream.events import Change, Event
from tests.unit.stream.streams import behaviour, click, conversion, slate

WEEK = Week.parse("2026-W02")
DAY = MICROS_PER_DAY


@pytest.fixture
def source(tmp_path: Path) -> Stream:
    for name in ("ads", "users"):
        schema = schemas.SCHEMAS[name]
        lake.write(tmp_path / "files", name, WEEK, schema.empty_table())
    return Stream(tmp_path / "lake", str(tmp_path / "files"), with_changes)


def put(folder: Path, number: int, *events: Event) -> None:
    table = rows.table(sorted(events, key=lambda event: event.known_time or 0))
    event_lake.write(folder / "lake", number, table.sort_by("known_time"))


def pull(source: Stream, as_of: int = WEEK.end) -> dict[str, list[dict[str, object]]]:
    return {name: table.to_pylist() for name, table in source.pull(WEEK, as_of).items()}


def test_a_week_is_what_became_known_in_it(source: Stream, tmp_path: Path) -> None:
    put(
        tmp_path,
        0,
        slate("before", "u", ["a"], WEEK.start - 1),
        slate("first", "u", ["a"], WEEK.start),
        behaviour("b1", "u", "a", WEEK.start + 1),
    )
    put(
        tmp_path,
        1,
        slate("last", "u", ["a", "b"], WEEK.end - 1),
        conversion("before:1", 7, WEEK.end - 1),
        slate("after", "u", ["a"], WEEK.end),
        behaviour("b2", "u", "a", WEEK.end),
    )
    tables = source.pull(WEEK, WEEK.end)
    assert set(tables) == set(schemas.SCHEMAS)
    for name, table in tables.items():
        assert table.schema == schemas.SCHEMAS[name]
    found = pull(source)
    assert [row["impression_id"] for row in found["impressions"]] == ["first:1", "last:1", "last:2"]
    assert [row["revenue_micros"] for row in found["conversions"]] == [7]
    assert len(found["behaviours"]) == 1


def test_the_weeks_ads_follow_from_what_was_said_of_them(source: Stream, tmp_path: Path) -> None:
    """In any week: what was known at its end, of ads that can be shown in it."""

    def change(kind: str, ad: str, at: int, **values: object) -> Change:
        said = {"event_id": f"{kind}-{ad}-{at}", "event_time": at, "known_time": at}
        return Change(change=kind, ad_id=ad, **(said | values))  # type: ignore[arg-type]

    names = ("campaign_id", "advertiser_id", "category_id", "brand_id", "ad_type")
    whole = dict.fromkeys(names, "x") | {"price_micros": 5, "bid_micros": 1}
    early, inside = WEEK.start - DAY, WEEK.start + DAY
    put(
        tmp_path,
        0,
        change("upsert", "old", early, **whole),
        change("upsert", "gone", early, **whole),
        change("end", "gone", early + 1),
        change("upsert", "new", inside, **whole),
        change("bid", "old", inside, bid_micros=2),
        change("end", "new", inside + DAY),
        change("bid", "old", WEEK.end, bid_micros=3),
    )
    found = source.pull(WEEK, WEEK.end)["ads"]
    assert found.schema == schemas.ADS
    times = [found[name].cast(pa.int64()).to_pylist() for name in ("known_time", "ends_at")]
    assert found["ad_id"].to_pylist() == ["old", "new"]
    assert found["bid_micros"].to_pylist() == [2, 1]
    assert times == [[WEEK.start, inside], [None, inside + DAY]]


def test_outcomes_known_before_the_pull_count(source: Stream, tmp_path: Path) -> None:
    shown = slate("r", "u", ["a", "b", "c", "d"], WEEK.end - DAY)
    put(
        tmp_path,
        0,
        click("r:1", WEEK.start - 2, WEEK.start - 1),  # it overtook its slate
        shown,
        click("r:2", WEEK.end - 2 * DAY, WEEK.end - 5),
    )
    put(
        tmp_path,
        1,
        click("r:3", WEEK.end + DAY),
        click("r:4", WEEK.end + 3 * DAY),
        conversion("r:4", 7, WEEK.end + DAY),
        behaviour("b", "u", "a", WEEK.end + MICROS_PER_WEEK),
    )
    at_the_end = pull(source)["impressions"]
    assert [row["clicked"] for row in at_the_end] == [True, True, False, False]
    later = source.pull(WEEK, WEEK.end + 2 * DAY)["impressions"]
    assert later["clicked"].to_pylist() == [True, True, True, False]
    known = later["click_known_time"].cast(pa.int64()).to_pylist()
    assert known == [None, WEEK.end - 5, WEEK.end + DAY, None]
    # bid x (0.1 + 0.5 clicked + 0.25 converted)
    assert later["cost_micros"].to_pylist() == [60, 120, 180, 140]


def test_what_is_known_after_the_pull_is_left_out(source: Stream, tmp_path: Path) -> None:
    put(tmp_path, 0, slate("r1", "u", ["a"], WEEK.start + 5), slate("r2", "u", ["a"], WEEK.end))
    assert len(pull(source, WEEK.start + 5)["impressions"]) == 0
    assert len(pull(source, WEEK.start + 6)["impressions"]) == 1


def test_a_week_that_may_still_grow_is_not_given(source: Stream, tmp_path: Path) -> None:
    with pytest.raises(UnknownWeek, match=r"2026-W02 is not complete.*complete: none"):
        source.pull(WEEK, WEEK.end)
    put(
        tmp_path,
        0,
        behaviour("b", "u", "a", WEEK.plus(-1).start),
        behaviour("c", "u", "a", WEEK.start),
    )
    with pytest.raises(UnknownWeek, match=r"2026-W02 is not complete.*complete: 2026-W01"):
        source.pull(WEEK, WEEK.end)
    put(tmp_path, 1, behaviour("d", "u", "a", WEEK.end))
    assert len(pull(source)["behaviours"]) == 1
    with pytest.raises(UnknownWeek, match="2025-W51"):
        source.pull(WEEK.plus(-3), WEEK.end)


def test_a_week_without_events_between_two_is_empty(source: Stream, tmp_path: Path) -> None:
    put(tmp_path, 0, behaviour("b", "u", "a", WEEK.start - 1), behaviour("c", "u", "a", WEEK.end))
    assert len(pull(source)["impressions"]) == len(pull(source)["behaviours"]) == 0


def test_a_part_that_cannot_be_read_is_named(source: Stream, tmp_path: Path) -> None:
    put(tmp_path, 0, behaviour("b", "u", "a", WEEK.start), behaviour("c", "u", "a", WEEK.end))
    path = event_lake.parts(tmp_path / "lake")[0].path
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"week=2026-W02/part-0\.parquet"):
        source.pull(WEEK, WEEK.end)
