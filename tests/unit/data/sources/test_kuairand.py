"""Five impressions and two histories, small enough to check by hand."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data.sources.kuairand import FEEDBACK, FIRST, LAST, LOG, PROFILE, KuaiRand
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.errors import SourceError, UnknownWeek

MONDAY = FIRST.start


def beijing(day: int, hour: int, minute: int = 0, month: int = 4) -> int:
    """Milliseconds since the epoch of a Beijing wall-clock time in 2022."""
    return int(datetime(2022, month, day, hour, minute, tzinfo=UTC).timestamp() - 8 * 3600) * 1_000


def row(user: int, video: int, time: int, **values: int) -> dict[str, Any]:
    local = datetime.fromtimestamp(time / 1_000 + 8 * 3600, UTC)
    flags = dict.fromkeys(("is_click", "long_view", *FEEDBACK), 0)
    return {
        "user_id": user,
        "video_id": video,
        "date": int(local.strftime("%Y%m%d")),
        "hourmin": local.hour * 100,
        "time_ms": time,
        "play_time_ms": 2_000,
        "tab": 1,
        **flags,
    } | values


ROWS = [
    row(0, 2, beijing(25, 9), is_click=1, long_view=1, is_like=1, is_hate=1),
    row(0, 1, beijing(25, 8)),
    row(1, 1, beijing(26, 10), is_click=1, play_time_ms=0, tab=4),
    # Happened on Sunday, filed on Monday.
    row(1, 2, beijing(24, 23, 30), date=20220425, hourmin=0, long_view=1),
    row(0, 2, beijing(1, 23, 59, month=5), play_time_ms=90_000),  # left after the week's end
]

SEQUENCES = {
    "user_id": [0, 5],
    "history_len": [4, 1],
    "last_time_ms": [beijing(24, 0), beijing(10, 6)],
    "watch_seq": [[1, 2, 1], [2]],
    "like_seq": [[1, 3], []],
    "long_watch_seq": [[3, 2], []],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / LOG)
    items = {
        "video_id": [1, 2, 3],
        "author_id": [11, 12, 13],
        "video_type": ["NORMAL", "AD", "NORMAL"],
        "upload_dt": ["2022-04-10", "2022-04-09", "2022-04-11"],
        "upload_type": ["Web", "Kmovie", "Web"],
        "video_duration": [9_000.0, 61_000.0, None],
        "tag": ["39,68", "2", None],
        "show_cnt": [1.0, 2.0, 3.0],
    }
    pq.write_table(pa.table(items), tmp_path / "item_features.parquet")
    users: dict[str, list[Any]] = {"user_id": [0, 1]} | {name: ["x", None] for name in PROFILE}
    users["onehot_feat4"] = [3.0, None]
    pq.write_table(pa.table(users), tmp_path / "user_features.parquet")
    pq.write_table(pa.table(SEQUENCES), tmp_path / "user_sequences.parquet")
    return tmp_path


def column(table: pa.Table, name: str) -> list[Any]:
    values = table[name]
    return (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()


def test_a_row_lies_in_the_week_in_which_it_became_known(folder: Path) -> None:
    source = KuaiRand(folder)
    first = source.pull(FIRST, LAST.end)["impressions"]
    second = source.pull(LAST, LAST.end)["impressions"]
    assert column(first, c.IMPRESSION) == ["k0", "k1", "k2", "k3"]
    assert column(second, c.IMPRESSION) == ["k4"]
    assert column(first, c.EVENT_TIME) == [
        MONDAY + 9 * MICROS_PER_HOUR,
        MONDAY + 8 * MICROS_PER_HOUR,
        MONDAY + 34 * MICROS_PER_HOUR,
        MONDAY - MICROS_PER_HOUR // 2,
    ]
    assert column(first, c.KNOWN_TIME) == [
        MONDAY + 9 * MICROS_PER_HOUR + 2_000_000,
        MONDAY + 8 * MICROS_PER_HOUR + 2_000_000,
        MONDAY + 34 * MICROS_PER_HOUR,
        MONDAY,
    ]
    assert column(second, c.KNOWN_TIME) == [FIRST.end + 30_000_000]


def test_the_labels_are_the_logs(folder: Path) -> None:
    tables = KuaiRand(folder).pull(FIRST, LAST.end)
    assert column(tables["impressions"], c.CLICKED) == [True, False, True, False]
    assert column(tables["impressions"], c.PLACEMENT) == ["1", "1", "4", "1"]
    assert column(tables["impressions"], c.PROPENSITY) == [None] * 4
    assert column(tables["conversions"], c.IMPRESSION) == ["k0", "k3"]
    assert column(tables["conversions"], c.REVENUE) == [1_000_000] * 2


def test_feedback_is_known_when_the_video_was_left(folder: Path) -> None:
    found = KuaiRand(folder).pull(FIRST, LAST.end)["behaviours"].slice(7)
    assert column(found, c.ACTION) == ["long_view", "like", "hate", "skip", "click", "long_view"]
    assert column(found, c.AD) == ["2", "2", "2", "1", "1", "2"]
    assert column(found, c.CATEGORY) == ["2", "2", "2", "39", "39", "2"]
    assert column(found, c.DWELL_MS) == [2_000, 2_000, 2_000, 2_000, 0, 2_000]
    assert column(found, c.KNOWN_TIME)[0] == MONDAY + 9 * MICROS_PER_HOUR + 2_000_000
    second = KuaiRand(folder).pull(LAST, LAST.end)["behaviours"]
    assert column(second, c.ACTION) == ["skip"]


def test_histories_are_spread_back_to_their_start_and_known_on_the_first_monday(
    folder: Path,
) -> None:
    found = KuaiRand(folder).pull(FIRST, LAST.end)["behaviours"].slice(0, 6)
    start = MONDAY - 17 * MICROS_PER_DAY
    # User 0: four interactions in 16 days, one every fourth day; three of them are listed.
    expected = [
        ("0", "3", "long_view", start),  # viewed long, but not among the last seen
        ("0", "3", "like", start),
        ("0", "1", "watch", start + 8 * MICROS_PER_DAY),
        ("0", "2", "long_view", start + 12 * MICROS_PER_DAY),
        ("0", "1", "watch", start + 16 * MICROS_PER_DAY),
        ("0", "1", "like", start + 16 * MICROS_PER_DAY),  # when it was last seen
    ]
    names = (c.USER, c.AD, c.ACTION, c.EVENT_TIME)
    rows = list(zip(*(column(found, name) for name in names), strict=True))
    assert rows == expected
    assert set(column(found, c.KNOWN_TIME)) == {MONDAY}


def test_ads_and_users_are_snapshots_without_whole_period_statistics(folder: Path) -> None:
    tables = KuaiRand(folder).pull(LAST, LAST.end)
    ads = tables["ads"].to_pylist()
    assert [row[c.AD_TYPE] for row in ads] == ["NORMAL-10s", "AD-120s", "NORMAL-unknown"]
    assert [row[c.CATEGORY] for row in ads] == ["39", "2", "unknown"]
    assert [row[c.BRAND] for row in ads] == ["39,68", "2", "unknown"]
    assert [row[c.ADVERTISER] for row in ads] == ["11", "12", "13"]
    assert set(column(tables["ads"], c.KNOWN_TIME)) == {LAST.start}
    users = tables["users"].to_pylist()
    assert [row["onehot_feat4"] for row in users] == ["3", "unknown"]
    assert [row["user_active_degree"] for row in users] == ["x", "unknown"]


def test_nothing_known_after_as_of_is_given(folder: Path) -> None:
    tables = KuaiRand(folder).pull(FIRST, MONDAY + 9 * MICROS_PER_HOUR)
    assert column(tables["impressions"], c.IMPRESSION) == ["k1", "k3"]
    nothing = KuaiRand(folder).pull(FIRST, MONDAY)
    assert {name: table.num_rows for name, table in nothing.items()} == dict.fromkeys(tables, 0)


@pytest.mark.parametrize("week", [Week(2022, 16), Week(2022, 19), Week(2026, 4)])
def test_other_weeks_do_not_exist(folder: Path, week: Week) -> None:
    with pytest.raises(UnknownWeek, match=f"2022-W17 and 2022-W18, not {week}"):
        KuaiRand(folder).pull(week, week.end)


@pytest.mark.parametrize(
    "name", [LOG, "item_features.parquet", "user_features.parquet", "user_sequences.parquet"]
)
def test_a_corrupt_file_or_a_missing_column_is_named(folder: Path, name: str) -> None:
    path = folder / name
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["user_id" if "item" not in name else "tag"]), path)
    with pytest.raises(SourceError, match=f"{name}: no column"):
        KuaiRand(folder).pull(FIRST, LAST.end)
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=f"{name}: not readable"):
        KuaiRand(folder).pull(FIRST, LAST.end)
