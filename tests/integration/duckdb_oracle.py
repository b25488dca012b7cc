"""Every feature by plain inequality joins over the validated files: slow, and its own reading.

Nothing is taken from the engines but what they are given: dictionaries, priors and the start of the
test period. Rows are counted one by one with `count(*) FILTER`.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from roiflow.data.weeks import Week
from roiflow.features.plan import Plan
from roiflow.features.vocabulary import Vocabulary

LIST = """
user: ctr 56d; conversions 56d; behaviours 56d
user_category: clicks 56d; ctr 56d; behaviours 7d 56d
user_advertiser: ctr 56d; behaviours 56d
user_ad: clicks 56d; ctr 56d; behaviours 7d 56d
ad: ctr 56d; cvr 56d
campaign: ctr 56d; cvr 56d
category: cvr 56d
"""
INTENTS = "('favourite', 'cart', 'purchase', 'like', 'follow', 'comment', 'forward')"
HOUR, DAY = "3600000000", "86400000000"

VALUES = {
    "log_price": "ln(1 + price / 1e6)",
    "log_bid": "ln(1 + bid / 1e6)",
    "log_hours_since_behaviour": f"ln(1 + least(coalesce((t - last) / {HOUR}, 720), 720))",
}

COUNTED = {
    "impressions": "impression", "clicks": "click", "conversions": "conversion",
    "behaviours": "behaviour", "intents": "intent",
}  # fmt: skip
RATIOS = {
    "ctr": ("clicks", "impressions"),
    "cvr": ("conversions", "clicks"),
    "value": ("revenue", "conversions"),
}

TABLES = f"""
CREATE TABLE settled AS
    SELECT code('ad', ad_id) AS ad, code('campaign', campaign_id) AS campaign,
        code('advertiser', advertiser_id) AS advertiser, code('category', category_id) AS category
    FROM (SELECT *, epoch_us(known_time) AS known FROM ads_files)
    WHERE code('ad', ad_id) > 0
    QUALIFY row_number() OVER (
        PARTITION BY ad_id
        ORDER BY known >= test(), CASE WHEN known >= test() THEN known ELSE -known END) = 1;
CREATE TABLE shown AS
    SELECT impression_id, ad_id, f.user, f.ad, coalesce(campaign, 0) AS campaign,
        coalesce(advertiser, 0) AS advertiser, coalesce(category, 0) AS category,
        f.placed AS placement,
        epoch_us(event_time) AS t, epoch_us(known_time) AS known, clicked,
        greatest(epoch_us(known_time), coalesce(epoch_us(click_known_time), 0)) AS click_known
    FROM (SELECT *, code('user', user_id) AS user, code('ad', ad_id) AS ad,
        code('placement', placement) AS placed FROM impressions_files) f
    LEFT JOIN settled ON f.ad = settled.ad;
CREATE TABLE behaved AS
    SELECT f.user, f.ad, coalesce(campaign, 0) AS campaign, coalesce(advertiser, 0) AS advertiser,
        f.category, f.did AS action, f.did > 0 AND action IN {INTENTS} AS intent,
        epoch_us(event_time) AS event_time, epoch_us(known_time) AS known
    FROM (SELECT * EXCLUDE (action), action, code('user', user_id) AS user,
        code('ad', ad_id) AS ad, code('category', category_id) AS category,
        code('action', action) AS did FROM behaviours_files) f
    LEFT JOIN settled ON f.ad = settled.ad;
CREATE TABLE counted AS
    WITH shown_keys AS (
        SELECT impression_id, user, ad, campaign, advertiser, category, placement, known,
            clicked, click_known FROM shown)
    SELECT user, ad, campaign, advertiser, category, placement, known,
        'impression' AS kind, 0 AS revenue FROM shown_keys
    UNION ALL SELECT user, ad, campaign, advertiser, category, placement, click_known, 'click', 0
    FROM shown_keys WHERE clicked
    UNION ALL SELECT user, ad, campaign, advertiser, category, placement,
        greatest(known, epoch_us(known_time)),
        CASE WHEN revenue_micros < 0 THEN 'return' ELSE 'conversion' END, revenue_micros
    FROM shown_keys JOIN conversions_files USING (impression_id)
    WHERE greatest(known, epoch_us(known_time)) - known <= 7 * {DAY}
    UNION ALL SELECT user, ad, campaign, advertiser, category, NULL, known, 'behaviour', 0
    FROM behaved
    UNION ALL SELECT user, ad, campaign, advertiser, category, NULL, known, 'intent', 0
    FROM behaved WHERE intent;
CREATE TABLE priced AS
    SELECT impression_id, coalesce(arg_max(price_micros, week), 0) AS price,
        coalesce(arg_max(bid_micros, week), 0) AS bid
    FROM shown LEFT JOIN (
        SELECT * FROM catalogue
        WHERE ad_id IN (SELECT id FROM vocabulary WHERE kind = 'ad')
    ) catalogue ON catalogue.ad_id = shown.ad_id AND (week_start <= t OR week_start = first_week())
    GROUP BY impression_id;
