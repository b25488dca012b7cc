"""A panel of two households and two stores, small enough to count by hand."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek

WEEK = Week(2017, 3)  # panel week 4: 16 to 22 January
HISTORY = 2

PRODUCTS = [
    # id, manufacturer, department, brand, category, type
    (10, 1, "GROCERY", "National", "MILK", "WHOLE MILK"),
    (11, 2, "GROCERY", "Private", "MILK", "WHOLE MILK"),
    (20, 1, "GROCERY", "National", "BREAD", "RYE"),
    (30, 3, "PASTRY", "National", "CAKE", "LAYERS"),
    (40, 3, "MISC", "National", None, None),
]


def line(
    household: int,
    store: int,
    product: int,
    time: str,
    sales: float,
    retail: float = 0.0,
    coupon: float = 0.0,
    match: float = 0.0,
    quantity: int = 1,
) -> dict[str, Any]:
    return {
        "household_id": household,
        "store_id": store,
        "product_id": product,
        "quantity": quantity,
        "sales_value": sales,
        "retail_disc": retail,
        "coupon_disc": coupon,
        "coupon_match_disc": match,
        "transaction_timestamp": datetime.fromisoformat(time),
    }


LINES = [
    line(1, 7, 10, "2017-01-03 12:00:00", 2.0),  # panel week 2: history of household 1
    line(1, 8, 20, "2017-01-10 12:00:00", 3.0, retail=1.0, quantity=2),  # week 3: history
    line(2, 7, 30, "2017-01-10 12:00:00", 5.0),  # week 3: history of household 2
    line(2, 7, 40, "2017-01-11 12:00:00", 1.0),  # a product without a type
    # Panel week 4 begins on 16 January, 5:00 UTC. Household 1 visits store 7 twice.
    line(1, 7, 30, "2017-01-16 05:00:00", 5.0),  # exposure; not bought before: no impression
    line(1, 7, 11, "2017-01-18 10:00:00", 2.5, retail=0.5, coupon=0.25, match=0.25),
    line(1, 7, 11, "2017-01-18 11:00:00", 2.5, retail=0.5),
    line(2, 7, 40, "2017-01-17 10:00:00", 1.0),  # exposure of household 2
    line(2, 9, 30, "2017-01-19 10:00:00", 5.0),  # in a store without mailer
    line(2, 7, 99, "2017-01-23 04:59:59", 1.0),  # Sunday in New York; a product not described
    line(2, 7, 30, "2017-01-23 05:00:00", 5.0),  # the week after
]

PROMOTIONS = [
    # product, store, week, mailer
    (10, 7, 3, "A"),  # another week
    (10, 7, 4, "A"),
    (11, 7, 4, "D"),
    (11, 7, 4, "F"),  # a second placement of the same product in the same store
    (20, 7, 4, "0"),  # displayed, not in the mailer
    (20, 8, 4, "A"),  # a store that nobody visited
    (30, 7, 4, "H"),
    (40, 7, 4, "A"),  # no product type
    (77, 7, 4, "A"),  # not described
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        "product_id",
        "manufacturer_id",
        "department",
        "brand",
        "product_category",
        "product_type",
    ]
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*PRODUCTS, strict=True)), strict=True))),
        tmp_path / "products.parquet",
    )
    pq.write_table(pa.Table.from_pylist(LINES), tmp_path / "transactions.parquet")
    product, store, week, mailer = map(list, zip(*PROMOTIONS, strict=True))
    promotions = {
        "product_id": product,
        "store_id": store,
        "display_location": ["0"] * len(product),
        "mailer_location": mailer,
        "week": week,
    }
    pq.write_table(pa.table(promotions), tmp_path / "promotions.parquet")
    demographics = {"household_id": [2], "age": ["35-44"], "income": [None]} | {
        name: ["x"]
        for name in (
            "home_ownership",
            "marital_status",
            "household_size",
            "household_comp",
            "kids_count",
        )
    }
    pq.write_table(
        pa.table(demographics).cast(
            pa.schema(
                [("household_id", pa.int64()), *((n, pa.string()) for n in [*demographics][1:])]
            )
        ),
        tmp_path / "demographics.parquet",
    )
    return tmp_path


@pytest.fixture
def tables(folder: Path) -> Tables:
    return CompleteJourney(folder, HISTORY).pull(WEEK, WEEK.end)


def micros(time: str) -> int:
    return int(datetime.fromisoformat(time + "+00:00").timestamp()) * 1_000_000


def column(table: pa.Table, name: str) -> list[Any]:
    values = table[name]
    return (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()


def test_impressions_are_mailer_products_of_types_bought_before(tables: Tables) -> None:
    found = tables["impressions"]
    assert column(found, c.IMPRESSION) == [
        "2017-W03-1-7-10",
        "2017-W03-1-7-11",
        "2017-W03-2-7-30",
    ]
    assert column(found, c.REQUEST) == column(found, c.IMPRESSION)
    assert column(found, c.USER) == ["1", "1", "2"]
    assert column(found, c.AD) == ["10", "11", "30"]
    assert column(found, c.PLACEMENT) == ["A", "D", "H"]


def test_the_exposure_is_the_first_basket_in_the_store_in_new_york_time(tables: Tables) -> None:
    found = tables["impressions"]
    first = micros("2017-01-16T00:00:00")
    assert column(found, c.EVENT_TIME) == [first, first, micros("2017-01-17T05:00:00")]
    assert column(found, c.KNOWN_TIME) == [WEEK.end - 1] * 3


def test_clicked_is_a_purchase_of_the_product_type(tables: Tables) -> None:
    # Household 1 bought product 11 in store 7: its type engages products 10 and 11 alike.
    # Household 2 bought a cake in store 9 only.
    assert column(tables["impressions"], c.CLICKED) == [True, True, False]


def test_a_conversion_sums_the_lines_of_the_product_itself(tables: Tables) -> None:
    found = tables["conversions"]
    assert column(found, c.IMPRESSION) == ["2017-W03-1-7-11"]
    assert column(found, c.REVENUE) == [5_000_000]
    assert column(found, c.EVENT_TIME) == [micros("2017-01-18T05:00:00")]
    assert column(found, c.KNOWN_TIME) == [WEEK.end - 1]
    # 0.50 + 0.25 + 0.25 + 0.50 of discounts paid for it.
    assert column(tables["impressions"], c.COST) == [0, 1_500_000, 0]


def test_price_and_bid_know_only_the_weeks_before(tables: Tables) -> None:
    ads = {row[c.AD]: row for row in tables["ads"].to_pylist()}
    assert sorted(ads) == ["10", "11", "20", "30", "40"]
    # 10: 2.0 for one. 11: never sold, the mean of its type. 20: 3.0 for two. 30: 5.0.
    price = [ads[ad][c.PRICE] for ad in ("10", "11", "20", "30", "40")]
    assert price == [2_000_000, 2_000_000, 1_500_000, 5_000_000, 1_000_000]
    # One line was discounted before the week, by 1.0: the mean of all.
    assert {ads[ad][c.BID] for ad in ads} == {1_000_000}
    assert set(column(tables["impressions"], c.BID)) == {1_000_000}


def test_ads_carry_the_products_attributes(tables: Tables) -> None:
    ads = {row[c.AD]: row for row in tables["ads"].to_pylist()}
    names = (c.CAMPAIGN, c.ADVERTISER, c.CATEGORY, c.BRAND, c.AD_TYPE)
    assert [ads["11"][name] for name in names] == [
        "MILK",
        "2",
        "WHOLE MILK",
        "Private",
        "GROCERY",
    ]
    assert ads["40"][c.CATEGORY] == "unknown"


def test_behaviours_are_the_weeks_lines_known_at_once(tables: Tables) -> None:
    found = tables["behaviours"]
    assert column(found, c.AD) == ["30", "40", "11", "11", "30", "99"]
    assert column(found, c.ACTION) == [
        "purchase",
        "purchase",
        "coupon",
        "purchase",
        "purchase",
        "purchase",
    ]
    assert column(found, c.EVENT_TIME)[-1] == WEEK.end - 1_000_000
    assert column(found, c.KNOWN_TIME) == column(found, c.EVENT_TIME)
    assert column(found, c.CATEGORY)[-1] == "unknown"


def test_users_are_all_households(tables: Tables) -> None:
    users = tables["users"].to_pylist()
    assert [(row[c.USER], row["age"], row["income"]) for row in users] == [
        ("1", "unknown", "unknown"),
        ("2", "35-44", "unknown"),
    ]


def test_labels_are_known_only_when_the_week_has_closed(folder: Path) -> None:
    early = CompleteJourney(folder, HISTORY).pull(WEEK, micros("2017-01-18T05:30:00"))
    assert early["impressions"].num_rows == early["conversions"].num_rows == 0
    assert column(early["behaviours"], c.AD) == ["30", "40", "11"]
    assert early["ads"].num_rows == 5


@pytest.mark.parametrize("week", [Week(2017, 2), Week(2018, 1), Week(2016, 1)])
def test_a_week_without_history_does_not_exist(folder: Path, week: Week) -> None:
    with pytest.raises(UnknownWeek, match=f"2017-W03 to 2017-W52.*2 weeks.*not {week}"):
        CompleteJourney(folder, HISTORY).pull(week, week.end)


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b"x"), lambda path: path.write_bytes(b"")]
)
@pytest.mark.parametrize("name", ["products", "transactions", "promotions", "demographics"])
def test_a_missing_or_corrupt_file_is_named(
    folder: Path, name: str, spoil: Callable[[Path], object]
) -> None:
    spoil(folder / f"{name}.parquet")
    with pytest.raises(SourceError, match=f"{name}.parquet: "):
        CompleteJourney(folder, HISTORY).pull(WEEK, WEEK.end)
