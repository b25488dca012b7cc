"""Public logs to compare the world with.

- `kuairand`: KuaiRand-Pure's standard log, 25 April to 8 May 2022; `kuairand_dense`: very active
  users, 8 to 21 April (Gao et al., 2022). An event is a video played, a conversion a long view.
- `trivago`: two days of the RecSys Challenge 2019: what users did, and the lists they clicked in.
- `online_ads`: displays, clicks and conversions of one advertiser, 1 April to 30 June 2020, per
  day, campaign, banner and placement.

A folder in the lake's layout is a log as well.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from roiflow.calibration.logs import DAYS_PER_WEEK, NO_SLATES, NOTHING, Log, codes, count, read_lake
from roiflow.data import lake
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND
from roiflow.errors import SourceError

BEIJING = 8 * MICROS_PER_HOUR
MONTHS = ("April", "May", "June")
MONTH_START = (0, 30, 61)
"""Days from 1 April to the first of each month."""

NO_USERS = "daily counts, without users"


def read_log(log: str, folder: Path | None) -> Log:
    """One of LOGS from the folder of public data sets, or a folder in the lake's layout.

    Raises SourceError, naming what is missing: folder, file or column.
    """
    if log not in LOGS:
        if not Path(log).is_dir():
            raise SourceError(f"log {log}: neither one of {', '.join(LOGS)} nor a folder")
        return read_lake(Path(log))
    if folder is None:
        raise SourceError(f"log {log}: ROIFLOW_DATA_FOLDER must name the folder of its data set")
    directory, read = LOGS[log]
    if (folder / directory).is_dir():
        folder = folder / directory
    return read(folder)


def _kuairand(name: str, file: str, first_day: str) -> Callable[[Path], Log]:
    """Two weeks from a day on; the few rows of the hour before are left out."""
    # Midnight in Beijing, where the users are, in UTC, as the log's times are.
    start = int(np.datetime64(first_day, "us").astype(np.int64)) - BEIJING

    def read(folder: Path) -> Log:
        columns = ["user_id", "video_id", "time_ms", "is_click", "long_view"]
        rows = lake.read_parquet(folder / file, columns)
        time = rows["time_ms"].to_numpy() * 1_000 - start
        rows, time = rows.filter(pa.array(time >= 0)), time[time >= 0]
        clicked, viewed = (rows[column].to_numpy() == 1 for column in columns[3:])
        week = time // (DAYS_PER_WEEK * MICROS_PER_DAY)
        order = np.argsort(time, kind="stable")
        return Log(
            name=name,
            days=2 * DAYS_PER_WEEK,
            positions=1,
            user=codes(rows["user_id"])[0][order],
            time=time[order],
            requests=None,
            items=np.bincount(codes(rows["video_id"])[0]),
            by_position=np.array([[time.size], [clicked.sum()]]),
            by_week=np.stack([count(week[one], 2) for one in (time >= 0, clicked, viewed)]),
            price=NOTHING.astype(np.float64),
            revenue=NOTHING.astype(np.float64),
            conversions=NOTHING,
            lacks={
                "position": NO_SLATES,
                "price": "no prices",
                "revenue": "a long view brings no money",
            },
        )

    return read


def _trivago(folder: Path) -> Log:
    columns = ["user_id", "timestamp", "action_type", "reference", "impressions", "prices"]
    rows = lake.read_parquet(folder / "trivago_val_100k.parquet", columns)
    time = rows["timestamp"].to_numpy() * MICROS_PER_SECOND
    # From the first day's midnight, so that days are days and not 24 hours from the first event.
    time = time - time.min() // MICROS_PER_DAY * MICROS_PER_DAY
    order = np.argsort(time, kind="stable")
    turned = rows.filter(pc.match_substring(rows["action_type"], "item"))
    lists = rows.filter(pc.is_valid(rows["impressions"])).combine_chunks()
    shown = pc.split_pattern(lists["impressions"], "|").combine_chunks()
    items, of = pc.list_flatten(shown), pc.list_parent_indices(shown)
    lengths = pc.list_value_length(shown).to_numpy()
    # Lists are flattened; an item's position is its distance from the first of its list.
    place = np.arange(len(items)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    clicked = pc.equal(items, lists["reference"].combine_chunks().take(of)).to_numpy(
        zero_copy_only=False
    )
    prices = pc.list_flatten(pc.split_pattern(lists["prices"], "|").combine_chunks())
    if len(prices) != len(items):
        raise SourceError(f"{folder}: {len(items)} impressions, but {len(prices)} prices")
    item, ids = codes(pa.chunked_array([items]))
    first = np.full(len(ids), -1)
    # Backwards, so that of an item's rows the first is written last and stays: a price for each
    # item, not for each time that it was shown.
    first[item[::-1]] = np.arange(item.size)[::-1]
    slate = int(lengths.max())
    return Log(
        name="trivago",
        days=int(time.max() // MICROS_PER_DAY + 1),
        positions=slate,
        user=codes(rows["user_id"])[0][order],
        time=time[order],
        requests=lists.num_rows,
        items=np.bincount(codes(turned["reference"])[0]),
        by_position=np.stack([count(place, slate), count(place[clicked], slate)]),
        by_week=np.zeros((3, 0), dtype=np.int64),
        price=prices.cast(pa.float64()).to_numpy()[first],
        revenue=NOTHING.astype(np.float64),
        conversions=NOTHING,
        lacks={
            "click": "only lists with a click are logged",
            "conversion": "no bookings",
            "revenue": "no bookings",
        },
    )


def _online_ads(folder: Path) -> Log:
    path = folder / "online_advertising_performance_data.csv.gz"
    counts = ["displays", "clicks", "post_click_conversions"]
    wanted = ["month", "day", *counts, "post_click_sales_amount"]
    try:
        with pa.input_stream(path) as stream:
            rows = pa.csv.read_csv(stream)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: not readable as CSV: {error}") from None
    for name in wanted:
        if name not in rows.column_names:
            raise SourceError(f"{path}: no column {name!r}")
    month = pc.index_in(rows["month"], value_set=pa.array(MONTHS))
    if month.null_count:
        other = rows["month"].filter(month.is_null())[0]
        raise SourceError(f"{path}: column 'month' holds {other}, expected {', '.join(MONTHS)}")
    day = np.array(MONTH_START)[month.to_numpy()] + rows["day"].to_numpy() - 1
    days = int(day.max() + 1)
    weeks = days // DAYS_PER_WEEK
    values = [rows[name].to_numpy() for name in counts]
    # Whole weeks only: the days at the end would be one of few clicks.
    per_week = [np.bincount(day // DAYS_PER_WEEK, weights)[:weeks] for weights in values]
    sales = rows["post_click_sales_amount"].to_numpy()
    # A row is a day's total: its mean revenue, weighted with its conversions, is all that it tells.
    sold = (values[2] > 0) & (sales > 0)
    return Log(
        name="online_ads",
        days=days,
        positions=1,
        user=NOTHING,
        time=NOTHING,
        requests=None,
        items=NOTHING,
        by_position=np.array([[values[0].sum()], [values[1].sum()]]),
        by_week=np.stack(per_week).astype(np.int64),
        price=NOTHING.astype(np.float64),
        revenue=sales[sold] / values[2][sold],
        conversions=values[2][sold],
        lacks={
            "activity": NO_USERS,
            "gap": NO_USERS,
            "popularity": "daily counts of campaigns, without ads",
            "position": NO_SLATES,
            "price": "no prices",
        },
    )


LOGS: dict[str, tuple[str, Callable[[Path], Log]]] = {
    "kuairand": (
        "kuairand",
        _kuairand("kuairand", "kuairand_pure_standard_20220425_20220508.parquet", "2022-04-25"),
    ),
    "kuairand_dense": (
        "kuairand",
        _kuairand("kuairand_dense", "kuairand_kcore15_20220408_20220421.parquet", "2022-04-08"),
    ),
    "trivago": ("trivago2019_100k", _trivago),
    "online_ads": ("online_ads_company_x", _online_ads),
}
"""The public logs: the folder of their data set inside that of all data sets, and their reader."""
