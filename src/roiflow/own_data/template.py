"""A small valid example of every table, to start from, and the contract in words beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from roiflow import columns as c
from roiflow.data.schemas import ABOUT, MEANINGS, SCHEMAS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, MICROS_PER_SECOND, Week
from roiflow.errors import SourceError
from roiflow.files import write_directory

ADS, USERS, SLATES, SIZE = 4, 5, 12, 2
"""Slates are a week's; an ad of each half of the catalogue stands in every slate."""

Row = dict[str, object]


def write_template(folder: Path, weeks: Sequence[Week]) -> list[Path]:
    """Write `<folder>/<table>/week=YYYY-Www/part-0.csv` and README.md; what was written.

    Raises SourceError where the folder is there already: it may hold somebody's data.
    """
    if folder.exists():
        raise SourceError(f"{folder}: is there already; name a folder that is not")
    with write_directory(folder) as aside:
        for week in weeks:
            for name, rows in example(week).items():
                path = aside / name / f"week={week}" / "part-0.csv"
                path.parent.mkdir(parents=True)
                csv.write_csv(rows, path)
        (aside / "README.md").write_text(contract())
    return sorted(path for path in folder.rglob("*") if path.is_file())


def example(week: Week) -> Tables:
    """The tables of one week."""
    rows = {
        "impressions": list(_impressions(week)),
        "behaviours": list(_behaviours(week)),
        "conversions": list(_conversions(week)),
        "ads": [_ad(week, number) for number in range(ADS)],
        "users": [_user(week, number) for number in range(USERS)],
    }
    return {name: _table(name, rows[name]) for name in SCHEMAS}


def _table(name: str, rows: list[Row]) -> pa.Table:
    schema = SCHEMAS[name]
    if name == "users":
        schema = schema.append(pa.field("region", pa.string()))
    return pa.Table.from_pylist(rows, schema)


def _slate_time(week: Week, slate: int) -> int:
    # 13 hours apart, slates fall on all days at changing hours, and the last with its sale within
    # the week.
    return week.start + (9 + 13 * slate) * MICROS_PER_HOUR


def _impressions(week: Week) -> Iterator[Row]:
    for slate in range(SLATES):
        time = _slate_time(week, slate)
        for position in range(1, SIZE + 1):
            ad, clicked = _shown(slate, position), _clicked(slate, position)
            yield {
                c.EVENT_TIME: time,
                c.KNOWN_TIME: time,
                c.REQUEST: f"{week}-{slate}",
                c.IMPRESSION: f"{week}-{slate}:{position}",
                c.USER: f"user-{slate % USERS}",
                c.AD: f"ad-{ad}",
                c.POSITION: position,
                c.SLATE_SIZE: SIZE,
                c.PLACEMENT: "home",
                c.DEVICE: "phone" if slate % 3 else "desktop",
                c.BID: 250_000,
                c.COST: 250_000 if clicked else 0,
                # One of those that are left, all alike.
                c.PROPENSITY: 1 / (ADS + 1 - position),
                c.POLICY_VERSION: "at-random",
                c.ARM: "control",
                c.CLICKED: clicked,
                c.CLICK_KNOWN_TIME: None,
            }


def _shown(slate: int, position: int) -> int:
    # By rule and not by chance: the same example each time, in which every ad is shown.
    return (slate + 2 * (position - 1)) % ADS


def _clicked(slate: int, position: int) -> bool:
    return (slate + position) % 4 == 0


def _behaviours(week: Week) -> Iterator[Row]:
    for slate in range(SLATES):
        ad = _shown(slate, 1)
        time = _slate_time(week, slate) + 60 * MICROS_PER_SECOND
        yield {
            c.EVENT_TIME: time,
            c.KNOWN_TIME: time,
            c.USER: f"user-{slate % USERS}",
            c.AD: f"ad-{ad}",
            c.CATEGORY: f"category-{ad % 2}",
            c.ACTION: "cart" if slate % 5 == 0 else "view",
            c.DWELL_MS: 4_000 if slate % 5 else None,
        }


def _conversions(week: Week) -> Iterator[Row]:
    """Of every second click, known an hour later."""
    clicks = [
        (slate, position)
        for slate in range(SLATES)
        for position in range(1, SIZE + 1)
        if _clicked(slate, position)
    ]
    for slate, position in clicks[::2]:
        time = _slate_time(week, slate) + 600 * MICROS_PER_SECOND
        yield {
            c.EVENT_TIME: time,
            c.KNOWN_TIME: time + MICROS_PER_HOUR,
            c.IMPRESSION: f"{week}-{slate}:{position}",
            c.REVENUE: 19_990_000,
        }


def _ad(week: Week, number: int) -> Row:
    return {
        c.EVENT_TIME: week.start,
        c.KNOWN_TIME: week.start,
        c.AD: f"ad-{number}",
        c.CAMPAIGN: f"campaign-{number % 2}",
        c.ADVERTISER: "our-shop",
        c.CATEGORY: f"category-{number % 2}",
        c.BRAND: f"brand-{number}",
        c.AD_TYPE: "image",
        c.PRICE: 19_990_000,
        c.BID: 250_000,
        c.DAILY_BUDGET: None,
        c.CREATED_AT: week.start,
        c.ENDS_AT: None,
    }


def _user(week: Week, number: int) -> Row:
    return {
        c.EVENT_TIME: week.start,
        c.KNOWN_TIME: week.start,
        c.USER: f"user-{number}",
        "region": ("north", "south")[number % 2],
    }


def contract() -> str:
    """The data contract as Markdown, from the schemas."""
    parts = [_HEAD]
    for name, schema in SCHEMAS.items():
        parts.append(f"## {name}\n\n{ABOUT[name]}\n\n| column | type | may be empty | what it is |")
        parts.append("|---|---|---|---|")
        for column in schema:
            empty = "yes" if column.nullable else "no"
            parts.append(f"| {column.name} | {column.type} | {empty} | {MEANINGS[column.name]} |")
        if name == "users":
            parts.append("| any other | string | yes | a profile attribute, such as region |")
        parts.append("")
    return "\n".join(parts)


_HEAD = """# The data contract

A file a table and week: `<table>/week=YYYY-Www/part-0.csv` or `.parquet`, an ISO week from Monday
00:00 UTC. A week holds the rows that became known in it; `ads` and `users` are whole snapshots,
which hold until there is a newer one. Ids and other names have 1 to 128 characters. Money is in
micros, millionths of the currency.

`roiflow check FOLDER` says what is there and what is missing; see `docs/own-data.md`.
"""
