"""Every dense feature, declared once; offline engine, Spark, online store and docs follow it.

A count feature is the logarithm of 1 plus the rows of a table that an entity has in a window. A
rate is smoothed towards the training weeks' global rate m with the strength s of `prior_strength`
impressions, clicks or conversions:

    ctr = (clicks + s m) / (impressions + s),   cvr = (conversions + s m) / (clicks + s),
    value = log(1 + (revenue + s m) / (conversions + s)), in units of the currency.

A window of N hours opens at a whole hour if it is at most a day long, at a whole day (UTC) if it is
longer: low(t, N) = floor_hour(t) - N or floor_day(t) - N. At time t the user side counts rows with
low <= known_time < t; the item side counts closed hours, low <= known_time < floor_hour(t), so that
an online copy refreshed every hour is equal. A click counts when it is known itself, or with its
impression where they came together; a conversion when it is known itself, if that is within
`ATTRIBUTION_DAYS` of its impression; neither before its impression.
"""

from collections.abc import Sequence
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

WINDOWS = {1: "1h", 24: "1d", 168: "7d", 672: "28d"}
"""Hours that a window may have, and their names."""

FINE_HOURS = 24
"""Windows up to this open at a whole hour, longer ones at a whole day."""

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

_H, _D, _W, _M = WINDOWS

_COUNTED: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    ("user", "impressions", (_H, _D, _W)),
    ("user", "ctr", (_W, _M)),
    ("user", "clicks", (_H, _W)),
    ("user", "conversions", (_W,)),
    ("user", "behaviours", (_H, _D, _W)),
    ("user", "intents", (_W,)),
    ("user_category", "clicks", (_W,)),
    ("user_category", "ctr", (_W,)),
    ("user_category", "behaviours", (_D, _W)),
    ("user_category", "intents", (_W,)),
    ("user_campaign", "impressions", (_W,)),
    ("user_campaign", "ctr", (_W,)),
    ("user_advertiser", "ctr", (_W,)),
    ("user_ad", "impressions", (_H, _D, _W)),
    ("user_ad", "clicks", (_W,)),
    ("user_ad", "behaviours", (_W,)),
    ("ad", "impressions", (_W,)),
    ("ad", "ctr", (_H, _D, _W, _M)),
    ("ad", "cvr", (_W, _M)),
    ("ad", "value", (_M,)),
    ("campaign", "ctr", (_W, _M)),
    ("campaign", "cvr", (_M,)),
    ("category", "ctr", (_D, _W)),
    ("category", "cvr", (_M,)),
    ("category", "value", (_M,)),
    ("advertiser", "ctr", (_W,)),
    ("placement", "ctr", (_W,)),
)
"""Counts over 28 days are left out: the first weeks of a training window do not have them."""

CROSS_HOURS = max(
    hours for entity, _, windows in _COUNTED for hours in windows if entity in USER_ENTITIES[1:]
)
"""Older rows of a user count for the user alone, not for its crosses."""


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
    window_hours: int | None
    default: str
    """Value where there is no row."""
    unit: str
    owner: str = "ads-ranking"
    type: str = "float32"


def _counted(entity: str, aggregate: str, hours: int) -> FeatureSpec:
    smoothed = aggregate not in COUNTS
    words = " and ".join(entity.split("_"))
    return FeatureSpec(
        name=f"{entity}_{aggregate}_{WINDOWS[hours]}",
        meaning=f"{aggregate} of the {words} in the last {WINDOWS[hours]}",
        entity=entity,
        aggregate=aggregate,
        rows=_ROWS[aggregate],
        window_hours=hours,
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
    _value("hour_sin", "hour of the day", "request", "event_time, UTC", "sine of its angle"),
    _value("hour_cos", "hour of the day", "request", "event_time, UTC", "cosine of its angle"),
    _value("weekday_sin", "day of the week", "request", "event_time, UTC", "sine of its angle"),
    _value("weekday_cos", "day of the week", "request", "event_time, UTC", "cosine of its angle"),
)
"""Features that are no aggregates: the last columns."""


def specs(windows_hours: Sequence[int]) -> tuple[FeatureSpec, ...]:
    """The features whose window is one of these, in the order of their columns."""
    return (
        *(
            _counted(entity, aggregate, hours)
            for entity, aggregate, windows in _COUNTED
            for hours in windows
            if hours in windows_hours
        ),
        *VALUES,
    )