CREATE TABLE histories AS
    SELECT impression_id, list({{'ad': ad, 'category': category, 'action': action,
            'event_time': event_time}} ORDER BY number DESC) AS history,
        arg_min(event_time, number) AS last
    FROM (SELECT q.impression_id, b.*, row_number() OVER (
            PARTITION BY q.impression_id
            ORDER BY b.known DESC, b.event_time DESC, b.ad DESC, b.action DESC, b.category DESC
            ) AS number
        FROM shown q JOIN behaved b ON b.user = q.user AND b.known < q.t)
    WHERE number <= history_length() GROUP BY impression_id;
"""


def names() -> list[str]:
    """The list's features, in its order."""
    return ["_".join(feature) for feature in _list()] + list(VALUES)


def _list() -> list[tuple[str, str, str]]:
    """Entity, aggregate and window."""
    found = []
    for line in LIST.strip().splitlines():
        entity, groups = line.split(": ")
        for group in groups.split("; "):
            aggregate, *windows = group.split(" ")
            found += [(entity, aggregate, window) for window in windows]
    return found


def _count(name: str, window: str) -> str:
    since = f"r.known >= q.t // {DAY} * {DAY} - {window.removesuffix('d')} * {DAY}"
    if name == "revenue":
        return f"coalesce(sum(r.revenue) FILTER (WHERE {since}), 0)"
    return f"count(*) FILTER (WHERE r.kind = '{COUNTED[name]}' AND {since})"


def _feature(aggregate: str, window: str, plan: Plan) -> str:
    if aggregate not in RATIOS:
        return f"ln(1 + {_count(aggregate, window)})"
    hits, tries = (_count(name, window) for name in RATIOS[aggregate])
    strength, prior = plan.prior_strength, {"ctr": plan.ctr, "cvr": plan.cvr, "value": plan.value}
    rate = f"(({hits}) + {strength!r} * {prior[aggregate]!r}::DOUBLE) / (({tries}) + {strength!r})"
    return f"ln(1 + greatest({rate}, 0) / 1e6)" if aggregate == "value" else rate


def _entity(entity: str, plan: Plan) -> str:
    """One row per impression with the entity's features."""
    personal = entity.startswith("user")
    keys = entity.split("_")
    same = " AND ".join(f"r.{key} = q.{key}" for key in keys)
    end = "q.t" if personal else f"q.t // {HOUR} * {HOUR}"
    chosen = ",\n".join(
        f"{_feature(aggregate, window, plan)} AS {of}_{aggregate}_{window}"
        for of, aggregate, window in _list()
        if of == entity
    )
    return f"""
        SELECT q.impression_id, {chosen}
        FROM shown q LEFT JOIN counted r ON {same} AND r.known < {end}
        GROUP BY q.impression_id, q.t"""


def oracle(
    folder: Path, weeks: Sequence[Week], plan: Plan, vocabulary: Vocabulary, test: int
) -> pa.Table:
    """impression_id, the dense features as doubles, and history; ordered by impression_id."""
    entities = list(dict.fromkeys(entity for entity, _, _ in _list()))
    joins = " ".join(f"JOIN ({_entity(entity, plan)}) USING (impression_id)" for entity in entities)
    values = ", ".join(f"{value} AS {name}" for name, value in VALUES.items())
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        _open(db, folder, weeks)
        db.register("vocabulary", vocabulary.table())
        db.execute(
            "CREATE MACRO code(k, x) AS coalesce((SELECT any_value(v.index) FROM vocabulary v "
            "WHERE v.kind = k AND v.id = x), 0)"
        )
        for name, number in (
            ("test", test),
            ("history_length", plan.history_length),
            ("first_week", weeks[0].start),
        ):
            db.execute(f"CREATE MACRO {name}() AS {number}")
        db.execute(TABLES)
        counted = ", ".join(names()[: -len(VALUES)])
        return db.sql(
            f"SELECT impression_id, {counted}, {values}, coalesce(history, []) AS history "
            f"FROM shown {joins} JOIN priced USING (impression_id) "
            "LEFT JOIN histories USING (impression_id) ORDER BY impression_id"
        ).to_arrow_table()


def _open(db: duckdb.DuckDBPyConnection, folder: Path, weeks: Sequence[Week]) -> None:
    """Views of the files: <table>_files, and catalogue (week, week_start, ad_id, price, bid)."""
    for table in ("impressions", "behaviours", "conversions", "ads"):
        files = [folder / table / f"week={week}" / "part-0.parquet" for week in weeks]
        listed = ", ".join(f"'{path}'" for path in files if path.exists())
        db.execute(
            f"CREATE VIEW {table}_files AS SELECT * FROM "
            f"read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"
        )
    starts = ", ".join(f"('{week}', {week.start})" for week in weeks)
    db.execute(
        "CREATE VIEW catalogue AS SELECT week, week_start, ad_id, price_micros, bid_micros "
        f"FROM ads_files JOIN (VALUES {starts}) starts(week, week_start) USING (week) "
        "QUALIFY row_number() OVER (PARTITION BY week, ad_id ORDER BY known_time DESC) = 1"
    )
