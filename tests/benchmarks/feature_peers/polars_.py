"""Polars: one sort and one cumulative sum per entity, looked up by binary search.

Rows are numbered by the time they became known, so that (key, number) is one integer: a window's
count is the difference of the entity's cumulative sum at two of them. Requests are looked up in the
order of their keys, which keeps the search in cache.
"""

from pathlib import Path

import polars as pl

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.plan import Plan
from roiflow.features.spec import (
    ATTRIBUTION_DAYS,
    INTENT_ACTIONS,
    USER_ENTITIES,
    WINDOW_DAYS,
    FeatureSpec,
)
from tests.benchmarks.feature_peers.aggregates import (
    COUNTS,
    NEEDS,
    all_counts,
    by_entity,
    counts_of,
    windows,
)

KEYS = ("user", "ad", "campaign", "advertiser", "category", "placement")
TICKS = 1 << 26
"""More than there are rows, and than hours since the epoch."""


def run(folder: Path, plan: Plan, out: Path) -> None:
    """features.parquet and events.parquet (CSR histories) into `out`."""
    shown, behaved, converted = _read(folder)
    rows = _rows(shown, behaved, converted)
    asked = shown.select("impression_id", *KEYS, "t")
    found = [_history(asked, behaved, plan.history_length, out)]
    asked = pl.concat([asked, _ticks(asked, rows["known"], list(WINDOW_DAYS))], how="horizontal")
    found += [_entity(rows, asked, specs, plan) for _, specs in by_entity(plan)]
    pl.concat([asked.select("impression_id"), *found], how="horizontal").write_parquet(
        out / "features.parquet", compression="uncompressed", statistics=False
    )


def _micros(name: str) -> pl.Expr:
    return pl.col(name).dt.epoch("us")


def _code(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.Categorical).to_physical().cast(pl.Int64)


def _read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    def scan(table: str) -> pl.LazyFrame:
        return pl.scan_parquet(folder / table / "*" / "*.parquet", hive_partitioning=False)

    ads = scan("ads").unique("ad_id").select(
        "ad_id", campaign=_code("campaign_id"), advertiser=_code("advertiser_id"),
        category=_code("category_id"),
    )  # fmt: skip
    shown = scan("impressions").join(ads, on="ad_id", maintain_order="left").select(
        "impression_id", "campaign", "advertiser", "category", "clicked", t=_micros("event_time"),
        known=_micros("known_time"), user=_code("user_id"), ad=_code("ad_id"),
        placement=_code("placement"), click_known=_micros("click_known_time"),
    )  # fmt: skip
    behaved = scan("behaviours").join(ads.drop("category"), on="ad_id").select(
        "campaign", "advertiser", "action", category=_code("category_id"), user=_code("user_id"),
        ad=_code("ad_id"), event_time=_micros("event_time"), known=_micros("known_time"),
    )  # fmt: skip
    converted = scan("conversions").select(
        "impression_id", "revenue_micros", converted=_micros("known_time")
    )
    first, second, third = pl.collect_all([shown, behaved, converted])
    return first, second, third


def _rows(shown: pl.DataFrame, behaved: pl.DataFrame, converted: pl.DataFrame) -> pl.DataFrame:
    """Counted rows in the order in which they became known."""
    zero = {name: pl.lit(0, pl.Int32) for name in COUNTS if name != "revenue"}
    zero |= {"revenue": pl.lit(0, pl.Int64)}

    def counted(rows: pl.LazyFrame, known: pl.Expr, **counts: pl.Expr) -> pl.LazyFrame:
        typed = {name: one.cast(zero_type(name)) for name, one in counts.items()}
        return rows.select(*KEYS, known=known, **(zero | typed))

    def zero_type(name: str) -> type[pl.DataType]:
        return pl.Int64 if name == "revenue" else pl.Int32

    one, impressions = pl.lit(1), shown.lazy()
    apart = pl.col("clicked") & (pl.col("click_known") > pl.col("known")).fill_null(value=False)
    late = pl.max_horizontal("converted", "known")
    attributed = (late - pl.col("known")) <= ATTRIBUTION_DAYS * MICROS_PER_DAY
    return (
        pl.concat(
            [
                counted(
                    impressions, pl.col("known"), impressions=one, clicks=pl.col("clicked") & ~apart
                ),
                counted(impressions.filter(apart), pl.col("click_known"), clicks=one),
                counted(
                    converted.lazy().join(impressions, on="impression_id").filter(attributed),
                    late,
                    conversions=one,
                    revenue=pl.col("revenue_micros"),
                ),
                counted(
                    behaved.lazy().with_columns(placement=pl.lit(0, pl.Int64)),
                    pl.col("known"),
                    behaviours=one,
                    intents=pl.col("action").is_in(INTENT_ACTIONS),
                ),
            ]
        )
        .sort("known")
        .collect()
    )


