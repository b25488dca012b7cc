"""DuckDB: cumulative sums per entity, and an ASOF join for each end of each window."""

import os
from pathlib import Path

import duckdb

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.plan import Plan
from roiflow.features.spec import ATTRIBUTION_DAYS, INTENT_ACTIONS, USER_ENTITIES, FeatureSpec
from tests.benchmarks.feature_peers.aggregates import (
    NEEDS,
    all_counts,
    by_entity,
    counts_of,
    windows,
)

CODES = ("user", "ad", "campaign", "advertiser", "category", "placement")


def run(folder: Path, plan: Plan, out: Path) -> None:
    """features.parquet and events.parquet (CSR histories) into `out`."""
    with duckdb.connect(str(out / "work.duckdb")) as db:
        db.execute(f"SET threads = {os.environ['PEER_THREADS']}; SET TimeZone = 'UTC'")
        db.execute("SET preserve_insertion_order = false")
        db.execute(_TABLES.format(folder=folder))
        _history(db, plan.history_length, out)
        entities = [entity for entity, _ in by_entity(plan)]
        for entity, specs in by_entity(plan):
            _entity(db, entity, specs, plan)
        joins = " ".join(f"JOIN f_{entity} USING (i)" for entity in entities)
        db.execute(
            f"COPY (SELECT * EXCLUDE (i) FROM (SELECT i, impression_id FROM shown) {joins} "
            f"JOIN f_history USING (i)) TO '{out}/features.parquet' (COMPRESSION uncompressed)"
        )
    (out / "work.duckdb").unlink()


_INTENTS = ", ".join(f"'{action}'" for action in INTENT_ACTIONS)
_TABLES = f"""
CREATE TEMP TABLE users AS SELECT user_id, row_number() OVER ()::INT AS "user" FROM (
    SELECT user_id FROM '{{folder}}/impressions/*/*.parquet'
    UNION SELECT user_id FROM '{{folder}}/behaviours/*/*.parquet');
CREATE TEMP TABLE ads AS SELECT ad_id, row_number() OVER ()::INT AS ad,
    dense_rank() OVER (ORDER BY campaign_id)::INT AS campaign,
    dense_rank() OVER (ORDER BY advertiser_id)::INT AS advertiser,
    dense_rank() OVER (ORDER BY category_id)::INT AS category, category_id
    FROM (SELECT DISTINCT ad_id, campaign_id, advertiser_id, category_id
        FROM '{{folder}}/ads/*/*.parquet');
CREATE TEMP TABLE categories AS SELECT DISTINCT category_id, category FROM ads;
CREATE TEMP TABLE shown AS SELECT row_number() OVER ()::INT AS i, impression_id, "user", ad,
    campaign, advertiser, category, hash(placement) AS placement, epoch_us(event_time) AS t,
    epoch_us(known_time) AS known, clicked,
    clicked AND coalesce(click_known_time > known_time, false) AS apart,
    epoch_us(click_known_time) AS click_known
    FROM '{{folder}}/impressions/*/*.parquet' JOIN users USING (user_id) JOIN ads USING (ad_id);
CREATE TEMP TABLE behaved AS SELECT "user", ad, campaign, advertiser, categories.category,
    action IN ({_INTENTS}) AS intent, action, epoch_us(event_time) AS event_time,
    epoch_us(known_time) AS known
    FROM '{{folder}}/behaviours/*/*.parquet' b JOIN users USING (user_id) JOIN ads USING (ad_id)
    JOIN categories ON categories.category_id = b.category_id;
CREATE TEMP TABLE counted AS
    SELECT "user", ad, campaign, advertiser, category, placement, known, 1 AS impressions,
        (clicked AND NOT apart)::INT AS clicks, 0 AS conversions, 0::BIGINT AS revenue,
        0 AS behaviours, 0 AS intents FROM shown
    UNION ALL SELECT "user", ad, campaign, advertiser, category, placement, click_known,
        0, 1, 0, 0, 0, 0 FROM shown WHERE apart
    UNION ALL SELECT "user", ad, campaign, advertiser, category, placement,
        greatest(known, epoch_us(known_time)), 0, 0, 1, revenue_micros, 0, 0
    FROM shown JOIN '{{folder}}/conversions/*/*.parquet' USING (impression_id)
    WHERE greatest(known, epoch_us(known_time)) - known <= {ATTRIBUTION_DAYS * MICROS_PER_DAY}
    UNION ALL SELECT "user", ad, campaign, advertiser, category, NULL, known, 0, 0, 0, 0, 1,
        intent::INT FROM behaved;
"""


