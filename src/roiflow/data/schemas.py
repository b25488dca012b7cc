"""The data contract: one Arrow schema per table.

Every row has `event_time` (it happened) and `known_time` (it reached us), both UTC, and
`event_time <= known_time`. Money is int64 micros (1e-6 of the currency). A feature or label at
time t may use only rows known before t. A week's partition holds the rows that became known in it.

`propensity` is the logging policy's probability of this ad at this position given the ads placed
above it in the same slate, so the product over a slate is the slate's probability. It is null in
all rows of a source that logs none.

`click_known_time` is when a click reached us that came after its impression; it is null where there
is no click, or where both came together.
"""

import pyarrow as pa

from roiflow import columns as c

TIME = pa.timestamp("us", tz="UTC")

_TIMES = [pa.field(c.EVENT_TIME, TIME, False), pa.field(c.KNOWN_TIME, TIME, False)]

IMPRESSIONS = pa.schema(
    [
        *_TIMES,
        pa.field(c.REQUEST, pa.string(), False),
        pa.field(c.IMPRESSION, pa.string(), False),
        pa.field(c.USER, pa.string(), False),
        pa.field(c.AD, pa.string(), False),
        pa.field(c.POSITION, pa.int32(), False),
        pa.field(c.SLATE_SIZE, pa.int32(), False),
        pa.field(c.PLACEMENT, pa.string(), False),
        pa.field(c.DEVICE, pa.string(), False),
        pa.field(c.BID, pa.int64(), False),
        pa.field(c.COST, pa.int64(), False),
        pa.field(c.PROPENSITY, pa.float64(), True),
        pa.field(c.POLICY_VERSION, pa.string(), False),
        pa.field(c.ARM, pa.string(), False),
        pa.field(c.CLICKED, pa.bool_(), False),
        pa.field(c.CLICK_KNOWN_TIME, TIME, True),
    ]
)

# Impressions of which the stream knows no outcome yet: cost is what they cost at once.
OPEN_IMPRESSIONS = IMPRESSIONS.append(pa.field(c.CLICK_COST, pa.int64(), False)).append(
    pa.field(c.CONVERSION_COST, pa.int64(), False)
)

# Clicks that come by themselves, as a stream has them; no table of the lake.
CLICKS = pa.schema([*_TIMES, pa.field(c.IMPRESSION, pa.string(), False)])

# Changes of the catalogue (catalogue/updates.py), as a stream has them; no table of the lake.
# Columns that a change does not say are null; so are a budget and an end that there is not.
CHANGES = pa.schema(
    [
        pa.field(c.CHANGE, pa.string(), False),
        pa.field(c.CHANGE_ID, pa.string(), False),
        *_TIMES,
        pa.field(c.AD, pa.string(), False),
        (c.CAMPAIGN, pa.string()),
        (c.ADVERTISER, pa.string()),
        (c.CATEGORY, pa.string()),
        (c.BRAND, pa.string()),
        (c.AD_TYPE, pa.string()),
        (c.PRICE, pa.int64()),
        (c.BID, pa.int64()),
        (c.DAILY_BUDGET, pa.int64()),
        (c.CREATED_AT, TIME),
        (c.ENDS_AT, TIME),
    ]
)

BEHAVIOURS = pa.schema(
    [
        *_TIMES,
        pa.field(c.USER, pa.string(), False),
        pa.field(c.AD, pa.string(), False),
        pa.field(c.CATEGORY, pa.string(), False),
        pa.field(c.ACTION, pa.string(), False),
        pa.field(c.DWELL_MS, pa.int64(), True),
    ]
)

CONVERSIONS = pa.schema(
    [
        *_TIMES,
        pa.field(c.IMPRESSION, pa.string(), False),
        pa.field(c.REVENUE, pa.int64(), False),
    ]
)

