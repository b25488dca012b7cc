"""Generated weeks of the lake, validated in form: what every contender reads."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week

WEEKS = Week.parse("2026-W05").window(4)
ADS, CATEGORIES, ADVERTISERS, CAMPAIGNS = 2_000, 40, 200, 500
ACTIONS = pa.array(["view", "view", "view", "favourite", "cart"])

Longs = NDArray[np.int64]


def users_of(events: int) -> int:
    """20 events a user."""
    return max(events // 20, 10)


def _names(prefix: str, values: Longs) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(values).cast(pa.string()), "")


def _same(value: str, size: int) -> pa.Array:
    return pa.array([value]).take(pa.array(np.zeros(size, np.int64)))


def _known(event: Longs, end: int) -> Longs:
    """At the next whole hour, in the same week."""
    hour = (event // MICROS_PER_HOUR + 1) * MICROS_PER_HOUR
    return np.minimum(hour, end - 1)


def _drawn(rng: np.random.Generator, size: int, n: int) -> Longs:
    """Of `size` ids, the low ones more often."""
    return (size * rng.random(n) ** 2).astype(np.int64)


def _impressions(rng: np.random.Generator, week: Week, users: int, n: int) -> pa.Table:
    event = week.start + np.sort(rng.integers(0, 7 * MICROS_PER_DAY - 1, n))
    known = _known(event, week.end)
    clicked = rng.random(n) < 0.1
    later = np.minimum(known + rng.integers(0, 6 * MICROS_PER_HOUR, n), week.end - 1)
    apart = clicked & (rng.random(n) < 0.5)
    ids = _names(f"{week}-", np.arange(n))
    columns: dict[str, object] = {
        "event_time": event,
        "known_time": known,
        "request_id": ids,
        "impression_id": ids,
        "user_id": _names("u", _drawn(rng, users, n)),
        "ad_id": _names("a", _drawn(rng, ADS, n)),
        "position": np.ones(n, np.int32),
        "slate_size": np.ones(n, np.int32),
        "placement": pa.array(["feed", "feed", "top"]).take(pa.array(rng.integers(0, 3, n))),
        "device": _same("phone", n),
        "bid_micros": np.ones(n, np.int64),
        "cost_micros": np.ones(n, np.int64),
        "propensity": np.full(n, 0.5),
        "policy_version": _same("v", n),
        "arm": _same("a", n),
        "clicked": clicked,
        "click_known_time": pa.array(later, mask=~apart),
    }
    return _table("impressions", columns)


def _behaviours(rng: np.random.Generator, week: Week, users: int, n: int) -> pa.Table:
    event = week.start + np.sort(rng.integers(0, 7 * MICROS_PER_DAY - 1, n))
    ad = _drawn(rng, ADS, n)
    return _table(
        "behaviours",
        {
            "event_time": event,
            "known_time": _known(event, week.end),
            "user_id": _names("u", _drawn(rng, users, n)),
            "ad_id": _names("a", ad),
            "category_id": _names("k", ad * 13 % CATEGORIES),
            "action": ACTIONS.take(pa.array(rng.integers(0, len(ACTIONS), n))),
            "dwell_ms": pa.nulls(n, pa.int64()),
        },
    )


def _conversions(rng: np.random.Generator, week: Week, shown: pa.Table) -> pa.Table:
    row = np.flatnonzero(rng.random(shown.num_rows) < 0.02)
    known = shown["known_time"].cast(pa.int64()).to_numpy()[row] + MICROS_PER_DAY
    known = np.minimum(known, week.end - 1)
    return _table(
        "conversions",
        {
            "event_time": known,
            "known_time": known,
            "impression_id": shown["impression_id"].take(pa.array(row)),
            "revenue_micros": rng.integers(1, 100_000_000, row.size),
        },
    )


def _ads(week: Week) -> pa.Table:
    ad = np.arange(ADS)
    start = np.full(ADS, week.start)
    return _table(
        "ads",
        {
            "event_time": start,
            "known_time": start,
            "ad_id": _names("a", ad),
            "campaign_id": _names("c", ad * 7 % CAMPAIGNS),
            "advertiser_id": _names("v", ad * 11 % ADVERTISERS),
            "category_id": _names("k", ad * 13 % CATEGORIES),
            "brand_id": _same("b", ADS),
            "ad_type": _same("image", ADS),
            "price_micros": ad * 1_000_000,
            "bid_micros": ad * 1_000,
            "daily_budget_micros": pa.nulls(ADS, pa.int64()),
            "created_at": start,
            "ends_at": pa.nulls(ADS, pa.int64()),
        },
    )


def _table(name: str, columns: dict[str, object]) -> pa.Table:
    schema = SCHEMAS[name]
    arrays = [_array(columns[field.name]).cast(field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def _array(values: object) -> pa.Array | pa.ChunkedArray:
    return pa.array(values) if isinstance(values, np.ndarray) else values


def write_world(folder: Path, events: int) -> Path:
    """60 % impressions, 40 % behaviours, known within the hour; half of the clicks come later."""
    rng = np.random.default_rng(3)
    users = users_of(events)
    for week in WEEKS:
        shown = _impressions(rng, week, users, events * 6 // 10 // len(WEEKS))
        tables = {
            "impressions": shown,
            "behaviours": _behaviours(rng, week, users, events * 4 // 10 // len(WEEKS)),
            "conversions": _conversions(rng, week, shown),
            "ads": _ads(week),
            "users": SCHEMAS["users"].empty_table(),
        }
        for name, rows in tables.items():
            path = folder / name / f"week={week}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(rows, path, use_dictionary=False)
    return folder