def _history(asked: pl.DataFrame, behaved: pl.DataFrame, length: int, out: Path) -> pl.DataFrame:
    """Start and end of each request's history in the events, which are written beside."""
    events = behaved.sort("user", "known", "event_time", "ad")
    events.write_parquet(out / "events.parquet", compression="uncompressed", statistics=False)
    times = events["known"].sort()
    size = len(events) + 1
    place = events.select(
        pl.col("user") * size + pl.Series(times.search_sorted(events["known"], "left"))
    ).to_series()
    order = asked.select("user", "t").with_row_index().sort("user", "t")
    first = place.search_sorted(order["user"] * size, "left")
    end = place.search_sorted(
        order["user"] * size + times.search_sorted(order["t"], "left").cast(pl.Int64), "left"
    )
    found = pl.DataFrame({"index": order["index"], "first": first, "history_end": end})
    start = pl.max_horizontal("first", pl.col("history_end").cast(pl.Int64) - length)
    return found.sort("index").select("history_end", history_start=start)


def _ticks(asked: pl.DataFrame, known: pl.Series, days: list[int]) -> pl.DataFrame:
    """When windows end and open: in row numbers for the user side, in hours for the item side."""
    today = pl.col("t") // MICROS_PER_DAY * MICROS_PER_DAY
    opens = {f"{n}": today - n * MICROS_PER_DAY for n in days} | {"end": pl.col("t")}
    times = asked.select("t").with_row_index().sort("t").select("index", **opens)
    ticks = times.select(
        "index",
        *(
            pl.lit(known).search_sorted(pl.col(name), "left").cast(pl.Int64).alias(f"user_{name}")
            for name in opens
        ),
        *((pl.col(name) // MICROS_PER_HOUR).alias(f"item_{name}") for name in opens),
    )
    return ticks.sort("index").drop("index")


def _entity(
    rows: pl.DataFrame, asked: pl.DataFrame, specs: list[FeatureSpec], plan: Plan
) -> pl.DataFrame:
    """The features of one entity, in the order of `asked`."""
    side = "user" if specs[0].entity in USER_ENTITIES else "item"
    key, counts = pl.lit(0, pl.Int64), all_counts(specs)
    for name in specs[0].entity.split("_"):
        key = key * (rows[name].max() + 1) + pl.col(name)  # type: ignore[operator]
    if side == "user":
        table = rows.lazy().select(*counts, at=key * TICKS + pl.int_range(pl.len()))
    else:
        hour = pl.col("known") // MICROS_PER_HOUR
        items = rows.lazy().filter(pl.col("behaviours") == 0)
        table = items.group_by(at=key * TICKS + hour).agg(pl.col(counts).sum())
    ordered = table.sort("at").collect()
    sums = pl.concat([ordered.select(counts).clear(1), ordered.select(counts)])
    sums = sums.select(pl.all().fill_null(0).cast(pl.Int64).cum_sum())
    ends = [f"{side}_end", *(f"{side}_{days}" for days in windows(specs))]
    order = asked.lazy().with_row_index().select("index", *ends, key=key).sort("key", ends[0])
    places = order.select(
        "index",
        *(
            pl.lit(ordered["at"])
            .search_sorted(pl.col("key") * TICKS + pl.col(end), "left")
            .alias(end)
            for end in ends
        ),
    ).collect()
    found = places.select(
        pl.lit(sums[name]).gather(pl.col(end)).alias(f"{name}_{end}")
        for end in ends
        for name in _counts_at(end, specs)
    )
    features = found.select(_feature(spec, side, plan) for spec in specs)
    return features.with_columns(places["index"]).sort("index").drop("index")


def _counts_at(end: str, specs: list[FeatureSpec]) -> list[str]:
    """The counts that are needed where a window ends or opens."""
    opens = [spec for spec in specs if end.endswith(f"_{spec.window_days}")]
    return all_counts(specs if end.endswith("_end") else opens)


def _feature(spec: FeatureSpec, side: str, plan: Plan) -> pl.Expr:
    count = {
        name: pl.col(f"{name}_{side}_end") - pl.col(f"{name}_{side}_{spec.window_days}")
        for name in counts_of(spec)
    }
    if spec.aggregate not in NEEDS:
        return count[spec.aggregate].log1p().cast(pl.Float32).alias(spec.name)
    hits, tries = count.values()
    strength, prior = plan.prior_strength, getattr(plan, spec.aggregate)
    rate = (hits + strength * prior) / (tries + strength)
    rate = (rate / 1e6).log1p() if spec.aggregate == "value" else rate
    return rate.cast(pl.Float32).alias(spec.name)
