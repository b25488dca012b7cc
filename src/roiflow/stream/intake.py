"""From what arrived to what is taken: decode, check, find duplicates, count."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from roiflow.catalogue.updates import END
from roiflow.data.events import KIND
from roiflow.stream import checks, rows
from roiflow.stream.arrivals import Arrived, Letter
from roiflow.stream.checks import Limits, Refused
from roiflow.stream.duplicates import Hours, Keys, Seen, hours_of, keys_of
from roiflow.stream.events import Change, Event


@dataclass(frozen=True)
class Intake:
    """What one poll comes to."""

    events: pa.Table
    keys: Keys
    hours: Hours
    letters: list[Letter]
    counts: Counter[str]
    """By kind what is taken, by reason what is not."""


Emptying = Callable[[list[Change]], str]
"""What is wrong with changes that would leave no ad to show; empty where some are left."""


def take_in(
    arrived: Arrived,
    seen: Seen,
    *,
    now: int,
    oldest: int,
    limits: Limits,
    emptying: Emptying = lambda _: "",
) -> Intake:
    """`oldest` is the first time whose duplicates are still known, microseconds."""
    events, letters = _accepted(arrived, now, oldest, limits, emptying)
    # As a table before duplicates are looked for: ids are then bytes in one buffer, hashed in
    # compiled code, and a filter of the rows makes both what is kept and what is counted.
    table = rows.table(events)
    keys = keys_of(table)
    fresh = seen.fresh(keys)
    taken = table.filter(pa.array(fresh))
    counts = Counter(letter.reason for letter in letters)
    counts[checks.DUPLICATE] = table.num_rows - taken.num_rows
    for kind in pc.value_counts(taken[KIND]).to_pylist():
        counts[kind["values"]] = kind["counts"]
    return Intake(taken, keys[fresh], hours_of(taken), letters, +counts)


def _accepted(
    arrived: Arrived, now: int, oldest: int, limits: Limits, emptying: Emptying
) -> tuple[list[Event], list[Letter]]:
    events, places, letters = list[Event](), list[int](), list[Letter]()
    for place, (payload, time) in enumerate(zip(arrived.payloads, arrived.times, strict=True)):
        try:
            events.append(_accept(payload, time, now, oldest, limits))
            places.append(place)
        except Refused as refusal:
            letters.append(_letter(arrived, place, refusal.reason, str(refusal)))
    fault = emptying([event for event in events if isinstance(event, Change)])
    if fault:
        # All that end an ad: which of them would be the last is a matter of their order.
        ending = [isinstance(event, Change) and ends(event) for event in events]
        letters += [
            _letter(arrived, place, checks.EMPTIES, fault)
            for place, one in zip(places, ending, strict=True)
            if one
        ]
        events = [event for event, one in zip(events, ending, strict=True) if not one]
    return events, letters


def ends(change: Change) -> bool:
    """Whether a change says when its ad ends."""
    return change.change == END or change.ends_at is not None


def _letter(arrived: Arrived, place: int, reason: str, fault: str) -> Letter:
    payload, time, source = arrived.payloads[place], arrived.times[place], arrived.sources[place]
    return Letter(reason, fault, source, payload, time)


def _accept(payload: bytes, time: int, now: int, oldest: int, limits: Limits) -> Event:
    """An event that became known at its `known_time`, or else at `time`, but never after now."""
    event = checks.parse(payload, limits)
    # When it became known is the door's word. One that has none came to Kafka without the door, and
    # its message's time stands for it.
    if event.known_time is None:
        event.known_time = time
    checks.check_times(event.event_time, event.known_time, now, limits)
    # Older ids are forgotten, so a duplicate would count: refused rather than counted twice.
    if event.event_time < oldest:
        raise Refused(
            checks.LATE, "too old to tell whether it is a duplicate", str(event.event_time)
        )
    event.known_time = min(event.known_time, now)
    return event
