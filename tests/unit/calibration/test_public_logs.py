"""Readers of the public logs, on files of a few rows."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv

from roiflow.calibration.logs import Log
from roiflow.calibration.marginals import MARGINALS, measure
from roiflow.calibration.public_logs import LOGS, read_log
from roiflow.data import lake
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import SourceError

KUAIRAND = "kuairand/kuairand_pure_standard_20220425_20220508.parquet"
TRIVAGO = "trivago2019_100k/trivago_val_100k.parquet"
ADS = "online_ads_company_x/online_advertising_performance_data.csv.gz"
MONDAY = 1_650_816_000_000  # 25 April 2022, midnight in Beijing, milliseconds
HOUR, WEEK = 3_600_000, 7 * 24 * 3_600_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All three data sets."""
    kuairand = {
        "user_id": [1, 1, 2, 2],
        "video_id": [10, 10, 11, 12],
        "time_ms": [MONDAY - 1, MONDAY + HOUR, MONDAY + 2 * HOUR, MONDAY + WEEK],
        "is_click": [1, 1, 0, 1],
        "long_view": [1, 1, 0, 0],
    }
    trivago = {
        "user_id": ["a", "a", "b"],
        "timestamp": [1_541_599_523, 1_541_599_623, 1_541_680_000],
        "action_type": ["interaction item image", "clickout item", "change of sort order"],
        "reference": ["7", "8", "price"],
        "impressions": [None, "7|8|9", None],
        "prices": [None, "50|60|70", None],
    }
    ads = {
        "month": ["April", "April", "May", "June"],
        "day": [1, 7, 1, 30],
        "displays": [100, 100, 50, 10],
        "clicks": [10, 20, 5, 1],
        "post_click_conversions": [4, 0, 1, 0],
        "post_click_sales_amount": [40.0, 0.0, 30.0, 0.0],
    }
    for name, content in ((KUAIRAND, kuairand), (TRIVAGO, trivago)):
        lake.write_parquet(tmp_path / name, pa.table(content))
    write_ads(tmp_path, pa.table(ads))
    return tmp_path


def write_ads(folder: Path, rows: pa.Table) -> None:
    (folder / ADS).parent.mkdir(exist_ok=True)
    with pa.output_stream(folder / ADS) as stream:
        csv.write_csv(rows, stream)


def test_kuairand(folder: Path) -> None:
    log = read_log("kuairand", folder)
    assert (log.time / MICROS_PER_HOUR).tolist() == [1, 2, 168]  # the hour before is left out
    assert log.by_week.tolist() == [[2, 1], [1, 1], [1, 0]]
    assert log.by_position.tolist() == [[3], [2]]
    assert log.items.tolist() == [1, 1, 1]


def test_trivago(folder: Path) -> None:
    log = read_log("trivago", folder)
    assert log.days == 2
    assert log.user.tolist() == [0, 0, 1]
    assert log.requests == 1
    assert log.by_position.tolist() == [[1, 1, 1], [0, 1, 0]]
    assert log.price.tolist() == [50, 60, 70]
    assert log.items.tolist() == [1, 1]  # 7 was looked at, 8 clicked; an order is no item
    assert log.time[0] == (1_541_599_523 * 1_000_000) % MICROS_PER_DAY


def test_online_ads(folder: Path) -> None:
    log = read_log("online_ads", folder)
    assert log.days == 91
    assert log.by_week.shape == (3, 13)
    assert log.by_week[:, 0].tolist() == [200, 30, 4]
    assert log.by_week[:, 4].tolist() == [50, 5, 1]  # 1 May is the 31st day
    assert log.revenue.tolist() == [10, 30]
    assert log.conversions.tolist() == [4, 1]


@pytest.mark.parametrize("name", ["kuairand", "trivago", "online_ads"])
def test_a_log_holds_a_marginal_or_says_why_not(name: str, folder: Path) -> None:
    log: Log = read_log(name, folder)
    assert {*measure(log), *log.lacks} == set(MARGINALS)
    own = read_log(name, folder / LOGS[name][0])  # the data set's own folder will do as well
    assert own.by_position.tolist() == log.by_position.tolist()


@pytest.mark.parametrize("name", LOGS)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_log(name, tmp_path)
    with pytest.raises(SourceError, match=f"log {name}: ROIFLOW_DATA_FOLDER"):
        read_log(name, None)


def test_a_column_that_is_missing_or_odd_is_named(folder: Path) -> None:
    lake.write_parquet(folder / KUAIRAND, pa.table({"user_id": [1]}))
    with pytest.raises(SourceError, match=r"kuairand_pure.*: no column 'video_id'"):
        read_log("kuairand", folder)
    write_ads(folder, pa.table({"month": ["July"], "day": [1]}))
    with pytest.raises(SourceError, match=r"online_advertising.*: no column 'displays'"):
        read_log("online_ads", folder)
    (folder / ADS).write_bytes(b"no gzip")
    with pytest.raises(SourceError, match=r"online_advertising.*not readable as CSV"):
        read_log("online_ads", folder)


def test_an_odd_month_is_named(folder: Path) -> None:
    names = ["displays", "clicks", "post_click_conversions", "post_click_sales_amount"]
    write_ads(folder, pa.table({"month": ["July"], "day": [1], **{name: [1] for name in names}}))
    with pytest.raises(SourceError, match="column 'month' holds July, expected April, May, June"):
        read_log("online_ads", folder)
