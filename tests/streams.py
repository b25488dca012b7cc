"""Traffic whose truth is known: good events with their counts, and bad ones with their reasons.

Times are of a world of its own (`START` on), with a consumer's clock to match, so that a stream of
minutes goes through hours and days of `known_time`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.spec import INTENT_ACTIONS
from roiflow.stream import checks
from roiflow.stream.checks import Limits
from roiflow.stream.events import Behaviour, Click, Conversion, Event, Shown, Slate, event_id

SECOND, HOUR, DAY = 1_000_000, MICROS_PER_HOUR, MICROS_PER_DAY
LIMITS = Limits(
    lateness=48 * HOUR, tolerance=60 * SECOND, message_bytes=65_536, amount=10**15, slate=1_000
)
ACTIONS = ("view", "cart")
PLACEMENTS = ("feed", "top")

Ads = Mapping[str, str]
"""Ads and their categories."""


def visits(
    rng: np.random.Generator,
    start: int,
    span: int,
    slates: int,
    users: Sequence[str],
    ads: Ads,
    name: str = "",
) -> list[Event]:
    """Slates of three; of 100 impressions 8 are clicked and 1.7 bring money; behaviours besides.

    In the order in which they become known, all within `span` after `start`, in microseconds.
    """
    events: list[Event] = []
    times = np.sort(rng.integers(0, span * 9 // 10, slates)) + start
    names, last = np.array(list(ads)), start + span

    def known(time: int, most: int) -> int:
        return min(time + int(rng.integers(most)), last)

    for number, time in enumerate(times.tolist()):
        request = f"{name}q{number}"
        user = users[int(rng.integers(len(users)))]
        shown = [str(ad) for ad in rng.choice(names, 3, replace=False)]
        events.append(_slate(request, user, time, known(time, SECOND), shown, number))
        if rng.random() < 0.25:
            clicked = f"{request}:{int(rng.integers(1, 4))}"
            at = known(time + SECOND, 60 * SECOND)
            events.append(Click(impression_id=clicked, event_time=at, known_time=known(at, HOUR)))
            if rng.random() < 0.2:
                at = known(at, 2 * HOUR)
                events.append(_conversion(rng, clicked, at, known(at, HOUR), number))
        for step in range(int(rng.integers(0, 4)) + int(rng.random() < 0.2)):
            at = known(time, HOUR)
            ad = str(names[int(rng.integers(names.size))])
            events.append(
                Behaviour(
                    event_id=f"{name}b{number}.{step}",
                    user_id=users[int(rng.integers(len(users)))],
                    ad_id=ad,
                    category_id=ads[ad],
                    action=ACTIONS[int(rng.random() < 0.3)],
                    dwell_ms=None if rng.random() < 0.5 else int(rng.integers(60_000)),
                    event_time=at,
                    known_time=known(at, 60 * SECOND),
                )
            )
    return sorted(events, key=lambda event: event.known_time or 0)


def _slate(
    request: str, user: str, time: int, known: int, shown: Sequence[str], number: int
) -> Slate:
    return Slate(
        request_id=request,
        user_id=user,
        event_time=time,
        known_time=known,
        placement=PLACEMENTS[number % 2],
        device="phone",
        arm="policy",
        degraded=False,
        policy_version="v1",
        impression_share=0.1,
        click_share=0.7,
        conversion_share=0.2,
        ads=[Shown(ad, 400_000, 0.25, 0.1, 1_000.5) for ad in shown],
    )


def _conversion(
    rng: np.random.Generator, impression: str, time: int, known: int, number: int
) -> Conversion:
    return Conversion(
        impression_id=impression,
        revenue_micros=int(rng.integers(9_000_000)),
        event_time=time,
        known_time=known,
        event_id=f"sale{number}.{impression}" if number % 2 else None,
    )


@dataclass(frozen=True)
class Bad:
    """What must not be taken, and the reason that must be given."""

    reason: str
    payload: bytes


def bad_events(now: int, copies: int) -> list[Bad]:
    """Every kind of bad event, `copies` of each, no two alike. `now` is the consumer's, about."""
    return [bad for number in range(copies) for bad in _bad(now, number)]


