"""The same features on Apache Spark, for logs that outgrow one machine.

Every feature of the plan is a difference of running sums: rows known before the end of its window
less rows known before the window opens. A running sum is one range frame over the rows of an
entity, so nothing is joined by inequality, and rows that do not fit into memory spill. The item
side counts closed hours, so it is first summed by hour. Requests travel as rows that count nothing
through the same windows, and leave with their features.

Dictionaries, attributes and priors are the embedded engine's. Everything is a column expression:
there is no Python code in the executors.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.features.kernels import LARGEST_SUM
from roiflow.features.plan import Plan
from roiflow.features.spec import (
    ITEM_ENTITIES,
    RECENCY_CAP_HOURS,
    USER_ENTITIES,
    VALUE,
    FeatureSpec,
)
from roiflow.features.vocabulary import Vocabulary
from roiflow.spark.rows import BROADCAST_ROWS, COUNTS, Inputs, rows_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

HISTORY = "history"
"""Array of (ad, category, action, event_time), oldest first."""

REVENUE = "revenue"

_NEEDS = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "value": (REVENUE, "conversions"),
}
"""Numerator and denominator of each smoothed aggregate."""
_WEEK_HOURS = 168

Sum = tuple[str, str, int]
"""A running sum: what is summed, by which clock, and how many of its ticks before the row's own."""

_TIES = ("ad", "action", "category")
"""Order of behaviours that happened and became known together."""


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

    inputs = Inputs(spark, folder, weeks, vocabulary)
    rows = rows_of(inputs, plan)
    asked = _with_history(_user_side(rows, plan), plan.history_length)
    items = _item_side(rows, plan).persist()
    for entity in ITEM_ENTITIES:
        small = plan.sizes[entity] * len(weeks) * _WEEK_HOURS <= BROADCAST_ROWS
        asked = _with_item(asked, items, entity, plan, broadcast=small)
    asked = asked.withColumns(_values())
    dense = (F.col(name).cast("float").alias(name) for name in plan.dense_names)
    return asked.select(c.IMPRESSION, *dense, HISTORY)


def _specs(plan: Plan, entity: str) -> list[FeatureSpec]:
    return [spec for spec in plan.specs if spec.entity == entity]


def _sums(spec: FeatureSpec) -> dict[str, tuple[Sum, Sum]]:
    """Of each count that the feature needs: the sums up to the window's end and its opening."""
    # A window is a difference of two running sums, so all windows of an entity share one sort, and
    # their ends need no join. User windows end at the row's own time, item windows at its full
    # hour; both open at full days, as the online store's buckets do.
    end = ("time", 1) if spec.entity in USER_ENTITIES else ("hour", 1)
    opening = ("day", (spec.window_days or 0) + 1)
    counts = _NEEDS.get(spec.aggregate, (spec.aggregate,))
    return {count: ((count, *end), (count, *opening)) for count in counts}


def _name(running: Sum) -> str:
    count, clock, ticks = running
    return f"{count}_{clock}_{ticks}"


def _wide(count: str) -> "Column":
    """Money is summed in 38 digits: 64 bits would wrap, or end the job."""
    from pyspark.sql import functions as F

    return F.col(count).cast("decimal(38,0)") if count == REVENUE else F.col(count)


def _running(specs: Iterable[FeatureSpec], keys: Sequence[str]) -> dict[str, "Column"]:
    """The running sums of some features, by name: rows of the keys at least so many ticks ago."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    needed = {one for spec in specs for pair in _sums(spec).values() for one in pair}
    return {
        _name((count, clock, ticks)): F.coalesce(
            F.sum(_wide(count)).over(
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
    hits, tries = (count[name].cast("double") for name in _NEEDS[spec.aggregate])
    if spec.aggregate == VALUE:
        hits = F.greatest(F.least(hits, F.lit(float(LARGEST_SUM))), F.lit(float(-LARGEST_SUM)))
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
    # Spark has no as-of join, and a range join would compare every request with every behaviour.
    # Requests sorted among the behaviours find theirs as a frame of one window.
    behaved = F.col("behaviours")
    arrival = user.orderBy("time", F.col("request").desc(), c.EVENT_TIME, *_TIES)
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
    # By hour first: the item side has a row for each ad and hour and not for each impression, which
    # makes most entities' sums small enough to be broadcast.
    counts = [name for name in COUNTS if name not in ("behaviours", "intents")]
    hourly = (
        rows.where("behaviours = 0")
        .select("hour", "day", *counts, F.inline(entities))
        .groupBy("entity", "key", "hour", "day")
        .agg(*(F.sum(_wide(name)).alias(name) for name in counts))
    )
    sums = _running(specs, ("entity", "key"))
    return hourly.withColumns(sums).select("entity", "key", "hour", *sums)


def _with_item(
    asked: "DataFrame", items: "DataFrame", entity: str, plan: Plan, *, broadcast: bool
) -> "DataFrame":
    """With the features of one entity at the request's hour."""
    from pyspark.sql import functions as F

    named = {spec.name: _feature(spec, plan) for spec in _specs(plan, entity)}
    if not named:
        return asked
    found = items.where(F.col("entity") == entity).select(
        F.col("key").alias(entity), "hour", *(column.alias(name) for name, column in named.items())
    )
    return asked.join(F.broadcast(found) if broadcast else found, [entity, "hour"], "left")


def _values() -> dict[str, "Column"]:
    """The features that are no aggregates."""
    from pyspark.sql import functions as F

    last = F.get(HISTORY, F.size(HISTORY) - 1)[c.EVENT_TIME]
    hours = F.coalesce((F.col("time") - last) / MICROS_PER_HOUR, F.lit(RECENCY_CAP_HOURS))
    return {
        "log_price": F.log1p(F.col("price") / 1e6),
        "log_bid": F.log1p(F.col("bid") / 1e6),
        "log_hours_since_behaviour": F.log1p(F.least(hours, F.lit(RECENCY_CAP_HOURS))),
    }
