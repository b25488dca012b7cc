"""Every dense feature, declared once; offline engine, Spark, online store and docs follow it.

A count feature is the logarithm of 1 plus the rows of a table that an entity has in a window. A
rate is smoothed towards the training weeks' global rate m with the strength s of `prior_strength`
impressions, clicks or conversions:

    ctr = (clicks + s m) / (impressions + s),   cvr = (conversions + s m) / (clicks + s),
    value = log(1 + (revenue + s m) / (conversions + s)), in units of the currency.

A window of N days opens at a whole day (UTC), N days before today: low(t, N) = floor_day(t) - N. At
time t the user side counts rows with low <= known_time < t; the item side counts closed hours,
low <= known_time < floor_hour(t), so that an online copy refreshed every hour is equal. A click
counts when it is known itself, or with its impression where they came together; a conversion when
it is known itself, if that is within `ATTRIBUTION_DAYS` of its impression; neither before its
impression.
"""

from dataclasses import dataclass

ATTRIBUTION_DAYS = 7
"""A conversion counts if it is known at most this long after its impression."""

RECENCY_CAP_HOURS = 720.0
"""Hours since the last behaviour of a user without one; larger values are cut to it."""

INTENT_ACTIONS = ("favourite", "cart", "purchase", "like", "follow", "comment", "forward")
"""Actions that say more than a look: behaviours with them are intents as well.

An action that is too rare for the vocabulary says nothing.
"""

USER_ENTITIES = ("user", "user_category", "user_campaign", "user_advertiser", "user_ad")
"""Entities counted exactly up to t, from one user's own rows."""

ITEM_ENTITIES = ("ad", "campaign", "category", "advertiser", "placement")
"""Entities counted over closed hours, from all users' rows."""

COUNTS = ("impressions", "clicks", "conversions", "behaviours", "intents")
RATES = ("ctr", "cvr")
VALUE = "value"
AGGREGATES = (*COUNTS, *RATES, VALUE)

WINDOWS = {7: "7d", 56: "56d"}
"""Days that a window may have, shortest first, and their names.

Shorter ones were tried: they say little, and move as soon as another policy serves.
"""

_ROWS = {
    "impressions": "impressions",
    "clicks": "clicks",
    "conversions": "conversions",
    "behaviours": "behaviours, any action",
    "intents": f"behaviours, action in {', '.join(INTENT_ACTIONS)}",
    "ctr": "clicks by impressions",
    "cvr": "conversions by clicks",
    "value": "revenue by conversions",
}

_UNITS = {"ctr": "fraction", "cvr": "fraction", "value": "log(1 + currency units)"}

_W, _L = WINDOWS

_COUNTED: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("user", "ctr", (_L,)),
    ("user", "conversions", (_L,)),
    ("user", "behaviours", (_L,)),
    ("user_category", "clicks", (_L,)),
    ("user_category", "ctr", (_L,)),
    ("user_category", "behaviours", (_W, _L)),
    ("user_advertiser", "ctr", (_L,)),
    ("user_advertiser", "behaviours", (_L,)),
    ("user_ad", "clicks", (_L,)),
    ("user_ad", "ctr", (_L,)),
    ("user_ad", "behaviours", (_W, _L)),
    ("ad", "ctr", (_L,)),
    ("ad", "cvr", (_L,)),
    ("campaign", "ctr", (_L,)),
    ("campaign", "cvr", (_L,)),
    ("category", "cvr", (_L,)),
)
"""What the ablation of docs/features.md leaves: a feature that adds nothing is not here."""


@dataclass(frozen=True)
class FeatureSpec:
    """One dense feature."""

    name: str
    meaning: str
    entity: str
    """What is counted: USER_ENTITIES, ITEM_ENTITIES, or `request` and `candidate` for values that
    are no aggregates."""
    aggregate: str
    rows: str
    """Table and filter of the rows that are counted."""
    window_days: int | None
    default: str
    """Value where there is no row."""
    unit: str
    owner: str = "ads-ranking"
    type: str = "float32"


def _counted(entity: str, aggregate: str, days: int) -> FeatureSpec:
    smoothed = aggregate not in COUNTS
    words = " and ".join(entity.split("_"))
    return FeatureSpec(
        name=f"{entity}_{aggregate}_{WINDOWS[days]}",
        meaning=f"{aggregate} of the {words} in the last {WINDOWS[days]}",
        entity=entity,
        aggregate=aggregate,
        rows=_ROWS[aggregate],
        window_days=days,
        default=f"global {aggregate}" if smoothed else "0",
        unit=_UNITS.get(aggregate, "log(1 + count)"),
    )


def _value(
    name: str, meaning: str, entity: str, rows: str, unit: str, default: str = "0"
) -> FeatureSpec:
    return FeatureSpec(name, meaning, entity, name, rows, None, default, unit)


VALUES = (
    _value(
        "log_price", "price of the ad", "candidate", "ads.price_micros", "log(1 + currency units)"
    ),
    _value("log_bid", "bid for the ad", "candidate", "ads.bid_micros", "log(1 + currency units)"),
    _value(
        "log_hours_since_behaviour",
        "time since the user's last known behaviour",
        "request",
        "behaviours, last one known",
        "log(1 + hours)",
        f"log(1 + {RECENCY_CAP_HOURS:g})",
    ),
)
"""Features that are no aggregates: the last columns. Hour and weekday are codes of the context."""

SPECS = (
    *(
        _counted(entity, aggregate, days)
        for entity, aggregate, windows in _COUNTED
        for days in windows
    ),
    *VALUES,
)
"""Every dense feature, in the order of their columns."""

NAMES = tuple(spec.name for spec in SPECS)

WINDOW_DAYS = tuple(sorted({spec.window_days for spec in SPECS if spec.window_days}))
"""Windows that features have, shortest first."""
