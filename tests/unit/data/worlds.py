"""A small window that keeps the data contract, to be broken one row at a time."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.params import ValidateParams

BOUNDS = ValidateParams(
    max_quarantined_fraction=0.0,
    max_amount_micros=10**12,
    max_event_age_days=60,
    max_slate_size=100,
)

FIRST, SECOND = Week(2026, 3), Week(2026, 4)
WEEKS = [FIRST, SECOND]


def impression(week: Week, number: int, **changes: Any) -> dict[str, Any]:
    """Impression `number` of a week: `number` hours into it, slates of two."""
    time = week.start + number * MICROS_PER_HOUR
    return {
        c.EVENT_TIME: time,
        c.KNOWN_TIME: time + 1,
        c.REQUEST: f"{week}-r{number // 2}",
        c.IMPRESSION: f"{week}-i{number}",
        c.USER: f"u{number % 3}",
        c.AD: f"a{number % 2}",
        c.POSITION: number % 2 + 1,
        c.SLATE_SIZE: 2,
        c.PLACEMENT: "feed",
        c.DEVICE: "phone",
        c.BID: 500_000,
        c.COST: 100_000,
        c.PROPENSITY: 0.5,
        c.POLICY_VERSION: "p1",
        c.ARM: "a",
        c.CLICKED: number % 2 == 0,
    } | changes


def behaviour(week: Week, number: int, **changes: Any) -> dict[str, Any]:
    time = week.start + number * MICROS_PER_HOUR
    return {
        c.EVENT_TIME: time,
        c.KNOWN_TIME: time,
        c.USER: f"u{number % 3}",
        c.AD: f"a{number % 2}",
        c.CATEGORY: "books",
        c.ACTION: "cart",
        c.DWELL_MS: None if number % 2 else 100,
    } | changes


def conversion(week: Week, number: int, **changes: Any) -> dict[str, Any]:
    """Of impression `number` of the same week, a second after it."""
    time = week.start + number * MICROS_PER_HOUR + 1_000_000
    return {
        c.EVENT_TIME: time,
        c.KNOWN_TIME: time,
        c.IMPRESSION: f"{week}-i{number}",
        c.REVENUE: 2_000_000,
    } | changes


def ad(week: Week, number: int, **changes: Any) -> dict[str, Any]:
    return {
        c.EVENT_TIME: week.start,
        c.KNOWN_TIME: week.start,
        c.AD: f"a{number}",
        c.CAMPAIGN: "spring",
        c.ADVERTISER: "acme",
        c.CATEGORY: "books",
        c.BRAND: "quill",
        c.AD_TYPE: "banner",
        c.PRICE: 3_000_000,
        c.BID: 500_000,
        c.DAILY_BUDGET: None,
        c.CREATED_AT: week.start,
        c.ENDS_AT: None,
    } | changes


def user(week: Week, number: int, **changes: Any) -> dict[str, Any]:
    return {
        c.EVENT_TIME: week.start,
        c.KNOWN_TIME: week.start,
        c.USER: f"u{number}",
        "age": "30-39",
    } | changes


def bounds(limit: float) -> ValidateParams:
    """With another share of bad rows."""
    return BOUNDS.model_copy(update={"max_quarantined_fraction": limit})


MAKERS = {
    "impressions": (impression, 10),
    "behaviours": (behaviour, 6),
    "conversions": (conversion, 4),
    "ads": (ad, 2),
    "users": (user, 3),
}


def schema(table: str, nullable: bool = False) -> pa.Schema:
    fields = list(SCHEMAS[table])
    if table == "users":
        fields.append(pa.field("age", pa.string()))
    return pa.schema([field.with_nullable(field.nullable or nullable) for field in fields])


def table(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the contract's table, except that every column may hold nulls."""
    return pa.Table.from_pylist(rows, schema=schema(name, nullable=True))


def week_rows(name: str, week: Week) -> list[dict[str, Any]]:
    make, count = MAKERS[name]
    return [make(week, number) for number in range(count)]


def tables(week: Week) -> Tables:
    return {name: table(name, week_rows(name, week)) for name in SCHEMAS}


def write(root: Path, changed: dict[tuple[str, Week], pa.Table] | None = None) -> Path:
    """The window as a lake, some partitions replaced."""
    for week in WEEKS:
        for name, rows in tables(week).items():
            lake.write(root, name, week, (changed or {}).get((name, week), rows))
    return root
