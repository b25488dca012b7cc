"""The same features on Apache Spark, for logs that outgrow one machine.

Every feature of the plan is a difference of running sums: rows known before the end of its window
less rows known before the window opens. A running sum is one range frame over the rows of an
entity, so nothing is joined by inequality and no user or ad is ever held in memory as a whole. The
item side counts closed hours, so it is first summed by hour. Requests travel as rows that count
nothing through the same windows, and leave with their features.

Dictionaries, attributes and priors are the embedded engine's. Everything is a column expression:
there is no Python code in the executors.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.lake import partition
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.features.plan import Plan
from roiflow.features.spec import (
    ATTRIBUTION_DAYS,
    FINE_HOURS,
    INTENT_ACTIONS,
    ITEM_ENTITIES,
    RECENCY_CAP_HOURS,
    USER_ENTITIES,
    VALUE,
    FeatureSpec,
)
from roiflow.features.table import AD_ATTRIBUTES
from roiflow.features.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

HISTORY = "history"
"""Array of (ad, category, action, event_time), oldest first."""

_TYPES = {
    "string": "string",
    "int32": "int",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
}
_KEYS = ("ad", "campaign", "category", "advertiser")
_COUNTS = ("impressions", "clicks", "conversions", "revenue", "behaviours", "intents")
_NEEDS = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "value": ("revenue", "conversions"),
}
"""Numerator and denominator of each smoothed aggregate."""
_WEEK_HOURS = 168
_BROADCAST_ROWS = 1_000_000
"""A table of at most so many rows is sent to every executor instead of shuffled."""

Sum = tuple[str, str, int]
"""A running sum: what is summed, by which clock, and how many of its ticks before the row's own."""


def spark_session(master: str) -> "SparkSession":
    """The session on a master such as `local[*]`; the one that is there if it already runs."""
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master(master)
        .appName("roiflow")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.adaptive.enabled", "true")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
    )
    if master.startswith("local"):
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config(
            "spark.driver.host", "127.0.0.1"
        )
    return builder.getOrCreate()


def features(
    spark: "SparkSession", folder: Path, weeks: Sequence[Week], plan: Plan, vocabulary: Vocabulary
) -> "DataFrame":
    """A row per impression of the validated weeks: impression_id, dense features, history.

    The dense features are float32, in the plan's order. The item side's sums are cached: stop the
    session, or clear its cache, when the result is written.
    """
    from pyspark.sql import functions as F

    inputs = _Inputs(spark, folder, weeks, vocabulary)
    rows = _rows(inputs, plan)
    asked = _with_history(_user_side(rows, plan), plan.history_length)
    items = _item_side(rows, plan).persist()
    for entity in ITEM_ENTITIES:
        small = plan.sizes[entity] * len(weeks) * _WEEK_HOURS <= _BROADCAST_ROWS
        asked = _with_item(asked, items, entity, plan, broadcast=small)
    asked = asked.withColumns(_values())
    dense = (F.col(name).cast("float").alias(name) for name in plan.dense_names)
    return asked.select(c.IMPRESSION, *dense, HISTORY)


