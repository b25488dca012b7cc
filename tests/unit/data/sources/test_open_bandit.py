from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data.sources.open_bandit import ITEMS, LOG, WEEK, OpenBandit
from roiflow.errors import SourceError, UnknownWeek


def row(time: str, item: int, position: int, click: int, user: str) -> dict[str, Any]:
    features = {f"user_feature_{number}": f"{user}{number}" * 16 for number in range(4)}
    return {
        "timestamp": f"{time}+00:00",
        "item_id": item,
        "position": position,
        "click": click,
        "propensity_score": 0.5,
    } | features


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        row("2019-11-24 00:00:34.762830", 0, 3, 1, "a"),
        row("2019-11-26 10:00:00.000001", 1, 1, 0, "b"),
        row("2019-11-30 23:59:47.022892", 1, 2, 0, "a"),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / LOG)
    (tmp_path / ITEMS).write_text(
        ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
        "0,0,-0.4,cat0,brand0,camp0\n1,1,0.9,cat1,brand1,camp1\n"
    )
    return tmp_path


def test_each_row_is_a_slate_of_one_at_its_place(folder: Path) -> None:
    found = OpenBandit(folder).pull(WEEK, WEEK.end)["impressions"]
    assert found[c.PLACEMENT].to_pylist() == ["right", "left", "center"]
    assert found[c.POSITION].to_pylist() == found[c.SLATE_SIZE].to_pylist() == [1, 1, 1]
    assert found[c.PROPENSITY].to_pylist() == [0.5, 0.5, 0.5]
    assert found[c.CLICKED].to_pylist() == [True, False, False]
    assert found[c.USER].to_pylist()[0] == "a0a0a0a0-a1a1a1a1-a2a2a2a2-a3a3a3a3"


def test_the_sunday_is_delivered_with_the_week(folder: Path) -> None:
    found = OpenBandit(folder).pull(WEEK, WEEK.end)["impressions"]
    known, event = (
        found[name].cast(pa.int64()).to_pylist() for name in (c.KNOWN_TIME, c.EVENT_TIME)
    )
    assert known == [WEEK.start, event[1], event[2]]
    assert event[0] == WEEK.start - 86_400_000_000 + 34_762_830


def test_clicks_are_the_behaviours(folder: Path) -> None:
    tables = OpenBandit(folder).pull(WEEK, WEEK.end)
    (click,) = tables["behaviours"].to_pylist()
    assert (click[c.AD], click[c.CATEGORY], click[c.ACTION]) == ("0", "cat0", "click")
    assert tables["conversions"].num_rows == 0
    assert tables["users"].num_rows == 2
    assert tables["ads"][c.BRAND].to_pylist() == ["brand0", "brand1"]


def test_another_week_or_a_broken_file_is_named(folder: Path) -> None:
    with pytest.raises(UnknownWeek, match="2019-W48, not 2019-W47"):
        OpenBandit(folder).pull(WEEK.plus(-1), WEEK.end)
    (folder / ITEMS).write_text("item_id\n1\n")
    with pytest.raises(SourceError, match=f"{ITEMS}: .*item_feature_1"):
        OpenBandit(folder).pull(WEEK, WEEK.end)
    (folder / ITEMS).unlink()
    with pytest.raises(SourceError, match=ITEMS):
        OpenBandit(folder).pull(WEEK, WEEK.end)
    (folder / LOG).unlink()
    with pytest.raises(SourceError, match=f"{LOG}: no such file"):
        OpenBandit(folder).pull(WEEK, WEEK.end)
