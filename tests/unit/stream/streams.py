"""Small streams of events, what they come to by a slow count, and the ends of a consumer."""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from roiflow.catalogue.catalogue import Catalogue
from roiflow.data import event_lake
from roiflow.data.events import EVENT, KIND
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND, Week
from roiflow.errors import ServiceError
from roiflow.stream.arrivals import Arrived, Letter, Position
from roiflow.stream.checks import Limits
from roiflow.stream.consumer import Consumer, Pace
from roiflow.stream.events import Behaviour, Click, Conversion, Event, Shown, Slate, event_id
from roiflow.stream.journal import Journal, read
from roiflow.stream.journal import numbers as segment_numbers
from roiflow.stream.replica import Replica

MONDAY = Week.parse("2026-W04").start
NOW = MONDAY + 2 * MICROS_PER_DAY
LIMITS = Limits(
    lateness=MICROS_PER_DAY,
    tolerance=60 * MICROS_PER_SECOND,
    message_bytes=64 * 1024,
    amount=10**15,
    slate=1_000,
)
PACE = Pace(
    batch_events=7,
    batch_seconds=0.0,
    segment_bytes=6_000,
    segment_seconds=1e9,
    remembered=7 * MICROS_PER_DAY,
)


def slate(request: str, user: str, ads: Sequence[str], at: int, known: int | None = None) -> Slate:
    return Slate(
        request_id=request,
        user_id=user,
        event_time=at,
        known_time=known or at,
        placement="top",
        device="phone",
        arm="stable",
        degraded=False,
        policy_version="v1",
        impression_share=0.1,
        click_share=0.5,
        conversion_share=0.25,
        ads=[Shown(ad, 100 * (n + 1), 0.5, 0.1, 7.0) for n, ad in enumerate(ads)],
    )


def click(impression: str, at: int, known: int | None = None) -> Click:
    return Click(impression_id=impression, event_time=at, known_time=known or at)


def conversion(
    impression: str, revenue: int, at: int, event: str | None = None, known: int | None = None
) -> Conversion:
    return Conversion(
        impression_id=impression,
        revenue_micros=revenue,
        event_time=at,
        known_time=known or at,
        event_id=event,
    )


def behaviour(event: str, user: str, ad: str, at: int, known: int | None = None) -> Behaviour:
    return Behaviour(
        event_id=event,
        user_id=user,
        ad_id=ad,
        category_id="shoes",
        action="view",
        event_time=at,
        known_time=known or at,
    )


def random_events(seed: int, size: int, end: int = NOW) -> list[Event]:
    """Slates, behaviours, and clicks and conversions of shown ads; each event once."""
    rng = random.Random(seed)
    found: list[Event] = []
    for number in range(size):
        at = end - rng.randrange(12 * MICROS_PER_HOUR)
        user, ads = f"u{rng.randrange(5)}", [f"a{ad}" for ad in rng.sample(range(6), 3)]
        known = at + rng.randrange(MICROS_PER_HOUR)
        known = min(known, end)
        kind = rng.random()
        if kind < 0.4:
            found.append(slate(f"r{number}", user, ads, at, known))
            for position in range(1, 4):
                if rng.random() < 0.4:
                    found.append(click(f"r{number}:{position}", at, known))
                if rng.random() < 0.2:
                    found.append(conversion(f"r{number}:{position}", 5, at, known=known))
        else:
            found.append(behaviour(f"b{number}", user, ads[0], at, known))
    return found


def encode(events: Sequence[Event]) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


def ids(events: Sequence[Event]) -> list[tuple[str, str]]:
    """Kind and id of each different event."""
    return sorted({(type(event).__name__.lower(), event_id(event)) for event in events})


def truth(events: Sequence[Event]) -> Counter[tuple[str, ...]]:
    """What each user and ad has of each different event, counted one by one."""
    seen: set[tuple[str, str]] = set()
    counts: Counter[tuple[str, ...]] = Counter()
    for event in events:
        key = (type(event).__name__.lower(), event_id(event))
        if key in seen:
            continue
        seen.add(key)
        match event:
            case Slate():
                for position, ad in enumerate(event.ads, 1):
                    impression = f"{event.request_id}:{position}"
                    counts["impressions", event.user_id, ad.ad_id, impression] += 1
            case Click():
                counts["clicks", event.impression_id] += 1
            case Conversion():
                counts["conversions", event.impression_id] += event.revenue_micros
            case Behaviour():
                counts["behaviours", event.user_id, event.ad_id] += 1
    return counts