class _Inputs:
    """The validated weeks and the dictionaries, as data frames."""

    def __init__(
        self, spark: "SparkSession", folder: Path, weeks: Sequence[Week], vocabulary: Vocabulary
    ) -> None:
        self._spark, self._folder, self._weeks = spark, folder, weeks
        self._vocabulary = vocabulary

    def table(self, name: str) -> "DataFrame":
        """The rows of every week; a nullable column that a file lacks is null."""
        schema = ", ".join(f"{field.name} {_TYPES[str(field.type)]}" for field in SCHEMAS[name])
        paths = [partition(self._folder, name, week) for week in self._weeks]
        files = [str(path) for path in paths if path.exists()]
        if not files:
            return self._spark.createDataFrame([], schema)
        return self._spark.read.schema(schema).parquet(*files)

    def coded(self, rows: "DataFrame", column: str, kind: str) -> "DataFrame":
        """With the dense index of `column` as `kind`, 0 where it has none, in its place."""
        from pyspark.sql import functions as F

        ids = self._vocabulary.ids(kind)
        index = np.arange(1, len(ids) + 1, dtype=np.int32)
        codes = self._small({column: ids, "code": pa.array(index)})
        code = F.coalesce("code", F.lit(0)).alias(kind)
        return rows.join(codes, column, "left").select(*_others(rows, column), code)

    def with_ad(self, rows: "DataFrame", plan: Plan) -> "DataFrame":
        """With the dense indices of the ad and its attributes in the place of its id."""
        from pyspark.sql import functions as F

        ids = self._vocabulary.ids("ad")
        codes = {"ad": np.arange(1, len(ids) + 1, dtype=np.int32)} | {
            name: plan.attributes[1:, AD_ATTRIBUTES.index(name)] for name in _KEYS[1:]
        }
        ads = self._small({c.AD: ids, **{name: pa.array(code) for name, code in codes.items()}})
        return rows.join(ads, c.AD, "left").select(
            *_others(rows, c.AD, *_KEYS),
            *(F.coalesce(ads[name], F.lit(0)).alias(name) for name in _KEYS),
        )

    def with_catalogue(self, rows: "DataFrame") -> "DataFrame":
        """With the ad's price and bid in the catalogue of the event's week, else the one before."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        first, last = self._weeks[0].start, self._weeks[-1].end
        start = F.unix_micros(F.date_trunc("week", F.col(c.KNOWN_TIME)))
        newest = F.max_by(F.struct(c.PRICE, c.BID), c.KNOWN_TIME)
        by_week = (
            self.table("ads").groupBy(c.AD, start.alias("start")).agg(newest.alias("ad_values"))
        )
        until = F.lead("start", 1, last).over(Window.partitionBy(c.AD).orderBy("start"))
        since = F.when(F.col("start") > first, F.col("start")).otherwise(0)
        catalogue = by_week.select(
            c.AD, since.alias("since"), until.alias("until"), "ad_values.*"
        ).withColumnsRenamed({c.PRICE: "price", c.BID: "bid"})
        event = _micros(c.EVENT_TIME)
        at = (rows[c.AD] == catalogue[c.AD]) & (event >= F.col("since")) & (event < F.col("until"))
        return rows.join(F.broadcast(catalogue), at, "left").select(
            *(rows[name] for name in rows.columns),
            *(F.coalesce(name, F.lit(0)).alias(name) for name in ("price", "bid")),
        )

    def _small(self, arrays: Mapping[str, pa.Array]) -> "DataFrame":
        from pyspark.sql import functions as F

        table = pa.table(dict(arrays))
        frame = self._spark.createDataFrame(table)
        return F.broadcast(frame) if table.num_rows <= _BROADCAST_ROWS else frame


def _others(rows: "DataFrame", *left_out: str) -> list[str]:
    return [name for name in rows.columns if name not in left_out]


def _micros(name: str) -> "Column":
    from pyspark.sql import functions as F

    return F.unix_micros(F.col(name))


def _rows(inputs: _Inputs, plan: Plan) -> "DataFrame":
    """Requests and counted rows: keys, clocks, counts, and what goes with a request.

    Clocks are `time` in microseconds, `hour` and `day`, all since the epoch.
    """
    from pyspark.sql import functions as F

    rows = _shown(inputs, plan).unionByName(_behaved(inputs, plan), allowMissingColumns=True)
    return rows.withColumns(
        {
            "hour": F.expr(f"time div {MICROS_PER_HOUR}"),
            "day": F.expr(f"time div {MICROS_PER_DAY}"),
        }
    )


def _row(time: "Column", **counts: "Column | int") -> "Column":
    """A row that becomes known at `time` and counts for these."""
    from pyspark.sql import functions as F

    return F.struct(
        F.lit(False).alias("request"),
        time.alias("time"),
        *(F.lit(counts.get(name, 0)).cast("bigint").alias(name) for name in _COUNTS),
    )


def _shown(inputs: _Inputs, plan: Plan) -> "DataFrame":
    """Each impression as a request, and as the rows that count for it when they become known."""
    from pyspark.sql import functions as F

    shown = inputs.with_catalogue(inputs.table("impressions"))
    shown = inputs.with_ad(inputs.coded(shown, c.USER, "user"), plan)
    shown = inputs.coded(shown, c.PLACEMENT, "placement")
    shown = shown.join(_conversions(inputs), c.IMPRESSION, "left")
    known = _micros(c.KNOWN_TIME)
    later = F.col(c.CLICKED) & (_micros(c.CLICK_KNOWN_TIME) > known)
    apart = F.coalesce(later, F.lit(False))
    request = _row(_micros(c.EVENT_TIME)).withField("request", F.lit(True))
    together = _row(known, impressions=1, clicks=F.col(c.CLICKED) & ~apart)
    click = F.when(apart, _row(_micros(c.CLICK_KNOWN_TIME), clicks=1))
    rows = F.array_compact(F.array(request, together, click))
    rows = F.concat(rows, F.coalesce(_converted(known), F.array()))
    keys = ("user", *_KEYS, "placement")
    exploded = shown.select(
        c.IMPRESSION,
        _micros(c.EVENT_TIME).alias(c.EVENT_TIME),
        *keys,
        "price",
        "bid",
        F.inline(rows),
    )
    asked = F.when(F.col("request"), F.col(c.IMPRESSION))
    return exploded.withColumn(c.IMPRESSION, asked)


def _conversions(inputs: _Inputs) -> "DataFrame":
    """impression_id, and its conversions as an array of (time, revenue)."""
    from pyspark.sql import functions as F

    one = F.struct(_micros(c.KNOWN_TIME).alias("time"), F.col(c.REVENUE).alias("revenue"))
    all_of = F.collect_list(one).alias("conversions")
    return inputs.table("conversions").groupBy(c.IMPRESSION).agg(all_of)


def _converted(known: "Column") -> "Column":
    """The rows of an impression's conversions; null where it has none."""
    from pyspark.sql import functions as F

    end = known + ATTRIBUTION_DAYS * MICROS_PER_DAY
    attributed = F.filter("conversions", lambda row: row["time"] <= end)
    return F.transform(
        attributed,
        lambda row: _row(
            F.greatest(row["time"], known),
            conversions=row["revenue"] >= 0,  # a return is no conversion
            revenue=row["revenue"],
        ),
    )


