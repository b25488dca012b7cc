"""Faults of the clock: a request's time is some hours off, for the calendar alone or for all."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.engine import Engine, ItemLog, UserLog
from roiflow.features.plan import clock, frozen
from roiflow.features.table import Events, Longs, Singles
from roiflow.online.given import Inputs
from roiflow.parity.fault_case import TIME_ZONE, Case, Explanation
from roiflow.parity.replay import (
    Setting,
    Slates,
    as_served,
    engine,
    given,
    stored,
    taken,
)

CLOCK_HOURS = [sign * hours for hours in range(1, 15) for sign in (1, -1)]


def time_zone(case: Case) -> Iterator[Explanation]:
    """The request's clock is some hours off, for the calendar features alone or for all."""
    counted = engine(case.setting, case.content)
    events = stored(case.content.events, case.setting)
    for hours in CLOCK_HOURS:

        def calendar(slates: Slates, hours: int = hours) -> Inputs:
            inputs = given(case.setting, counted, events, slates, as_served(slates))
            return with_calendar(inputs, slates, hours)

        def whole(slates: Slates, hours: int = hours) -> Inputs:
            return with_clock(case.setting, counted, events, slates, hours)

        for make, what in ((calendar, "hour and weekday"), (whole, "the request's time")):
            explains = case.explained(make)
            if explains > 0:
                yield Explanation(TIME_ZONE, explains, f"{what} {hours:+d} h")


def with_calendar(inputs: Inputs, slates: Slates, hours: int) -> Inputs:
    """With hour and weekday of a clock that is some hours ahead."""
    around = inputs.context.copy()
    around[:, 2], around[:, 3] = clock(slates.event_time + hours * MICROS_PER_HOUR)
    return replace(inputs, context=around)


def with_clock(
    setting: Setting, counted: Engine, events: Events, slates: Slates, hours: int
) -> Inputs:
    """What a store gives at another time than the request's."""
    usual = given(setting, counted, events, slates, slates.as_of + 1)
    time = slates.event_time + hours * MICROS_PER_HOUR
    last = np.where(usual.history_time[:, -1] > 0, usual.history_time[:, -1], -1)
    dense = [
        _at_clock(setting, counted, taken(slates, np.array([row])), time[[row]], last[[row]])
        for row in range(slates.user.size)
    ]
    around = np.column_stack([usual.context[:, :2], *clock(time)]).astype(np.int32)
    return replace(usual, dense=np.concatenate(dense), context=around)


def _at_clock(
    setting: Setting, counted: Engine, slate: Slates, time: Longs, last: Longs
) -> Singles:
    """Dense features of one slate, from what its store held: all that was known up to as_of."""
    log, items = counted.user_log, counted.item_log
    user, as_of = int(slate.user[0]), int(slate.as_of[0])
    start, end = log.offsets[user : user + 2]
    mine = slice(start, start + np.searchsorted(log.known_time[start:end], as_of, "right"))
    known = np.minimum(_as_kept(log.known_time[mine]), time[0] - 1)
    one = UserLog(
        frozen(np.array([0, known.size])),
        frozen(known),
        frozen(log.ad[mine]),
        frozen(log.category[mine]),
        frozen(log.kind[mine]),
    )
    prefix = np.searchsorted(items.hour, as_of // MICROS_PER_HOUR, "right")
    there = ItemLog(frozen(items.hour[:prefix]), frozen(items.rows[:prefix]))
    plan = replace(counted.plan, sizes={**counted.plan.sizes, "user": 1})
    price, bid = setting.terms(slate)
    return Engine(plan, one, there).dense(
        np.zeros(1, np.int32),
        time,
        slate.placement,
        last,
        ad=slate.ad,
        price=price,
        bid=bid,
        until=time,
    )


def _as_kept(known_time: Longs) -> Longs:
    """Times (n,) of a user's rows as its buckets have them, by the day (layout.py)."""
    return known_time // MICROS_PER_DAY * MICROS_PER_DAY
