"""Validated weeks on Spark: requests and counted rows, with their dense indices and clocks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.lake import partition
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.features.plan import Plan
from roiflow.features.spec import ATTRIBUTION_DAYS, INTENT_ACTIONS
from roiflow.features.table import AD_ATTRIBUTES
from roiflow.features.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

COUNTS = ("impressions", "clicks", "conversions", "revenue", "behaviours", "intents")
"""What a row counts for; a return has revenue below 0 and counts for nothing else."""

BROADCAST_ROWS = 1_000_000
"""A table of at most so many rows is sent to every executor instead of shuffled."""

_TYPES = {
    "string": "string",
    "int32": "int",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
}
_KEYS = ("ad", "campaign", "category", "advertiser")
_MONEY = ("price", "bid")


class Inputs:
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

        # The embedded engine's own indices and not Spark's StringIndexer, whose numbers follow the
        # frequency in this data: equal features are equal to the bit only from equal indices.
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

        # A catalogue holds until the ad's next one, the first week's also for what happened before.
        # So the join is by two bounds, and the catalogue is small enough to broadcast.
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
            *(F.coalesce(name, F.lit(0)).alias(name) for name in _MONEY),
        )

    def _small(self, arrays: Mapping[str, pa.Array]) -> "DataFrame":
        from pyspark.sql import functions as F

        table = pa.table(dict(arrays))
        frame = self._spark.createDataFrame(table)
        return F.broadcast(frame) if table.num_rows <= BROADCAST_ROWS else frame


def _others(rows: "DataFrame", *left_out: str) -> list[str]:
    return [name for name in rows.columns if name not in left_out]


def _micros(name: str) -> "Column":
    from pyspark.sql import functions as F

    return F.unix_micros(F.col(name))


def rows_of(inputs: Inputs, plan: Plan) -> "DataFrame":
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
        *(F.lit(counts.get(name, 0)).cast("bigint").alias(name) for name in COUNTS),
    )


def _shown(inputs: Inputs, plan: Plan) -> "DataFrame":
    """Each impression as a request, and as the rows that count for it when they become known."""
    from pyspark.sql import functions as F

    shown = inputs.with_catalogue(inputs.table("impressions"))
    shown = inputs.with_ad(inputs.coded(shown, c.USER, "user"), plan)
    shown = inputs.coded(shown, c.PLACEMENT, "placement")
    shown = shown.join(_conversions(inputs), c.IMPRESSION, "left")
    known = _micros(c.KNOWN_TIME)
    later = F.col(c.CLICKED) & (_micros(c.CLICK_KNOWN_TIME) > known)
    # A click known together with its impression is one row with it; a later one is a row of its
    # own, since a window may lie between the two.
    apart = F.coalesce(later, F.lit(False))
    request = _row(_micros(c.EVENT_TIME)).withField("request", F.lit(True))
    together = _row(known, impressions=1, clicks=F.col(c.CLICKED) & ~apart)
    click = F.when(apart, _row(_micros(c.CLICK_KNOWN_TIME), clicks=1))
    # Up to three rows of one impression and those of its conversions, exploded at once: a union of
    # four tables would read and join the impressions four times.
    rows = F.array_compact(F.array(request, together, click))
    rows = F.concat(rows, F.coalesce(_converted(known), F.array()))
    keys = ("user", *_KEYS, "placement")
    exploded = shown.select(
        c.IMPRESSION,
        _micros(c.EVENT_TIME).alias(c.EVENT_TIME),
        *keys,
        *(F.when(F.col("ad") > 0, F.col(name)).otherwise(0).alias(name) for name in _MONEY),
        F.inline(rows),
    )
    asked = F.when(F.col("request"), F.col(c.IMPRESSION))
    return exploded.withColumn(c.IMPRESSION, asked)


def _conversions(inputs: Inputs) -> "DataFrame":
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


def _behaved(inputs: Inputs, plan: Plan) -> "DataFrame":
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
