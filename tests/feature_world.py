"""Small worlds of events, and the features of a pair worked out row by row from the raw rows."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiflow.data.schemas import CLICKS, SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.features.plan import Plan
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built, build
from roiflow.params import FeaturesParams

FIRST, LAST = Week.parse("2026-W02"), Week.parse("2026-W04")
WEEKS = LAST.window(3)
TEST_START = LAST.start
HOUR, DAY = MICROS_PER_HOUR, MICROS_PER_DAY

PARAMS = FeaturesParams(
    history_length=3,
    prior_strength=20.0,
    validation_days=2,
    run_up_days=0,
    min_count=1,
    traffic=[],
)

ADS = {  # ad: campaign, advertiser, category, price, bid
    "a1": ("c1", "v1", "shoes", 20_000_000, 500_000),
    "a2": ("c1", "v1", "books", 10_000_000, 400_000),
    "a3": ("c2", "v2", "shoes", 5_000_000, 300_000),
    "a4": ("c3", "v2", "games", 60_000_000, 900_000),
}

Row = dict[str, Any]


def at(day: float, hour: float = 0.0) -> int:
    """Microseconds of a day (0 is the first Monday) and hour of the window."""
    return FIRST.start + int(day * DAY) + int(hour * HOUR)


@dataclass(frozen=True)
class World:
    """Raw rows of every table."""

    impressions: list[Row] = field(default_factory=list)
    behaviours: list[Row] = field(default_factory=list)
    conversions: list[Row] = field(default_factory=list)
    users: tuple[str, ...] = ("u1", "u2", "u3")

    def show(self, user: str, ad: str, time: int, known: int | None = None, **rest: Any) -> "World":
        """With one more impression."""
        number = len(self.impressions)
        row = {
            "event_time": time,
            "known_time": time if known is None else known,
            "request_id": f"r{number}",
            "impression_id": f"i{number}",
            "user_id": user,
            "ad_id": ad,
            "position": 1,
            "slate_size": 1,
            "placement": "feed",
            "device": "phone",
            "bid_micros": ADS[ad][4],
            "cost_micros": 1_000,
            "propensity": 0.5,
            "policy_version": "logging",
            "arm": "control",
            "clicked": False,
            "click_known_time": None,
        } | rest
        return replace(self, impressions=[*self.impressions, row])

    def behave(
        self, user: str, ad: str, time: int, known: int | None = None, action: str = "view"
    ) -> "World":
        """With one more behaviour."""
        row = {
            "event_time": time,
            "known_time": time if known is None else known,
            "user_id": user,
            "ad_id": ad,
            "category_id": ADS[ad][2] if ad in ADS else "books",
            "action": action,
            "dwell_ms": None,
        }
        return replace(self, behaviours=[*self.behaviours, row])

    def convert(
        self, impression: str, time: int, known: int | None = None, revenue: int = 7
    ) -> "World":
        """With one more conversion."""
        row = {
            "event_time": time,
            "known_time": time if known is None else known,
            "impression_id": impression,
            "revenue_micros": revenue,
        }
        return replace(self, conversions=[*self.conversions, row])

    def snapshots(self, week: Week) -> dict[str, list[Row]]:
        """The weekly rows of ads and users."""
        times = {"event_time": week.start, "known_time": week.start}
        return {
            "ads": [
                times
                | {
                    "ad_id": ad,
                    "campaign_id": campaign,
                    "advertiser_id": advertiser,
                    "category_id": category,
                    "brand_id": "brand",
                    "ad_type": "image",
                    "price_micros": price + week.number,
                    "bid_micros": bid,
                    "daily_budget_micros": None,
                    "created_at": FIRST.start,
                    "ends_at": None,
                }
                for ad, (campaign, advertiser, category, price, bid) in ADS.items()
            ],
            "users": [
                times | {"user_id": user, "age": f"age{len(user) % 2}"} for user in self.users
            ],
        }

    def tables(self, start: int, end: int) -> dict[str, pa.Table]:
        """Rows of the event tables with start <= known_time < end, in the order known.

        Clicks with a time of their own come in a table of their own, as a stream has them.
        """
        apart = [row for row in self.impressions if row["click_known_time"] is not None]
        rows = {
            "impressions": [
                row
                | {"clicked": row["clicked"] and row["click_known_time"] is None}
                | {"click_known_time": None}
                for row in self.impressions
            ],
            "clicks": [row | {"known_time": row["click_known_time"]} for row in apart],
            "behaviours": self.behaviours,
            "conversions": self.conversions,
        }
        return {
            name: table(name, sorted(_known(some, start, end), key=_arrival))
            for name, some in rows.items()
        }

    def write(self, folder: Path) -> Path:
        """As validated weeks; a row is in the week in which it became known."""
        for week in WEEKS:
            for name in SCHEMAS:
                rows = self.snapshots(week).get(name)
                if rows is None:
                    rows = list(_known(getattr(self, name), week.start, week.end))
                path = folder / name / f"week={week}" / "part-0.parquet"
                path.parent.mkdir(parents=True)
                pq.write_table(table(name, rows), path)
        return folder

    def built(self, folder: Path, params: FeaturesParams = PARAMS) -> Built:
        """The features of this world."""
        return build(Window(self.write(folder)), Vocabulary({}), params, folder / "features")


def _known(rows: list[Row], start: int, end: int) -> Iterable[Row]:
    return (row for row in rows if start <= row["known_time"] < end)


def _arrival(row: Row) -> tuple[int, int]:
    return row["known_time"], row["event_time"]


def table(name: str, rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table of the contract, profile attributes as further strings."""
    schema = CLICKS if name == "clicks" else SCHEMAS[name]
    if name == "users":
        schema = schema.append(pa.field("age", pa.string()))
    return pa.Table.from_pylist(rows, schema)