class Partitions:
    """Arrivals of lists, each read in its order; one after the other or as `rng` says."""

    def __init__(self, partitions: Sequence[Sequence[bytes]], rng: random.Random) -> None:
        self._partitions, self._rng = partitions, rng
        self._position: Position = {}
        self.committed: Position = {}

    def seek(self, position: Position) -> None:
        self._position = dict(position)

    def poll(self, limit: int, seconds: float) -> Arrived:
        payloads: list[bytes] = []
        sources: list[str] = []
        for number in self._rng.sample(range(len(self._partitions)), len(self._partitions)):
            key = f"list/{number}"
            at = self._position.get(key, 0)
            some = self._partitions[number][at : at + limit - len(payloads)]
            payloads += some
            sources += [f"{key}@{at + place}" for place in range(len(some))]
            if some:
                self._position[key] = at + len(some)
        return Arrived(payloads, [NOW] * len(payloads), sources, dict(self._position))

    def commit(self, position: Position) -> None:
        self.committed = dict(position)


class Letters:
    """Dead letters in a list."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    def put(self, letters: Sequence[Letter]) -> None:
        self.letters += letters


class Counts:
    """An online store that counts rows, for as long as it is there."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.stamp: int | None = None
        self.away = False
        self.batches: list[int] = []
        self.shown = Catalogue.empty()

    def catalogue(self) -> Catalogue:
        self._ask()
        return self.shown

    def _ask(self) -> None:
        if self.away:
            raise ServiceError("gone")

    def watermark(self) -> int | None:
        self._ask()
        return self.stamp

    def update(self, tables: Mapping[str, pa.Table], stamp: int, after: int | None = None) -> bool:
        self._ask()
        if self.stamp is not None and stamp <= self.stamp:
            return False
        if after is not None and after != (-1 if self.stamp is None else self.stamp):
            raise ServiceError(f"the store is at {self.stamp}, not at {after}")
        self.counts += _counted(tables)
        self.shown = self.shown.changed(tables["catalogue"])
        self.stamp = stamp
        self.batches.append(stamp)
        return True

    def empty(self) -> None:
        """As a server that was started anew."""
        self.counts, self.stamp = Counter(), None


def _counted(tables: Mapping[str, pa.Table]) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for row in tables["impressions"].to_pylist():
        assert not row["clicked"]
        counts["impressions", row["user_id"], row["ad_id"], row["impression_id"]] += 1
    for row in tables["clicks"].to_pylist():
        counts["clicks", row["impression_id"]] += 1
    for row in tables["conversions"].to_pylist():
        counts["conversions", row["impression_id"]] += row["revenue_micros"]
    for row in tables["behaviours"].to_pylist():
        counts["behaviours", row["user_id"], row["ad_id"]] += 1
    return counts


def no_snapshot() -> None:
    """What an empty store is filled with."""


def consumer(
    folder: Path,
    arrivals: Any,
    stores: Sequence[Any],
    *,
    letters: Letters | None = None,
    pace: Pace = PACE,
    now: Callable[[], int] = lambda: NOW,
    clock: Callable[[], float] = lambda: 0.0,
    journal: Journal | None = None,
) -> Consumer:
    """A started consumer on a folder."""
    made = Consumer(
        arrivals,
        letters or Letters(),
        journal or Journal(folder / "journal"),
        folder / "lake",
        LIMITS,
        pace,
        now,
    )
    made.start([Replica(f"s{n}", store, no_snapshot, clock) for n, store in enumerate(stores)])
    return made


def drain(one: Consumer) -> int:
    """Step until nothing comes; how many messages there were."""
    return sum(iter(one.step, 0))


def taken(folder: Path) -> list[tuple[str, str]]:
    """Kind and id of every event in lake and journal."""
    segments = segment_numbers(folder / "journal")
    tables = [p.read() for p in event_lake.parts(folder / "lake") if p.number not in segments]
    tables += [batch.events for n in segments for batch in read(folder / "journal", n)]
    rows = [row for table in tables for row in table.select([KIND, EVENT]).to_pylist()]
    return sorted((row[KIND], row[EVENT]) for row in rows)
