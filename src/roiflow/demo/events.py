"""What users do with the demo's slates, reported to the service and followed into the stream."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from roiflow.demo.requests import Answered, Body
from roiflow.deployment import local, processes
from roiflow.errors import ServiceError
from roiflow.settings import Settings

CLICK_EVERY, BUY_EVERY, LOOK_EVERY = 5, 25, 3
"""The first ad of every fifth slate is clicked, and so on."""

SECOND = 1_000_000
WAIT_SECONDS = 30.0
JOURNAL = "journal"


@dataclass(frozen=True)
class EventsDone:
    """Events reported over HTTP, and what the consumer counted of them and of the slates."""

    reported: int
    refused: int
    counts: dict[str, int]
    seconds: float
    """From the first report until the consumer had read all, taken or not."""


def read_so_far(settings: Settings) -> dict[str, int]:
    """What the consumer has counted since ever."""
    from roiflow.stream.journal import last_state

    journal = settings.stream / JOURNAL
    return last_state(journal).counts if journal.exists() else {}


def report_events(
    repository: Path,
    settings: Settings,
    address: str,
    slates: Sequence[Answered],
    before: dict[str, int],
) -> EventsDone:
    """Report clicks, a purchase now and then and views, and wait until the consumer has them.

    `before` is what the consumer had counted before the slates. Raises ServiceError where the
    service refuses the body or the consumer does not take the events in time.
    """
    import httpx

    home = settings.home.absolute()
    # Started where it does not run: `demo` may be the first to need it.
    processes.start([local.stream(home, repository, "consume", places(settings))], home)
    events = [event for number, slate in enumerate(slates) for event in outcomes(number, slate)]
    started = time.monotonic()
    answer = httpx.post(
        f"{address}/v1/events", json={"events": events}, timeout=10.0, trust_env=False
    )
    if answer.status_code != 200:
        raise ServiceError(f"{address}/v1/events: {answer.status_code} {answer.text}")
    content = answer.json()
    while time.monotonic() - started < WAIT_SECONDS:
        now = read_so_far(settings)
        counts = {name: count - before.get(name, 0) for name, count in now.items()}
        # Whatever became of them, duplicates and refusals too: that all were read is what is waited
        # for. Slates count, since the service reports its own.
        read = sum(counts.values())
        if read >= content["accepted"] + len(slates):
            spent = time.monotonic() - started
            return EventsDone(len(events), len(content["refused"]), counts, spent)
        time.sleep(0.05)
    reported = content["accepted"] + len(slates)
    raise ServiceError(
        f"{settings.stream}: {read} of {reported} after {WAIT_SECONDS:g} s; "
        f"see {settings.logs / 'stream-consume.log'}"
    )


def places(settings: Settings) -> dict[str, str]:
    """Environment of the consumer: the places that were named."""
    named = {"ROIFLOW_REDIS_URL": settings.redis_url, "ROIFLOW_KAFKA": settings.kafka}
    return {name: value for name, value in named.items() if value}


def outcomes(number: int, slate: Answered) -> Iterator[Body]:
    """Events that come of one slate."""
    if slate.first is None:
        return
    (impression, ad), time_of = slate.first, slate.event_time
    if number % CLICK_EVERY == 0:
        name = {"impression_id": impression}
        yield {"kind": "click", **name, **at(time_of + SECOND)}
        # Inside the clicks, of which it is a multiple: nobody buys without one.
        if number % BUY_EVERY == 0:
            yield {
                "kind": "conversion",
                **name,
                "revenue_micros": 20_000_000,
                **at(time_of + 2 * SECOND),
            }
    if number % LOOK_EVERY == 0:
        yield {
            "kind": "behaviour",
            "event_id": f"{slate.request_id}-view",
            "user_id": slate.user_id,
            "ad_id": ad,
            "category_id": "demo",
            "action": "view",
            **at(time_of + SECOND),
        }


def at(time: int) -> dict[str, int]:
    """An event of the requests' own time: it happened and became known then."""
    return {"event_time": time, "known_time": time}


def events_table(done: EventsDone) -> Table:
    """What was reported and what came of it."""
    table = Table(title="Events to the stream")
    for name in ("reported", "refused", *sorted(done.counts), "seconds"):
        table.add_column(name, justify="right")
    counts = [f"{done.counts[name]:,}" for name in sorted(done.counts)]
    table.add_row(str(done.reported), str(done.refused), *counts, f"{done.seconds:.2f}")
    return table