def random_world(seed: int, requests: int = 40, behaviours: int = 60) -> World:
    """Slates of two with late arrivals, clicks, conversions within and beyond the attribution."""
    rng = np.random.default_rng(seed)
    world = World()
    users, ads = list(world.users), list(ADS)
    span = LAST.end - FIRST.start

    def times() -> tuple[int, int]:
        time = FIRST.start + int(rng.integers(span - 1))
        late = int(rng.choice([0, HOUR - time % HOUR, int(rng.integers(3 * DAY))]))
        return time, min(time + late, LAST.end - 1)

    for number in range(requests):
        (time, known), user = times(), users[rng.integers(3)]
        for position, ad in enumerate(rng.permutation(ads)[:2], 1):
            clicked = bool(rng.random() < 0.5)
            late = min(time + int(rng.integers(2 * DAY)), LAST.end - 1)
            world = world.show(
                user,
                str(ad),
                time,
                known,
                request_id=f"q{number}",
                position=position,
                slate_size=2,
                clicked=clicked,
                click_known_time=late if clicked and rng.random() < 0.5 else None,
                placement=str(rng.choice(["feed", "top"])),
            )
            if rng.random() < 0.3:
                arrival = time + int(rng.integers(10 * DAY))
                if arrival < LAST.end:
                    impression = f"i{len(world.impressions) - 1}"
                    world = world.convert(impression, arrival, revenue=int(rng.integers(9 * 10**6)))
                    if rng.random() < 0.2 and arrival + DAY < LAST.end:
                        world = world.convert(impression, arrival + DAY, revenue=-3_000_000)
    for _ in range(behaviours):
        time, known = times()
        ad = str(rng.choice([*ads, "elsewhere"]))
        action = str(rng.choice(["view", "cart"]))
        world = world.behave(users[rng.integers(3)], ad, time, known, action)
    return world


def reference(
    world: World, plan: Plan, user: str, ad: str, time: int, placement: str
) -> list[float]:
    """The dense features of a pair at a time, by going through every raw row."""
    campaign, advertiser, category, _, bid = ADS[ad]
    price = ADS[ad][3] + Week.of(time).number
    impression_of = {row["impression_id"]: row for row in world.impressions}
    clicks = [
        row | {"known_time": max(row["known_time"], row["click_known_time"] or 0)}
        for row in world.impressions
        if row["clicked"]
    ]
    outcomes = [
        shown
        | {
            "known_time": max(row["known_time"], shown["known_time"]),
            "revenue": row["revenue_micros"],
        }
        for row in world.conversions
        if (shown := impression_of[row["impression_id"]])
        and row["known_time"] - shown["known_time"] <= 7 * DAY
    ]
    conversions = [row for row in outcomes if row["revenue"] >= 0]
    intents = [row for row in world.behaviours if row["action"] in ("cart", "purchase")]
    day, hour = time // DAY * DAY, time // HOUR * HOUR
    matches: dict[str, Callable[[Row], bool]] = {
        "user": lambda row: row["user_id"] == user,
        "user_category": lambda row: row["user_id"] == user and _of(row, 2) == category,
        "user_campaign": lambda row: row["user_id"] == user and _of(row, 0) == campaign,
        "user_advertiser": lambda row: row["user_id"] == user and _of(row, 1) == advertiser,
        "user_ad": lambda row: row["user_id"] == user and row["ad_id"] == ad,
        "ad": lambda row: row["ad_id"] == ad,
        "campaign": lambda row: _of(row, 0) == campaign,
        "category": lambda row: _of(row, 2) == category,
        "advertiser": lambda row: _of(row, 1) == advertiser,
        "placement": lambda row: row["placement"] == placement,
    }

    def counted(entity: str, rows: list[Row], days: int) -> list[Row]:
        start = day - days * DAY
        end = time if entity.startswith("user") else hour
        return [row for row in rows if start <= row["known_time"] < end and matches[entity](row)]

    def count(entity: str, rows: list[Row], days: int) -> int:
        return len(counted(entity, rows, days))

    def aggregate(entity: str, name: str, days: int) -> float:
        shown = count(entity, world.impressions, days)
        clicked = count(entity, clicks, days)
        converted = count(entity, conversions, days)
        revenue = sum(row["revenue"] for row in counted(entity, outcomes, days))
        strength = plan.prior_strength
        if name == "ctr":
            return (clicked + strength * plan.ctr) / (shown + strength)
        if name == "cvr":
            return (converted + strength * plan.cvr) / (clicked + strength)
        if name == "value":
            mean = (revenue + strength * plan.value) / (converted + strength)
            return math.log1p(max(mean, 0) / 1e6)
        counts = {"impressions": shown, "clicks": clicked, "conversions": converted}
        if name in ("behaviours", "intents"):
            rows = world.behaviours if name == "behaviours" else intents
            return math.log1p(count(entity, rows, days))
        return math.log1p(counts[name])

    past = sorted(
        (row["known_time"], row["event_time"])
        for row in world.behaviours
        if row["user_id"] == user and row["known_time"] < time
    )
    hours = min((time - past[-1][1]) / HOUR, 720.0) if past else 720.0
    values = {
        "log_price": math.log1p(price / 1e6),
        "log_bid": math.log1p(bid / 1e6),
        "log_hours_since_behaviour": math.log1p(hours),
    }
    return [
        values[spec.name]
        if spec.window_days is None
        else aggregate(spec.entity, spec.aggregate, spec.window_days)
        for spec in plan.specs
    ]


def _of(row: Row, attribute: int) -> str:
    if attribute == 2 and "category_id" in row:
        return str(row["category_id"])
    return str(ADS[row["ad_id"]][attribute]) if row["ad_id"] in ADS else ""
