"""Logs to compare the world with, read into one form: `Log`.

What a log does not hold it says in `Log.lacks`, with the reason.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import SourceError
from roiflow.simulator.noise import Floats, Longs

DAYS_PER_WEEK = 7
NO_SLATES = "slates of one"
LEAST_SHOWN = 100
"""A position with fewer impressions has no click rate worth comparing."""


@dataclass(frozen=True)
class Log:
    """What is read of a log; empty where `lacks` says why there is nothing."""

    name: str
    days: int
    positions: int  # of the longest slate
    user: Longs  # (n,) of each event: a request or a behaviour; 0-based
    time: Longs  # (n,) microseconds since the log's first day
    requests: int | None  # how many of the events are requests; None where it is not told
    items: Longs  # (m,) how often users turned to each item, of those with any
    by_position: Longs  # (2, positions) impressions, clicks
    by_week: Longs  # (3, days // 7) impressions, clicks, conversions
    price: Floats  # (p,) of each item, in the log's currency
    revenue: Floats  # (r,) per conversion, in the log's currency
    conversions: Longs  # (r,) how many conversions each of `revenue` stands for
    lacks: dict[str, str]  # marginal: why the log does not hold it


NOTHING = np.zeros(0, dtype=np.int64)


def read_lake(root: Path) -> Log:
    """All weeks of `<root>/<table>/week=YYYY-Www/part-0.parquet`, one after the other.

    Raises SourceError where the folder holds no week, or a week between others is missing.
    """
    held = lake.held(root, "impressions")
    if not held:
        raise SourceError(f"{root}: no impressions/week=YYYY-Www/{lake.PART}")
    count = (held[-1].start - held[0].start) // (DAYS_PER_WEEK * MICROS_PER_DAY) + 1
    weeks = held[-1].window(count)
    names_of_tables = ("impressions", "behaviours", "conversions", "ads")
    tables = {table: lake.read_weeks(root, table, weeks) for table in names_of_tables}
    return of_tables(str(root), tables, held[0], DAYS_PER_WEEK * count)


def of_tables(
    name: str, tables: Tables, first: Week, days: int, positions: int | None = None
) -> Log:
    """Tables of the data contract, cut to the events of `days` days from the week's start on.

    `positions` leaves out what was shown below; a conversion counts for the week of its impression.
    Raises SourceError where nothing was shown.
    """
    end = first.start + days * MICROS_PER_DAY
    impressions = _between(tables["impressions"], first.start, end)
    behaviours = _between(tables["behaviours"], first.start, end)
    position = impressions[c.POSITION].to_numpy()
    if positions is not None:
        impressions = impressions.filter(pa.array(position <= positions))
        position = position[position <= positions]
    slate = int(position.max(initial=1))
    # A slate is one event, its first position stands for it.
    requests = impressions.filter(pa.array(position == 1))
    if not requests.num_rows:
        raise SourceError(f"{name}: no impressions in {days} days from {first} on")
    time = np.concatenate([_times(requests), _times(behaviours)]) - first.start
    order = np.argsort(time, kind="stable")
    users = pa.chunked_array(requests[c.USER].chunks + behaviours[c.USER].chunks, pa.string())
    clicked = impressions[c.CLICKED].to_numpy()
    week = (_times(impressions) - first.start) // (DAYS_PER_WEEK * MICROS_PER_DAY)
    # Returns are no conversions.
    bought = tables["conversions"].filter(pc.greater_equal(tables["conversions"][c.REVENUE], 0))
    cause = pc.index_in(bought[c.IMPRESSION], value_set=impressions[c.IMPRESSION].combine_chunks())
    # A conversion of an impression that was cut away has no week here, and its revenue goes too.
    known = cause.is_valid()
    cause = cause.drop_null().to_numpy()
    revenue = bought.filter(known)[c.REVENUE].to_numpy() / 1e6
    # What brings nothing is a conversion, but has no logarithm.
    revenue = revenue[revenue > 0]
    price = _prices(tables["ads"], codes(impressions[c.AD])[1])
    weeks = max(1, days // DAYS_PER_WEEK)
    by_position = np.stack([count(position - 1, slate), count(position[clicked] - 1, slate)])
    log = Log(
        name=name,
        days=days,
        positions=slate,
        user=codes(users)[0][order],
        time=time[order],
        requests=requests.num_rows,
        items=np.bincount(codes(behaviours[c.AD])[0]),
        by_position=by_position,
        by_week=np.stack([count(rows, weeks) for rows in (week, week[clicked], week[cause])]),
        price=price,
        revenue=revenue,
        conversions=np.ones(revenue.size, dtype=np.int64),
        lacks={},
    )
    return replace(log, lacks=_lacks(log))


def _lacks(log: Log) -> dict[str, str]:
    """What is not held by tables that hold impressions."""
    shown, clicked = log.by_position
    found = {}
    if np.unique(log.user).size == log.user.size:
        found["gap"] = "no user comes twice"
    if not log.items.size:
        found["popularity"] = "no behaviours"
    if log.positions == 1:
        found["position"] = NO_SLATES
    elif shown[1:].max() < LEAST_SHOWN:
        found["position"] = f"fewer than {LEAST_SHOWN} slates"
    elif not clicked[0]:
        found["position"] = "no clicks at position 1"
    if not log.price.size:
        found["price"] = "no prices"
    sold = log.by_week[2].any()
    if not sold:
        found["conversion"] = "no conversions"
    if not log.revenue.size:
        found["revenue"] = "no conversion brings anything" if sold else "no conversions"
    elif np.ptp(log.revenue) == 0:
        found["revenue"] = "every conversion brings the same"
    return found


def _between(table: pa.Table, start: int, end: int) -> pa.Table:
    time = _times(table)
    return table.filter(pa.array((time >= start) & (time < end)))


def _times(table: pa.Table) -> Longs:
    return table[c.EVENT_TIME].cast(pa.int64()).to_numpy()


def codes(values: pa.ChunkedArray) -> tuple[Longs, pa.Array]:
    """0-based codes (n,) in order of first appearance, and what they stand for."""
    encoded = values.combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def count(place: Longs, length: int) -> Longs:
    """How often each place 0 to `length` - 1 occurs."""
    # Cut as well as filled up: the days after the last whole week are no week.
    return np.bincount(place, minlength=length)[:length]


def _prices(ads: pa.Table, shown: pa.Array) -> Floats:
    """Prices of the ads that were shown; an ad without one is left out."""
    place = pc.index_in(shown, value_set=ads[c.AD].combine_chunks()).drop_null()
    price = ads[c.PRICE].take(place).to_numpy() / 1e6
    return price[price > 0]
