"""Every dense feature, declared once: the offline engine and the online path both follow this list.

A count feature is the logarithm of 1 plus the rows of a table that an entity has in a window; a
rate is smoothed towards the training weeks' global rate m with the strength s of `prior_strength`
impressions or clicks:

    ctr = (clicks + s m) / (impressions + s),   cvr = (conversions + s m) / (clicks + s).

At time t a user-side window of N days counts rows with floor_day(t) - N days <= known_time < t;
an item-side window counts the closed hours, floor_hour(t) - 24 N hours <= known_time <
floor_hour(t), so that an online copy refreshed every hour is equal. A click counts when its
impression becomes known, a conversion when it becomes known itself, if that is within
`ATTRIBUTION_DAYS` of the impression.
"""

from collections.abc import Sequence
from dataclasses import dataclass

ATTRIBUTION_DAYS = 7
"""A conversion counts if it is known at most this long after its impression."""

RECENCY_CAP_HOURS = 720.0
"""Hours since the last behaviour of a user without one; larger values are cut to it."""

USER_ENTITIES = ("user", "user_category", "user_advertiser", "user_ad")
"""Entities counted exactly up to t, from one user's own rows."""

ITEM_ENTITIES = ("ad", "campaign", "category", "advertiser", "placement")
"""Entities counted over closed hours, from all users' rows."""

COUNTS = ("impressions", "clicks", "conversions", "behaviours")
RATES = ("ctr", "cvr")

_ROWS = {
    "impressions": "impressions",
    "clicks": "impressions, clicked",
    "conversions": "conversions",
    "behaviours": "behaviours, any action",
    "ctr": "impressions",
    "cvr": "impressions and conversions",
}


@dataclass(frozen=True)
class FeatureSpec:
    """One dense feature."""

    name: str
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
    type: str = "float32"


def _aggregates(
    entity: str, aggregate: str, windows: Sequence[int], chosen: Sequence[int]
) -> list[FeatureSpec]:
    rate = aggregate in RATES
    return [
        FeatureSpec(
            name=f"{entity}_{aggregate}_{days}d",
            entity=entity,
            aggregate=aggregate,
            rows=_ROWS[aggregate],
            window_days=days,
            default=f"global {aggregate}" if rate else "0",
            unit="fraction" if rate else "log(1 + count)",
        )
        for days in windows
        if days in chosen
    ]


def specs(windows_days: Sequence[int]) -> tuple[FeatureSpec, ...]:
    """The features for these windows; some count over the longest window alone."""
    every, longest = tuple(windows_days), (max(windows_days),)
    counted: list[tuple[str, str, tuple[int, ...]]] = [
        ("user", "impressions", every),
        ("user", "ctr", every),
        ("user", "clicks", longest),
        ("user", "conversions", longest),
        ("user", "behaviours", every),
        ("user_category", "clicks", longest),
        ("user_category", "ctr", longest),
        ("user_category", "behaviours", every),
        ("user_advertiser", "impressions", longest),
        ("user_advertiser", "ctr", longest),
        ("user_ad", "impressions", every),
        ("user_ad", "clicks", longest),
        ("user_ad", "behaviours", longest),
        ("ad", "impressions", longest),
        ("ad", "ctr", every),
        ("ad", "cvr", longest),
        ("campaign", "ctr", longest),
        ("campaign", "cvr", longest),
        ("category", "ctr", longest),
        ("category", "cvr", longest),
        ("advertiser", "ctr", longest),
        ("placement", "ctr", longest),
    ]
    return (
        *(
            spec
            for entity, aggregate, chosen in counted
            for spec in _aggregates(entity, aggregate, every, chosen)
        ),
        _value("log_price", "candidate", "ads.price_micros", "log(1 + currency units)"),
        _value("log_bid", "candidate", "ads.bid_micros", "log(1 + currency units)"),
        _value(
            "log_hours_since_behaviour",
            "request",
            "behaviours, last one known",
            "log(1 + hours)",
            f"log(1 + {RECENCY_CAP_HOURS:g})",
        ),
        _value("hour_sin", "request", "event_time, UTC", "sine of the hour's angle"),
        _value("hour_cos", "request", "event_time, UTC", "cosine of the hour's angle"),
        _value("weekday_sin", "request", "event_time, UTC", "sine of the weekday's angle"),
        _value("weekday_cos", "request", "event_time, UTC", "cosine of the weekday's angle"),
    )


def _value(name: str, entity: str, rows: str, unit: str, default: str = "0") -> FeatureSpec:
    return FeatureSpec(name, entity, name, rows, None, default, unit)
