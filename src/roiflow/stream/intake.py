"""From what arrived to what is taken: decode, check, find duplicates, count."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from roiflow.data.events import KIND
from roiflow.stream import checks, rows
from roiflow.stream.arrivals import Arrived, Letter
from roiflow.stream.checks import Limits, Refused
from roiflow.stream.duplicates import Hours, Keys, Seen, hours_of, keys_of
from roiflow.stream.events import Event


@dataclass(frozen=True)
class Intake:
    """What one poll comes to."""

    events: pa.Table
    keys: Keys
    hours: Hours
    letters: list[Letter]
    counts: Counter[str]
    """By kind what is taken, by reason what is not."""


def take_in(arrived: Arrived, seen: Seen, *, now: int, oldest: int, limits: Limits) -> Intake:
    """`oldest` is the first time whose duplicates are still known, microseconds."""
    events, letters = _accepted(arrived, now, oldest, limits)
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
    arrived: Arrived, now: int, oldest: int, limits: Limits
) -> tuple[list[Event], list[Letter]]:
    events, letters = [], []
    for payload, time, source in zip(arrived.payloads, arrived.times, arrived.sources, strict=True):
        try:
            events.append(_accept(payload, time, now, oldest, limits))
        except Refused as refusal:
            letters.append(Letter(refusal.reason, str(refusal), source, payload, time))
    return events, letters


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
