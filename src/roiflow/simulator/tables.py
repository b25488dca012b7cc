"""What happened in the ad world, as the tables of the data contract."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.schemas import ADS, BEHAVIOURS, CONVERSIONS, IMPRESSIONS, TIME, USERS
from roiflow.data.weeks import Week
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.population import Ints, Names
from roiflow.simulator.world import Outcome, World, WorldRequests


def impression_table(
    world: World,
    week: Week,
    requests: WorldRequests,
    slates: Ints,
    outcome: Outcome,
    *,
    propensity: Floats,
    policy_version: str,
    arm: str,
) -> pa.Table:
    """One row per ad shown, in the order of requests and positions."""
    count, slots = slates.shape
    row, ad = np.repeat(np.arange(count), slots), slates.ravel()
    time = requests.event_time[row]
    return _table(
        {
            c.EVENT_TIME: time,
            c.KNOWN_TIME: world.known_time(time),
            c.REQUEST: request_ids(week, requests.number).take(pa.array(row)),
            c.IMPRESSION: impression_ids(week, requests.number, slots),
            c.USER: _take(world.users.ids, requests.user_index[row]),
            c.AD: _take(world.ads.ids, ad),
            c.POSITION: np.tile(np.arange(1, slots + 1, dtype=np.int32), count),
            c.SLATE_SIZE: np.full(ad.size, slots, dtype=np.int32),
            c.PLACEMENT: _take(np.array(people.PLACEMENTS), requests.placement_index[row]),
            c.DEVICE: _take(np.array(people.DEVICES), requests.device_index[row]),
            c.BID: world.ads.bid[ad],
            c.COST: outcome.cost.ravel(),
            c.PROPENSITY: propensity.ravel(),
            c.POLICY_VERSION: pa.repeat(pa.scalar(policy_version), ad.size),
            c.ARM: pa.repeat(pa.scalar(arm), ad.size),
            c.CLICKED: outcome.clicked.ravel(),
        },
        IMPRESSIONS,
    )


def conversion_table(
    world: World, week: Week, requests: WorldRequests, outcome: Outcome
) -> pa.Table:
    """One row per conversion, in the order of the impressions."""
    slots = outcome.clicked.shape[1]
    time = requests.event_time[outcome.converted // slots] + outcome.delay
    return _table(
        {
            c.EVENT_TIME: time,
            c.KNOWN_TIME: world.known_time(time),
            c.IMPRESSION: impression_ids(week, requests.number, slots).take(
                pa.array(outcome.converted)
            ),
            c.REVENUE: outcome.revenue,
        },
        CONVERSIONS,
    )


def behaviour_table(world: World, week: Week) -> pa.Table:
    """Behaviours that happened in a week, in the contract's schema."""
    rows = world.behaviours(week)
    return _table(
        {
            c.EVENT_TIME: rows.event_time,
            c.KNOWN_TIME: world.known_time(rows.event_time),
            c.USER: _take(world.users.ids, rows.user),
            c.AD: _take(world.ads.ids, rows.ad),
            c.CATEGORY: _take(_categories(world), world.ads.category[rows.ad]),
            c.ACTION: _take(np.array(people.ACTIONS), rows.action),
            c.DWELL_MS: rows.dwell_ms,
        },
        BEHAVIOURS,
    )


def ad_table(world: World, week: Week) -> pa.Table:
    """The week's catalogue; no ad has a budget limit."""
    ads = world.ads
    start = np.full(ads.ids.size, week.start)
    return _table(
        {
            c.EVENT_TIME: start,
            c.KNOWN_TIME: start,
            c.AD: ads.ids,
            c.CAMPAIGN: ads.campaign,
            c.ADVERTISER: ads.advertiser,
            c.CATEGORY: _categories(world)[ads.category],
            c.BRAND: ads.brand,
            c.AD_TYPE: np.array(people.AD_TYPES)[ads.ad_type],
            c.PRICE: ads.price,
            c.BID: ads.bid,
            c.DAILY_BUDGET: pa.nulls(ads.ids.size, pa.int64()),
            c.CREATED_AT: ads.created_at,
        },
        ADS,
    )


def user_table(world: World, week: Week) -> pa.Table:
    """Users who have joined by the week, with their profile."""
    here = np.flatnonzero(world.users.joined <= week.start)
    start = np.full(here.size, week.start)
    profile = {
        "age": np.array(people.AGES)[world.users.age[here]],
        "membership": np.array(people.MEMBERSHIPS)[world.users.membership[here]],
        "region": np.array(people.REGIONS)[world.users.region[here]],
    }
    schema = USERS
    for name in profile:
        schema = schema.append(pa.field(name, pa.string(), False))
    known = {c.EVENT_TIME: start, c.KNOWN_TIME: start, c.USER: world.users.ids[here]}
    return _table(known | profile, schema)


def request_ids(week: Week, numbers: Longs) -> pa.Array:
    """`2026-W04-00000012` and so on (n,)."""
    return _strings(_request_characters(week, numbers))


def impression_ids(week: Week, numbers: Longs, slots: int) -> pa.Array:
    """`2026-W04-00000012-1` and so on, position by position (n * slots,)."""
    position = np.tile(np.arange(1, slots + 1), numbers.size)
    dash = np.full((position.size, 1), ord("-"), dtype=np.uint8)
    request = np.repeat(_request_characters(week, numbers), slots, axis=0)
    return _strings(np.hstack([request, dash, _digits(position, len(str(slots)))]))


def _request_characters(week: Week, numbers: Longs) -> NDArray[np.uint8]:
    head = np.frombuffer(f"{week}-".encode(), dtype=np.uint8)
    return np.hstack([np.tile(head, (numbers.size, 1)), _digits(numbers, 8)])


def _digits(numbers: Longs, width: int) -> NDArray[np.uint8]:
    """Decimal digits (n, width) as characters."""
    powers = 10 ** np.arange(width - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def _strings(characters: NDArray[np.uint8]) -> pa.Array:
    """Rows of characters (n, width) as n strings, without a Python object each."""
    count, width = characters.shape
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(width)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters))]
    return pa.Array.from_buffers(pa.string(), count, buffers)


def _categories(world: World) -> Names:
    return people.names("c", world.params.categories)


def _take(values: Names, rows: NDArray[np.integer]) -> pa.Array:
    return pa.array(values).take(pa.array(rows))


def _table(values: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        column = values[field.name]
        if isinstance(column, np.ndarray):
            column = pa.array(column)
            if field.type == TIME:
                column = column.cast(pa.int64()).view(TIME)
        arrays.append(column)
    return pa.table(arrays, schema=schema)
