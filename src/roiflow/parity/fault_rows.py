"""Faults of rows: some came late, or an hour of them never reached the store."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.table import Events, Flags, Longs
from roiflow.online.given import Inputs
from roiflow.parity.fault_case import (
    BACK_FILL,
    DROPPED_HOUR,
    ENOUGH,
    FIRST,
    Case,
    Explanation,
)
from roiflow.parity.findings import Sampled
from roiflow.parity.replay import Content, Replayed

HOURS_BACK = 72
"""Hours before the first difference that are looked at for one that is missing."""


def back_fill(case: Case) -> Iterator[Explanation]:
    """Rows whose known_time is from before, which an earlier pull of their week did not hold."""
    now, then, start = case.content, case.former, case.setting.start
    # A snapshot was made from the pull of its own time. What is in today's pull, known before the
    # snapshot, and not in that one came later: without it the replay must be as served.
    masks = [
        (known >= start) | np.isin(one, other)
        for known, one, other in zip(
            (now.rows.known_time, now.conversions.known_time, now.events.known_time),
            _keys(now),
            _keys(then),
            strict=True,
        )
    ]
    came = [int(np.count_nonzero(~mask)) for mask in masks]
    if any(came):
        explains = case.without(now.kept(*masks), case.setting)
        names = ("impressions", "conversions", "behaviours")
        size = ", ".join(
            f"{count:,} {name}" for count, name in zip(came, names, strict=True) if count
        )
        yield Explanation(BACK_FILL, explains, f"{size} that an earlier pull did not hold")
    yield from _late_behaviours(case)


def _keys(content: Content) -> tuple[NDArray[np.uint64], ...]:
    """A number for each impression, conversion and behaviour, the same in every pull."""
    rows, sold, events = content.rows, content.conversions, content.events
    shown = _mixed(rows.request, rows.position, rows.known_time)
    return (
        shown,
        _mixed(shown[sold.row].view(np.int64), sold.known_time, sold.revenue),
        _mixed(
            content.behaving, events.ad, events.category, events.action, events.event_time,
            events.known_time,
        ),
    )  # fmt: skip


def _mixed(*values: NDArray[Any]) -> NDArray[np.uint64]:
    mixed = np.zeros(values[0].size, np.uint64)
    for value in values:
        mixed = (mixed ^ value.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _late_behaviours(case: Case) -> Iterator[Explanation]:
    """Behaviours that sampled histories lack although they were known by then."""
    found, content = case.different, case.content
    gone = np.zeros(content.events.ad.size, np.bool_)
    for row in range(found.slates.user.size):
        gone[_lacked(found, content.events, row)] = True
    if gone.any():
        every = np.ones(content.rows.user.size, np.bool_)
        sold = np.ones(content.conversions.row.size, np.bool_)
        explains = case.without(content.kept(every, sold, ~gone), case.setting)
        users = np.unique(content.behaving[gone]).size
        size = f"{np.count_nonzero(gone):,} behaviours of {users:,} users that histories lack"
        yield Explanation(BACK_FILL, explains, size)


def _lacked(found: Sampled, events: Events, row: int) -> list[int]:
    """Behaviours (numbers of events) that one served history lacks, inside of what it reaches."""
    served, expected = (_behaviours(part, row) for part in (found.served, found.expected))
    # A full history has forgotten what is older than its first one; that is no lack.
    held, whole = set(served), len(served) == found.served.history_time.shape[1]
    oldest = min((time for time, *_ in served), default=0) if whole else 0
    lacked = {one for one in expected if one not in held and one[0] > oldest}
    if not lacked:
        return []
    user, as_of = found.slates.user[row], found.slates.as_of[row]
    mine = slice(*events.offsets[user : user + 2])
    columns = (events.event_time, events.ad, events.category, events.action, events.known_time)
    rows = zip(*(values[mine].tolist() for values in columns), strict=True)
    return [
        mine.start + at
        for at, (*one, known) in enumerate(rows)
        if known <= as_of and tuple(one) in lacked
    ]


def _behaviours(inputs: Inputs, row: int) -> list[tuple[int, ...]]:
    columns = (
        inputs.history_time,
        inputs.history_ad,
        inputs.history_category,
        inputs.history_action,
    )
    rows = zip(*(values[row].tolist() for values in columns), strict=True)
    return [one for one in rows if any(one)]


def missing_hour(case: Case) -> Iterator[Explanation]:
    """One hour of events that never reached the store: the hours before the first difference."""
    slates = case.replayed.slates
    first = int(slates.as_of[case.replayed.differing].min()) // MICROS_PER_HOUR
    there = np.unique(
        np.concatenate([case.content.known_times, case.content.events.known_time])
        // MICROS_PER_HOUR
    )
    # The newest hours first, on a few early slates each: to replay all for each of 72 hours would
    # take minutes. Only the hour that explains these is tried on all.
    candidates = there[(there <= first) & (there > first - HOURS_BACK)][::-1]
    early = replace(case, rows=_earliest(case.replayed))
    for hour in candidates.tolist():
        content = without_hour(case.content, hour)
        if early.without(content, case.setting) >= ENOUGH:
            explains = case.without(content, case.setting)
            lost = case.content.rows.user.size - content.rows.user.size
            when = np.datetime64(hour, "h")
            behaved = case.content.events.ad.size - content.events.ad.size
            size = f"{when}:00 UTC, {lost:,} impressions and {behaved:,} behaviours"
            yield Explanation(DROPPED_HOUR, explains, size)
            return


def _earliest(replayed: Replayed) -> Longs:
    rows = replayed.differing
    return rows[np.argsort(replayed.slates.event_time[rows], kind="stable")[:FIRST]]


def without_hour(content: Content, hour: int) -> Content:
    """Without what became known in one hour."""

    def outside(known: Longs) -> Flags:
        return known // MICROS_PER_HOUR != hour

    rows = content.rows
    # A click of that hour goes, but not its impression, which may be of an hour before.
    lost = rows.clicked & (rows.click_known >= 0) & ~outside(rows.click_known)
    unclicked = replace(
        rows,
        clicked=rows.clicked & ~lost,
        click_known=np.where(lost, -1, rows.click_known),
    )
    return replace(content, rows=unclicked).kept(
        outside(rows.known_time),
        outside(content.conversions.known_time),
        outside(content.events.known_time),
    )