def _behaved(inputs: _Inputs, plan: Plan) -> "DataFrame":
    """Each behaviour as a counted row; its category is its own.

    An action that the vocabulary does not know is no intent.
    """
    from pyspark.sql import functions as F

    rows = inputs.table("behaviours").withColumn("intent", F.col(c.ACTION).isin(*INTENT_ACTIONS))
    rows = inputs.with_ad(inputs.coded(rows, c.USER, "user"), plan).drop("category")
    rows = inputs.coded(inputs.coded(rows, c.CATEGORY, "category"), c.ACTION, "action")
    intent = F.col("intent") & (F.col("action") > 0)
    counted = _row(_micros(c.KNOWN_TIME), behaviours=1, intents=intent)
    return rows.withColumn("row", counted).select(
        "user", *_KEYS, "action", _micros(c.EVENT_TIME).alias(c.EVENT_TIME), "row.*"
    )


def _specs(plan: Plan, entity: str) -> list[FeatureSpec]:
    return [spec for spec in plan.specs if spec.entity == entity]


def _sums(spec: FeatureSpec) -> dict[str, tuple[Sum, Sum]]:
    """Of each count that the feature needs: the sums up to the window's end and its opening."""
    hours = spec.window_hours or 0
    end = ("time", 1) if spec.entity in USER_ENTITIES else ("hour", 1)
    opening = ("hour", hours + 1) if hours <= FINE_HOURS else ("day", hours // 24 + 1)
    counts = _NEEDS.get(spec.aggregate, (spec.aggregate,))
    return {count: ((count, *end), (count, *opening)) for count in counts}


def _name(running: Sum) -> str:
    count, clock, ticks = running
    return f"{count}_{clock}_{ticks}"


def _running(specs: Iterable[FeatureSpec], keys: Sequence[str]) -> dict[str, "Column"]:
    """The running sums of some features, by name: rows of the keys at least so many ticks ago."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    needed = {one for spec in specs for pair in _sums(spec).values() for one in pair}
    return {
        _name((count, clock, ticks)): F.coalesce(
            F.sum(count).over(
                Window.partitionBy(*keys)
                .orderBy(clock)
                .rangeBetween(Window.unboundedPreceding, -ticks)
            ),
            F.lit(0),
        )
        for count, clock, ticks in sorted(needed)
    }


def _feature(spec: FeatureSpec, plan: Plan) -> "Column":
    """See spec.py for the equations."""
    from pyspark.sql import functions as F

    count = {
        name: F.col(_name(end)) - F.col(_name(opening))
        for name, (end, opening) in _sums(spec).items()
    }
    if spec.aggregate not in _NEEDS:
        return F.log1p(count[spec.aggregate]).cast("float")
    hits, tries = (count[name] for name in _NEEDS[spec.aggregate])
    prior = getattr(plan, spec.aggregate)
    rate = (hits + plan.prior_strength * prior) / (tries + plan.prior_strength)
    if spec.aggregate == VALUE:
        rate = F.log1p(F.greatest(rate, F.lit(0.0)) / 1e6)
    return rate.cast("float")


def _user_side(rows: "DataFrame", plan: Plan) -> "DataFrame":
    """The rows with the features of the user's own entities, all in the user's partition."""
    rows = rows.repartition("user")
    for entity in USER_ENTITIES:
        if specs := _specs(plan, entity):
            sums = _running(specs, entity.split("_"))
            named = {spec.name: _feature(spec, plan) for spec in specs}
            rows = rows.withColumns(sums).withColumns(named).drop(*sums)
    return rows


def _with_history(rows: "DataFrame", length: int) -> "DataFrame":
    """The requests with the last behaviours known before them.

    Behaviour k of a user stands at place 2 k, a request after e behaviours at 2 e + 1: the last
    `length` ones are then a range of places.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    user = Window.partitionBy("user")
    behaved = F.col("behaviours")
    arrival = user.orderBy("time", F.col("request").desc(), c.EVENT_TIME, "ad", "action")
    before = F.sum(behaved).over(arrival.rowsBetween(Window.unboundedPreceding, 0))
    event = F.when(behaved == 1, F.struct("ad", "category", "action", c.EVENT_TIME))
    last = user.orderBy("place").rangeBetween(-2 * length, -1)
    return (
        rows.where(F.col("request") | (behaved == 1))
        .withColumn("place", 2 * before + F.col("request").cast("bigint"))
        .withColumn(HISTORY, F.collect_list(event).over(last))
        .where("request")
        .drop("place")
    )


def _item_side(rows: "DataFrame", plan: Plan) -> "DataFrame":
    """The running sums of every entity and key, at the hours that count or are asked for."""
    from pyspark.sql import functions as F

    specs = [spec for spec in plan.specs if spec.entity in ITEM_ENTITIES]
    entities = F.array(
        *(F.struct(F.lit(name).alias("entity"), F.col(name).alias("key")) for name in ITEM_ENTITIES)
    )
    counts = [name for name in _COUNTS if name not in ("behaviours", "intents")]
    hourly = (
        rows.where("behaviours = 0")
        .select("hour", "day", *counts, F.inline(entities))
        .groupBy("entity", "key", "hour", "day")
        .agg(*(F.sum(name).alias(name) for name in counts))
    )
    sums = _running(specs, ("entity", "key"))
    return hourly.withColumns(sums).select("entity", "key", "hour", *sums)


def _with_item(
    asked: "DataFrame", items: "DataFrame", entity: str, plan: Plan, *, broadcast: bool
) -> "DataFrame":
    """With the features of one entity at the request's hour."""
    from pyspark.sql import functions as F

    named = {spec.name: _feature(spec, plan) for spec in _specs(plan, entity)}
    found = items.where(F.col("entity") == entity).select(
        F.col("key").alias(entity), "hour", *(column.alias(name) for name, column in named.items())
    )
    return asked.join(F.broadcast(found) if broadcast else found, [entity, "hour"], "left")


def _values() -> dict[str, "Column"]:
    """The features that are no aggregates."""
    from pyspark.sql import functions as F

    last = F.get(HISTORY, F.size(HISTORY) - 1)[c.EVENT_TIME]
    hours = F.coalesce((F.col("time") - last) / MICROS_PER_HOUR, F.lit(RECENCY_CAP_HOURS))
    hour = 2 * np.pi / 24 * (F.col("hour") % 24)
    weekday = 2 * np.pi / 7 * ((F.col("day") + 3) % 7)
    return {
        "log_price": F.log1p(F.col("price") / 1e6),
        "log_bid": F.log1p(F.col("bid") / 1e6),
        "log_hours_since_behaviour": F.log1p(F.least(hours, F.lit(RECENCY_CAP_HOURS))),
        "hour_sin": F.sin(hour),
        "hour_cos": F.cos(hour),
        "weekday_sin": F.sin(weekday),
        "weekday_cos": F.cos(weekday),
    }
