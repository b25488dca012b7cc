"""Raw events of the stream as rows, and the contract's tables that they make.

A row is an event; columns that its kind does not have are null. `known_time` is the stamp of the
batch that the consumer took the event in.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data import schemas
from roiflow.data.schemas import TIME

KIND, EVENT, ADS = "kind", "event_id", "ads"
AS_OF, FEATURES, VECTOR = "as_of", "features", "vector"
RECALIBRATION = "recalibration"
P_CLICK, P_CONVERSION = "p_click", "p_conversion"
SLATE, CLICK, CONVERSION, BEHAVIOUR = "slate", "click", "conversion", "behaviour"
CATALOGUE = "catalogue"
KINDS = (SLATE, CLICK, CONVERSION, BEHAVIOUR, CATALOGUE)
SHARES = ("impression_share", "click_share", "conversion_share")

SHOWN = pa.struct(
    [
        (c.AD, pa.string()),
        (c.BID, pa.int64()),
        (c.PROPENSITY, pa.float64()),
        (P_CLICK, pa.float64()),
        ("expected_value_micros", pa.float64()),
        (P_CONVERSION, pa.float64()),
    ]
)

EVENTS = pa.schema(
    [
        pa.field(KIND, pa.string(), False),
        pa.field(EVENT, pa.string(), False),
        pa.field(c.EVENT_TIME, TIME, False),
        pa.field(c.KNOWN_TIME, TIME, False),
        (c.REQUEST, pa.string()),
        (c.IMPRESSION, pa.string()),
        (c.USER, pa.string()),
        (c.PLACEMENT, pa.string()),
        (c.DEVICE, pa.string()),
        (c.ARM, pa.string()),
        ("degraded", pa.bool_()),
        (c.POLICY_VERSION, pa.string()),
        *((share, pa.float64()) for share in SHARES),
        (ADS, pa.list_(SHOWN)),
        (AS_OF, pa.int64()),
        (FEATURES, pa.string()),
        (VECTOR, pa.binary()),
        (RECALIBRATION, pa.string()),
        (c.REVENUE, pa.int64()),
        (c.AD, pa.string()),
        (c.CATEGORY, pa.string()),
        (c.ACTION, pa.string()),
        (c.DWELL_MS, pa.int64()),
        # Of a change of the catalogue, beside the columns that others have too.
        (c.CHANGE, pa.string()),
        (c.CAMPAIGN, pa.string()),
        (c.ADVERTISER, pa.string()),
        (c.BRAND, pa.string()),
        (c.AD_TYPE, pa.string()),
        (c.PRICE, pa.int64()),
        (c.BID, pa.int64()),
        (c.DAILY_BUDGET, pa.int64()),
        (c.CREATED_AT, TIME),
        (c.ENDS_AT, TIME),
    ]
)


def of_kind(events: pa.Table, kind: str) -> pa.Table:
    """The events of one kind."""
    return events.filter(pc.equal(events[KIND], kind))


def new_rows(events: pa.Table) -> dict[str, pa.Table]:
    """What an online store takes: impressions (unclicked), clicks, conversions, behaviours.

    And changes of the catalogue.
    """
    return {
        "impressions": conform(_unclicked(shown(events)), schemas.OPEN_IMPRESSIONS),
        "clicks": conform(of_kind(events, CLICK), schemas.CLICKS),
        "conversions": conform(of_kind(events, CONVERSION), schemas.CONVERSIONS),
        "behaviours": conform(of_kind(events, BEHAVIOUR), schemas.BEHAVIOURS),
        "catalogue": changes(events),
    }


def changes(events: pa.Table) -> pa.Table:
    """Changes of the catalogue, rows of schemas.CHANGES."""
    return conform(of_kind(events, CATALOGUE), schemas.CHANGES)


def shown(events: pa.Table) -> pa.Table:
    """A row for every ad of every slate, with the slate's columns and the cost's shares."""
    # Lists are taken apart by their offsets: a slate's size says how often its own columns are
    # repeated, and a number that starts anew with each slate is the position. Without a slate there
    # is no chunk, and concat_arrays wants one.
    slates = of_kind(events, SLATE).combine_chunks()
    ads = pa.concat_arrays(slates[ADS].chunks or [pa.array([], pa.list_(SHOWN))])
    sizes = np.diff(ads.offsets.to_numpy())
    parents = np.repeat(np.arange(sizes.size), sizes)
    position = np.arange(parents.size) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    rows = slates.select([name for name in slates.column_names if name not in _OF_ADS])
    rows = rows.take(pa.array(parents))
    names = pc.binary_join_element_wise(rows[c.REQUEST], pa.array(position).cast(pa.string()), ":")
    columns = {
        c.IMPRESSION: names,
        c.POSITION: pa.array(position),
        c.SLATE_SIZE: pa.array(np.repeat(sizes, sizes)),
        **dict(zip(SHOWN.names, ads.values.flatten(), strict=True)),
    }
    return pa.table({**{name: rows[name] for name in rows.column_names}, **columns})


_OF_ADS = (ADS, c.IMPRESSION, *(field.name for field in SHOWN))


def _unclicked(impressions: pa.Table) -> pa.Table:
    none, one = pa.scalar(0.0), pa.scalar(1.0)
    at_once = _cost(impressions, none, none)
    columns = {
        c.COST: at_once,
        c.CLICK_COST: pc.subtract(_cost(impressions, one, none), at_once),
        c.CONVERSION_COST: pc.subtract(_cost(impressions, none, one), at_once),
        c.CLICKED: pa.repeat(False, impressions.num_rows),
    }
    for name, column in columns.items():
        impressions = impressions.append_column(name, column)
    return impressions


def with_outcomes(impressions: pa.Table, clicks: pa.Table, conversions: pa.Table) -> pa.Table:
    """Impressions of the contract, from `shown` and the clicks and conversions known by then.

    Cost is what the package's cost shares make of the bid and of what came of the impression.
    """
    # A click sent twice counts once: index_in gives the first place, and null where there is none.
    click = pc.index_in(impressions[c.IMPRESSION], value_set=clicks[c.IMPRESSION])
    clicked = pc.is_valid(click)
    converted = pc.is_in(impressions[c.IMPRESSION], value_set=conversions[c.IMPRESSION])
    known = clicks[c.KNOWN_TIME].take(click)
    # A click that came with its impression, or overtook it, has no time of its own: the
    # impression's known_time says all of it.
    later = pc.fill_null(pc.greater(known, impressions[c.KNOWN_TIME]), False)
    columns = {
        c.COST: _cost(impressions, clicked.cast(pa.float64()), converted.cast(pa.float64())),
        c.CLICKED: clicked,
        c.CLICK_KNOWN_TIME: pc.if_else(later, known, pa.scalar(None, TIME)),
    }
    for name, column in columns.items():
        impressions = impressions.append_column(name, column)
    return conform(impressions, schemas.IMPRESSIONS)


def _cost(impressions: pa.Table, clicked: pa.Array, converted: pa.Array) -> pa.Array:
    """Micros (n,): bid x (impression share + click share if clicked + conversion share if ...)."""
    # Rounded here and once: the schema's cast to whole micros refuses a fraction.
    at_once, at_click, at_conversion = (impressions[name] for name in SHARES)
    later = pc.add(pc.multiply(at_click, clicked), pc.multiply(at_conversion, converted))
    return pc.round(pc.multiply(impressions[c.BID].cast(pa.float64()), pc.add(at_once, later)))


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """A schema's columns in order of `known_time`."""
    return complete(rows, schema).sort_by([(c.KNOWN_TIME, "ascending")])


def complete(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """A schema's columns; those that are not there are null."""
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    # A checked cast: what does not fit raises, and nothing is bent to fit.
    return rows.select(schema.names).cast(schema)


def between(rows: pa.Table, start: int, end: int) -> pa.Table:
    """Rows with start <= known_time < end, in microseconds."""
    known = rows[c.KNOWN_TIME]
    first, last = (pa.scalar(at, pa.int64()).cast(TIME) for at in (start, end))
    return rows.filter(pc.and_(pc.greater_equal(known, first), pc.less(known, last)))
