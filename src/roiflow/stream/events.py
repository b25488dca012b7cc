"""The five events: one JSON object a message, told apart by its field `kind`.

What a field may be is said here, once: the door, the consumer and the served log decode with these
types. Times are microseconds since the epoch, UTC. `known_time` is set by the door; a message that
comes without it became known when the broker took it.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from roiflow.data.ids import MAX_NAME, MAX_POSITION
from roiflow.data.weeks import LATEST

MAX_MICROS = 10**15
"""A billion of the currency: params.yaml may allow less, never more."""

MAX_SHARE = 1000.0
"""A bid times three of these fits 64 bits."""

Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
ImpressionName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME + MAX_POSITION)]
Time = Annotated[int, Meta(gt=0, lt=LATEST)]
Money = Annotated[int, Meta(ge=0, le=MAX_MICROS)]
Amount = Annotated[int, Meta(ge=-MAX_MICROS, le=MAX_MICROS)]
"""Of a change: one below 0 is refused as what it is, with the ad's name."""
Share = Annotated[float, Meta(ge=0, le=MAX_SHARE)]


class Shown(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One ad of a slate; its place in the list is its position."""

    ad_id: Name
    bid_micros: Money
    propensity: Annotated[float, Meta(gt=0, le=1)]
    p_click: Annotated[float, Meta(ge=0, le=1)]
    expected_value_micros: float
    p_conversion: Annotated[float, Meta(ge=0, le=1)] | None = None
    """None from a service that is older than this field and still serves beside a newer one."""


class Slate(
    msgspec.Struct, tag="slate", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """A served slate, with all that its impressions' cost needs. Its id is `request_id`.

    `as_of` is the newest known_time that its online features took in, `features` the hash of what
    the models were given, `vector` that itself; none of them where the slate is degraded.
    `recalibration` is the digest of what the predictions went through after the package.
    """

    request_id: Name
    user_id: Name
    event_time: Time
    known_time: Time | None = None
    placement: Name
    device: Name
    arm: Name
    degraded: bool
    policy_version: Name
    impression_share: Share
    click_share: Share
    conversion_share: Share
    ads: list[Shown]
    as_of: Annotated[int, Meta(ge=-1, lt=LATEST)] | None = None
    features: Annotated[str, Meta(max_length=MAX_NAME)] | None = None
    vector: bytes | None = None
    recalibration: Annotated[str, Meta(max_length=MAX_NAME)] | None = None


class Click(
    msgspec.Struct, tag="click", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """A click on an impression; a second one on it is a duplicate."""

    impression_id: ImpressionName
    event_time: Time
    known_time: Time | None = None


class Conversion(
    msgspec.Struct, tag="conversion", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """What a click brought. Without an `event_id` an impression has one conversion."""

    impression_id: ImpressionName
    revenue_micros: Money
    event_time: Time
    known_time: Time | None = None
    event_id: Name | None = None


class Behaviour(
    msgspec.Struct, tag="behaviour", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """What a user did with an ad's product."""

    event_id: Name
    user_id: Name
    ad_id: Name
    category_id: Name
    action: Name
    dwell_ms: Annotated[int, Meta(ge=0, le=LATEST)] | None = None
    event_time: Time
    known_time: Time | None = None


class Change(
    msgspec.Struct, tag="catalogue", tag_field="kind", forbid_unknown_fields=True, kw_only=True
):
    """What became of an ad: `change` says what, see catalogue/updates.py; the rest goes with it."""

    event_id: Name
    ad_id: Name
    change: Literal["upsert", "end", "price", "bid", "budget"]
    campaign_id: Name | None = None
    advertiser_id: Name | None = None
    category_id: Name | None = None
    brand_id: Name | None = None
    ad_type: Name | None = None
    price_micros: Amount | None = None
    bid_micros: Amount | None = None
    daily_budget_micros: Amount | None = None
    created_at: Time | None = None
    ends_at: Time | None = None
    event_time: Time
    known_time: Time | None = None


Event = Slate | Click | Conversion | Behaviour | Change


def impression_id(request: str, position: int) -> str:
    """Id of the ad at a 1-based position of a slate."""
    return f"{request}:{position}"


def event_id(event: Event) -> str:
    """What makes two messages the same event, among those of its kind."""
    match event:
        case Slate():
            return event.request_id
        case Click():
            return f"click:{event.impression_id}"
        case Conversion():
            return event.event_id or f"conversion:{event.impression_id}"
        case Behaviour() | Change():
            return event.event_id