def _history(db: duckdb.DuckDBPyConnection, length: int, out: Path) -> None:
    """Start and end of each request's history in the events, which are written beside."""
    db.execute(
        'CREATE TEMP TABLE events AS SELECT *, row_number() OVER (ORDER BY "user", known, '
        "event_time, ad) AS number FROM behaved; CREATE TEMP TABLE f_history AS "
        "SELECT i, coalesce(last, first, 0) AS history_end, "
        f"greatest(coalesce(last - {length}, 0), coalesce(first, 0)) AS history_start "
        'FROM shown ASOF LEFT JOIN (SELECT "user", known, max(number) OVER (PARTITION BY "user" '
        "ORDER BY known) AS last FROM events) events ON "
        'shown."user" = events."user" AND t > events.known '
        'LEFT JOIN (SELECT "user", min(number) - 1 AS first FROM events GROUP BY "user") firsts '
        'ON firsts."user" = shown."user"'
    )
    db.execute(
        f"COPY (SELECT * EXCLUDE (number) FROM events ORDER BY number) TO '{out}/events.parquet' "
        "(COMPRESSION uncompressed)"
    )


def _entity(
    db: duckdb.DuckDBPyConnection, entity: str, specs: list[FeatureSpec], plan: Plan
) -> None:
    """f_<entity>: the features of each request."""
    personal = entity in USER_ENTITIES
    keys = ", ".join(f'"{key}"' for key in entity.split("_"))
    counts = all_counts(specs)
    sums = ", ".join(
        f"sum({name}) OVER (PARTITION BY {keys} ORDER BY known)::BIGINT AS {name}"
        for name in counts
    )
    source = "counted" if personal else _hourly(keys, counts)
    db.execute(f"CREATE OR REPLACE TEMP TABLE sums AS SELECT {keys}, known, {sums} FROM {source}")
    end = "t" if personal else f"t // {MICROS_PER_HOUR} * {MICROS_PER_HOUR}"
    bounds = {"e": end} | {
        f"w{days}": f"t // {MICROS_PER_DAY} * {MICROS_PER_DAY} - {days * MICROS_PER_DAY}"
        for days in windows(specs)
    }
    # Sums at the end of the window, and before each opening, one ASOF join each.
    joins = " ".join(
        f"ASOF LEFT JOIN sums {name} ON {_same(name, entity)} AND q.{name}_at > {name}.known"
        for name in bounds
    )
    ats = ", ".join(f"{bound} AS {name}_at" for name, bound in bounds.items())
    asked = f"(SELECT i, {keys}, {ats} FROM shown) q"
    features = ", ".join(f"{_feature(spec, plan)} AS {spec.name}" for spec in specs)
    db.execute(f"CREATE TEMP TABLE f_{entity} AS SELECT i, {features} FROM {asked} {joins}")


def _hourly(keys: str, counts: list[str]) -> str:
    sums = ", ".join(f"sum({name}) AS {name}" for name in counts)
    return (
        f"(SELECT {keys}, known // {MICROS_PER_HOUR} * {MICROS_PER_HOUR} AS known, {sums} "
        "FROM counted WHERE behaviours = 0 GROUP BY ALL)"
    )


def _same(name: str, entity: str) -> str:
    return " AND ".join(f'q."{key}" = {name}."{key}"' for key in entity.split("_"))


def _feature(spec: FeatureSpec, plan: Plan) -> str:
    count = {
        name: f"(coalesce(e.{name}, 0) - coalesce(w{spec.window_days}.{name}, 0))"
        for name in counts_of(spec)
    }
    if spec.aggregate not in NEEDS:
        return f"ln(1 + {count[spec.aggregate]})::FLOAT"
    hits, tries = count.values()
    strength, prior = plan.prior_strength, float(getattr(plan, spec.aggregate))
    rate = f"({hits} + {strength} * {prior!r}::DOUBLE) / ({tries} + {strength})"
    return f"ln(1 + ({rate}) / 1e6)::FLOAT" if spec.aggregate == "value" else f"({rate})::FLOAT"