ADS = pa.schema(
    [
        *_TIMES,
        pa.field(c.AD, pa.string(), False),
        pa.field(c.CAMPAIGN, pa.string(), False),
        pa.field(c.ADVERTISER, pa.string(), False),
        pa.field(c.CATEGORY, pa.string(), False),
        pa.field(c.BRAND, pa.string(), False),
        pa.field(c.AD_TYPE, pa.string(), False),
        pa.field(c.PRICE, pa.int64(), False),
        pa.field(c.BID, pa.int64(), False),
        pa.field(c.DAILY_BUDGET, pa.int64(), True),
        pa.field(c.CREATED_AT, TIME, False),
        pa.field(c.ENDS_AT, TIME, True),
    ]
)

# A source adds its profile attributes as further string columns.
USERS = pa.schema([*_TIMES, pa.field(c.USER, pa.string(), False)])

SCHEMAS: dict[str, pa.Schema] = {
    "impressions": IMPRESSIONS,
    "behaviours": BEHAVIOURS,
    "conversions": CONVERSIONS,
    "ads": ADS,
    "users": USERS,
}

SNAPSHOTS = ("ads", "users")
"""Tables of which a week has all there is, not what is new."""

KEYS: dict[str, tuple[str, ...]] = {
    "impressions": (c.IMPRESSION,),
    "behaviours": (c.USER, c.EVENT_TIME),
    "conversions": (c.IMPRESSION, c.EVENT_TIME),
    "ads": (c.AD,),
    "users": (c.USER,),
}
"""What tells a table's rows apart."""

ABOUT: dict[str, str] = {
    "ads": "What can be shown in the week, with those that come or end in it: a whole snapshot of "
    "the catalogue; it holds until there is a newer.",
    "users": "Who may ask: a whole snapshot, too; any further column is a profile attribute.",
    "impressions": "What was shown: a row for each ad of each slate.",
    "behaviours": "What users did beside the slates: views, favourites, carts, purchases.",
    "conversions": "What an impression brought: a row for each sale, a negative one for a return.",
}
"""What a table holds, in words."""

MEANINGS: dict[str, str] = {
    c.EVENT_TIME: "when it happened, UTC",
    c.KNOWN_TIME: "when it reached you, UTC: in the partition's week, not before event_time",
    c.REQUEST: "the slate: its impressions share it",
    c.IMPRESSION: "of this ad in this slate, once and for ever",
    c.USER: "who was asked for",
    c.AD: "what was shown",
    c.CATEGORY: "of the ad's product",
    c.CAMPAIGN: "that the ad belongs to",
    c.ADVERTISER: "who pays",
    c.BRAND: "of the ad's product",
    c.AD_TYPE: "such as image or video",
    c.POSITION: "1 for the top of the slate",
    c.SLATE_SIZE: "positions of the slate",
    c.PLACEMENT: "where the slate was shown, such as home",
    c.DEVICE: "such as phone",
    c.BID: "what the ad bids, micros: 1.50 is 1500000",
    c.COST: "what this impression cost in the end, micros; 0 where nothing is paid",
    c.PROPENSITY: "probability of this ad here, given those above it; in every row or in none",
    c.POLICY_VERSION: "what chose the ad",
    c.ARM: "of an experiment, such as control",
    c.CLICKED: "whether it was clicked",
    c.CLICK_KNOWN_TIME: "when a click reached you that came after its impression",
    c.ACTION: "such as view, click, favourite, cart, purchase",
    c.DWELL_MS: "how long, milliseconds",
    c.REVENUE: "micros; negative for a return",
    c.PRICE: "of the ad's product, micros",
    c.DAILY_BUDGET: "micros; none: unlimited",
    c.CREATED_AT: "when the ad was made, UTC: it is not shown before",
    c.ENDS_AT: "when it ends, UTC: it is not shown from then on; none: not in this week",
}
"""What a column holds, in words."""


def kind_of(type_: pa.DataType) -> str:
    """What a column of the contract holds: time, flag, whole, decimal or text."""
    if pa.types.is_timestamp(type_):
        return "time"
    if pa.types.is_boolean(type_):
        return "flag"
    if pa.types.is_integer(type_):
        return "whole"
    return "decimal" if pa.types.is_floating(type_) else "text"
