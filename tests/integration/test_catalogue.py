"""The catalogue from the door to the next slate: a real Redis, the real consumer, the real app."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.online.redis_store import RedisStore
from roiflow.online.snapshot import load_snapshot
from roiflow.serving.app import SlateApp
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from roiflow.serving.service import build_app, namespace
from roiflow.stream.consumer import Consumer
from roiflow.stream.journal import Journal
from roiflow.stream.replica import Replica
from roiflow.stream.served_tail import ServedLogArrivals
from tests.integration.test_redis_store import Server
from tests.unit.serving.packages import LIMITS, SLATE, TinyWorld, tiny_world, write_package
from tests.unit.stream.streams import PACE, Letters

SECOND = 1_000_000
SLATES = 60
PAUSE = MICROS_PER_HOUR
"""Between a click and the request that knows what it cost."""


@dataclass
class Platform:
    """A service, a consumer and a Redis; the clock is the events' own."""

    world: TinyWorld
    app: SlateApp
    consumer: Consumer
    store: RedisStore
    letters: Letters
    now: int
    asked: int = 0

    def post(self, path: str, body: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.post(path, content=msgspec.json.encode(body))

        return asyncio.run(ask())

    def report(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        """Through the door and the consumer; what was refused at the door."""
        self.now += SECOND
        dated = [{"event_time": self.now, "known_time": self.now} | event for event in events]
        answer = self.post("/v1/events", {"events": dated}).json()
        self.take()
        refused: list[dict[str, Any]] = answer["refused"]
        return refused

    def take(self) -> None:
        """Let the consumer take what is in the served log."""
        while self.consumer.step():
            pass

    def change(self, change: str, ad: str, **values: Any) -> list[dict[str, Any]]:
        event = {"kind": "catalogue", "change": change, "ad_id": ad, "event_id": f"e{self.now}"}
        return self.report(event | values)

    def slate(self, user: str = "u01") -> httpx.Response:
        self.now, self.asked = self.now + SECOND, self.asked + 1
        body = {"request_id": f"r{self.asked}", "user_id": user, "placement": "search"}
        dates = {"event_time": self.now, "known_time": self.now}
        return self.post("/v1/slate", body | dates | {"device": "phone"})

    def shown(self, slates: int = SLATES) -> dict[str, list[dict[str, Any]]]:
        """Every ad that some slates show, with its places."""
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(slates):
            answer = self.slate()
            assert answer.status_code == 200, answer.text
            for ad in answer.json()["ads"]:
                found.setdefault(ad["ad_id"], []).append(ad)
        return found

    def ads(self) -> list[str]:
        names: list[str] = self.store.catalogue().ad_id.to_pylist()
        return names


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyWorld, Package]:
    folder = tmp_path_factory.mktemp("packed")
    world = tiny_world(folder)
    return world, write_package(folder / "package", world)


@contextmanager
def opened(server: Server, world: TinyWorld, package: Package, folder: Path) -> Iterator[Platform]:
    """A platform whose store begins with the world's snapshot."""
    server.client.flushall()
    models = Models(package)
    store = RedisStore(
        models.plan, models.vocabulary, models.about.encode_length, server.url,
        namespace(package.digest),
    )  # fmt: skip
    (folder / "limits.json").write_bytes(LIMITS.content)
    app = build_app(package.folder, folder / "limits.json", server.url, folder / "served")
    letters = Letters()
    consumer = Consumer(
        ServedLogArrivals(folder / "served"), letters, Journal(folder / "journal"),
        folder / "lake", LIMITS, PACE, lambda: time.time_ns() // 1000,
    )  # fmt: skip
    online = world.features / "online"
    replica = Replica("redis", store, lambda: load_snapshot(store, online), time.monotonic)
    consumer.start([replica])
    # A morning: budgets are of the day.
    start = world.built.as_of // MICROS_PER_DAY * MICROS_PER_DAY + 9 * MICROS_PER_HOUR
    yield Platform(world, app, consumer, store, letters, start)
    consumer.close()
    store.close()


@pytest.fixture
def platform(
    server: Server, packed: tuple[TinyWorld, Package], tmp_path: Path
) -> Iterator[Platform]:
    with opened(server, *packed, tmp_path) as one:
        yield one


WORTH = {"price_micros": 50_000_000, "bid_micros": 1_000}


def described(platform: Platform) -> dict[str, str]:
    """An ad as others are: of their category, campaign, advertiser, brand and type."""
    texts = platform.store.catalogue().texts
    return {name: texts[name][0].as_py() for name in texts}


def test_a_new_ad_is_shown_by_the_next_slates_and_an_ended_one_by_none(
    platform: Platform,
) -> None:
    before = platform.shown()
    assert "brand-new" not in before
    assert platform.change("upsert", "brand-new", **described(platform), **WORTH) == []
    new = platform.shown()["brand-new"]
    assert len(new) > SLATES / 20
    assert {ad["bid_micros"] for ad in new} == {1_000}
    platform.change("bid", "brand-new", bid_micros=2_000)
    assert {ad["bid_micros"] for ad in platform.shown()["brand-new"]} == {2_000}
    platform.change("end", "brand-new")
    assert "brand-new" not in platform.shown()


def test_an_ad_that_has_spent_its_budget_is_shown_by_none_until_the_next_day(
    platform: Platform,
) -> None:
    bid = {"price_micros": 50_000_000, "bid_micros": 1_000_000}
    # Room for one click and no more by any hour's pacing: 0.8 of the bid is due at each.
    platform.change("upsert", "poor", **described(platform), **bid, daily_budget_micros=1_600_000)
    rich = platform.shown()["poor"]
    clicks = [{"kind": "click", "impression_id": ad["impression_id"]} for ad in rich[:3]]
    assert platform.report(*clicks) == []
    assert "poor" in platform.shown(), "spent money counts from the next full hour on"
    platform.now += PAUSE
    platform.take()
    assert "poor" not in platform.shown()
    platform.change("budget", "poor", daily_budget_micros=100_000_000)
    assert "poor" in platform.shown()
    platform.change("budget", "poor", daily_budget_micros=1_600_000)
    assert "poor" not in platform.shown()
    platform.now += MICROS_PER_DAY
    assert "poor" in platform.shown()


def test_a_price_that_changes_before_the_click_changes_no_cost(platform: Platform) -> None:
    platform.change("upsert", "dear", **described(platform), **WORTH)
    (first, *_) = platform.shown()["dear"]
    platform.change("price", "dear", price_micros=1)
    platform.change("bid", "dear", bid_micros=90_000)
    platform.report({"kind": "click", "impression_id": first["impression_id"]})
    hour = platform.now // MICROS_PER_HOUR
    platform.store.read([], (hour + 1) * MICROS_PER_HOUR)
    spent = platform.store.ad_states((hour + 1) * MICROS_PER_HOUR).spent
    row = platform.store.shelf.vocabulary.lookup("ad")["dear"]
    assert spent is not None
    assert spent[row] == 800  # 0.8 of the bid of its slate, 1,000


def test_changes_late_twice_and_out_of_order_leave_what_was_last_said(platform: Platform) -> None:
    platform.change("upsert", "late", **described(platform), **WORTH)
    at = platform.now
    change = {"kind": "catalogue", "change": "bid", "ad_id": "late"}
    last = change | {"event_id": "z", "event_time": at + 20, "bid_micros": 7}
    early = change | {"event_id": "a", "event_time": at + 10, "bid_micros": 6}
    platform.report(last, early, last)
    platform.report(last, early)
    assert {ad["bid_micros"] for ad in platform.shown()["late"]} == {7}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"change": "upsert", "price_micros": 1, "bid_micros": 1}, "ad 'x': no campaign_id"),
        ({"change": "budget", "daily_budget_micros": 0}, "ad 'x': daily_budget_micros 0"),
        ({"change": "budget", "daily_budget_micros": -5}, "ad 'x': daily_budget_micros -5"),
        ({"change": "price", "price_micros": -1}, "ad 'x': price_micros -1"),
    ],
)
def test_what_is_no_change_is_refused_at_the_door(
    platform: Platform, change: dict[str, Any], said: str
) -> None:
    before = platform.ads()
    (refused,) = platform.change(ad="x", **change)
    assert refused["reason"] == "schema"
    assert said in refused["fault"]
    assert platform.ads() == before