def _bad(now: int, number: int) -> Iterator[Bad]:
    good: dict[str, Any] = {
        "kind": "behaviour", "event_id": f"bad{number}", "user_id": "u1", "ad_id": "a1",
        "category_id": "shoes", "action": "view",
        "event_time": now - HOUR, "known_time": now - HOUR,
    }  # fmt: skip

    def changed(**fields: object) -> bytes:
        return json.dumps(good | fields).encode()

    yield Bad(checks.MALFORMED, b'{"kind":"click","impression_id":"cut%d' % number)
    yield Bad(checks.MALFORMED, b"\xff\xfe\xfd %d" % number)
    yield Bad(checks.MALFORMED, changed(dwell_ms=float("nan")))
    yield Bad(checks.SCHEMA, changed(dwell_ms=-1 - number))
    yield Bad(checks.SCHEMA, changed(kind="nothing"))
    yield Bad(checks.SCHEMA, changed(user_id="a\0b"))
    yield Bad(checks.SCHEMA, changed(user_id=-7))
    yield Bad(checks.SCHEMA, changed(event_time="yesterday"))
    yield Bad(checks.SCHEMA, changed(more="than asked"))
    yield Bad(checks.SCHEMA, json.dumps({**good, "ad_id": None}).encode())
    yield Bad(checks.SCHEMA, b"[%d]" % number)
    yield Bad(checks.OVERSIZED, changed(user_id="x" * 129))
    yield Bad(checks.OVERSIZED, changed(user_id="y" * 200_000))
    yield Bad(checks.LATE, changed(event_time=now - HOUR - LIMITS.lateness - SECOND))
    yield Bad(checks.FUTURE, changed(event_time=now + HOUR))
    yield Bad(checks.FUTURE, changed(event_time=now + 9 * HOUR, known_time=now + 9 * HOUR))


def payload(event: Event) -> bytes:
    """As a message."""
    return msgspec.json.encode(event)


def disturbed(
    rng: np.random.Generator, payloads: Sequence[bytes], bad: Sequence[Bad]
) -> list[bytes]:
    """Neighbours out of order, one in ten twice or three times, bad ones anywhere."""
    place = np.arange(len(payloads)) + rng.uniform(0, 30, len(payloads))
    placed = list(zip(place.tolist(), payloads, strict=True))
    for _ in range(2):
        again = rng.random(len(payloads)) < 0.05
        placed += [
            (place[row] + rng.exponential(200.0), payloads[row])
            for row in np.flatnonzero(again).tolist()
        ]
    places = rng.uniform(0, len(payloads), len(bad)).tolist()
    placed += zip(places, (one.payload for one in bad), strict=True)
    return [content for _, content in sorted(placed, key=lambda one: one[0])]


@dataclass(frozen=True)
class Counted:
    """A row that counts in the features, from `known` on."""

    kind: str
    known: int
    user: str
    ad: str
    category: str
    placement: str = ""
    revenue: int = 0


def counted(
    events: Iterable[Event], known: Mapping[tuple[str, str], int], ads: Ads
) -> list[Counted]:
    """What unique events count as; `known` says when each was taken, by kind and id."""
    slates: dict[str, tuple[Slate, str]] = {}
    rows: list[Counted] = []
    events = list(events)

    def taken(event: Event) -> int:
        return known[key(event)]

    for event in events:
        if isinstance(event, Slate):
            for position, ad in enumerate(event.ads, 1):
                slates[f"{event.request_id}:{position}"] = event, ad.ad_id
                rows.append(
                    Counted(
                        "impressions", taken(event), event.user_id, ad.ad_id, ads[ad.ad_id],
                        event.placement,
                    )
                )  # fmt: skip
    for event in events:
        if isinstance(event, Click | Conversion):
            slate, ad_id = slates[event.impression_id]
            at = max(taken(event), taken(slate))
            kind = "clicks" if isinstance(event, Click) else "conversions"
            revenue = event.revenue_micros if isinstance(event, Conversion) else 0
            rows.append(
                Counted(kind, at, slate.user_id, ad_id, ads[ad_id], slate.placement, revenue)
            )
        elif isinstance(event, Behaviour):
            rows.append(
                Counted("behaviours", taken(event), event.user_id, event.ad_id, event.category_id)
            )
            if event.action in INTENT_ACTIONS:
                rows.append(
                    Counted("intents", taken(event), event.user_id, event.ad_id, event.category_id)
                )
    return rows


def key(event: Event) -> tuple[str, str]:
    """Kind and id: what makes two messages one event."""
    return type(event).__name__.lower(), event_id(event)


def first_counted(time: int, days: int) -> int:
    """Where a window of a request at `time` opens."""
    return (time // DAY - days) * DAY


def by_user(rows: Iterable[Counted], time: int, days: int) -> Counter[tuple[str, str]]:
    """Counts of (user, kind) in a window before `time`."""
    start = first_counted(time, days)
    return Counter((row.user, row.kind) for row in rows if start <= row.known < time)


def by_ad(rows: Iterable[Counted], time: int, days: int) -> Counter[tuple[str, str]]:
    """Counts and revenue of (ad, kind) in a window before the hour of `time`."""
    start, end = first_counted(time, days), time // HOUR * HOUR
    counts: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if start <= row.known < end and row.placement:
            counts[row.ad, row.kind] += 1
            counts[row.ad, "revenue"] += row.revenue
    return +counts
