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

# Clicks that come by themselves, as a stream has them; no table of the lake.
CLICKS = pa.schema([*_TIMES, pa.field(c.IMPRESSION, pa.string(), False)])

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