def test_what_would_end_every_ad_is_set_aside_and_the_catalogue_stays(platform: Platform) -> None:
    events = [
        {"kind": "catalogue", "change": "end", "ad_id": ad, "event_id": f"end-{ad}"}
        for ad in platform.ads()
    ]
    platform.report(*events)
    assert platform.shown(5)
    # A few at a time, as polls take them: all but those of the poll that would have emptied it.
    assert platform.consumer.state.counts["empties"] == len(platform.letters.letters) > 0
    assert {letter.reason for letter in platform.letters.letters} == {"empties"}
    assert "the catalogue stays as it is" in platform.letters.letters[0].detail


def test_without_a_catalogue_there_is_no_slate(platform: Platform, server: Server) -> None:
    for key in server.client.scan_iter("*:catalogue*"):
        server.client.delete(key)
    answer = platform.slate()
    assert answer.status_code == 503
    assert "the catalogue is empty" in answer.json()["error"]


def test_a_new_ad_has_a_history_of_its_own(platform: Platform) -> None:
    """Its impressions count for it from the next hour on, and for no other ad."""
    platform.change("upsert", "known-soon", **described(platform), **WORTH)
    shown = len(platform.shown()["known-soon"])
    platform.take()
    later = (platform.now // MICROS_PER_HOUR + 1) * MICROS_PER_HOUR
    platform.store.read([], later)
    row = platform.store.shelf.vocabulary.lookup("ad")["known-soon"]
    counts = platform.store.ad_states(later).counts
    cells = platform.store.plan.item_cells
    widths = np.diff(cells.base)
    own = [
        counts[base + row] for base, width in zip(cells.base, widths, strict=False) if row < width
    ]
    assert max(int(one[0]) for one in own) == shown
    assert SLATE * SLATES > shown > 0
