"""The engine against pandas' as-of merges on equal tables; the Redis path against its target."""

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose

from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.features.build import Built, Window, build, write_built
from roiflow.features.online import dense, load_snapshot
from roiflow.features.redis_store import RedisStore
from roiflow.features.spec import ITEM_ENTITIES, RATES, USER_ENTITIES
from roiflow.features.vocabulary import Vocabulary
from roiflow.params import FeaturesParams
from tests.conftest import Record
from tests.integration.test_redis_store import Server

WEEKS = Week.parse("2026-W03").window(2)
PARAMS = FeaturesParams(
    history_length=50, windows_days=[1, 7], prior_strength=20.0, validation_days=2, min_count=1
)
ADS, CATEGORIES, ADVERTISERS, CAMPAIGNS = 2_000, 40, 200, 500


def write_world(folder: Path, events: int) -> None:
    """60 % impressions, 40 % behaviours; events / 20 users; known within an hour."""
    rng = np.random.default_rng(3)
    users = max(events // 20, 10)
    shown, behaved = events * 6 // 10, events * 4 // 10
    ads = np.arange(ADS)
    attributes = [ads * 7 % CAMPAIGNS, ads * 11 % ADVERTISERS, ads * 13 % CATEGORIES]

    def names(prefix: str, values: np.ndarray) -> list[str]:
        return [f"{prefix}{value}" for value in values.tolist()]

    for week in WEEKS:
        here = shown // len(WEEKS), behaved // len(WEEKS)
        ad = [(ADS * rng.random(n) ** 2).astype(int) for n in here]
        who = [(users * rng.random(n) ** 2).astype(int) for n in here]
        event = [week.start + np.sort(rng.integers(0, 7 * MICROS_PER_DAY - 1, n)) for n in here]
        known = [
            np.minimum(t // MICROS_PER_HOUR * MICROS_PER_HOUR + MICROS_PER_HOUR, week.end - 1)
            for t in event
        ]
        ids = [f"{week}{n}" for n in range(here[0])]
        converted = np.flatnonzero(rng.random(here[0]) < 0.02)
        late = np.minimum(known[0][converted] + MICROS_PER_DAY, week.end - 1)
        constant = {name: [value] * here[0] for name, value in (
            ("placement", "feed"), ("device", "phone"), ("policy_version", "v"), ("arm", "a"),
        )}  # fmt: skip
        snapshot = {"event_time": [week.start] * ADS, "known_time": [week.start] * ADS}
        tables: dict[str, dict[str, object]] = {
            "impressions": constant
            | {
                "event_time": event[0],
                "known_time": known[0],
                "request_id": ids,
                "impression_id": ids,
                "user_id": names("u", who[0]),
                "ad_id": names("a", ad[0]),
                "position": np.ones(here[0], np.int32),
                "slate_size": np.ones(here[0], np.int32),
                "bid_micros": np.ones(here[0], np.int64),
                "cost_micros": np.ones(here[0], np.int64),
                "propensity": np.full(here[0], 0.5),
                "clicked": rng.random(here[0]) < 0.1,
            },
            "behaviours": {
                "event_time": event[1],
                "known_time": known[1],
                "user_id": names("u", who[1]),
                "ad_id": names("a", ad[1]),
                "category_id": names("k", attributes[2][ad[1]]),
                "action": ["view"] * here[1],
                "dwell_ms": [None] * here[1],
            },
            "conversions": {
                "event_time": late,
                "known_time": late,
                "impression_id": [ids[row] for row in converted],
                "revenue_micros": np.ones(converted.size, np.int64),
            },
            "ads": snapshot
            | {
                "ad_id": names("a", ads),
                "campaign_id": names("c", attributes[0]),
                "advertiser_id": names("v", attributes[1]),
                "category_id": names("k", attributes[2]),
                "brand_id": ["b"] * ADS,
                "ad_type": ["image"] * ADS,
                "price_micros": ads * 1_000_000,
                "bid_micros": ads * 1_000,
                "daily_budget_micros": [None] * ADS,
                "created_at": [week.start] * ADS,
            },
            "users": {name: [] for name in SCHEMAS["users"].names},
        }
        for name, columns in tables.items():
            path = folder / name / f"week={week}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            schema = SCHEMAS[name]
            arrays = [pa.array(columns[field.name]).cast(field.type) for field in schema]
            pq.write_table(pa.table(arrays, schema=schema), path, use_dictionary=False)


COLUMNS = {
    "ad_id": "ad", "category_id": "category", "advertiser_id": "advertiser",
    "campaign_id": "campaign",
}  # fmt: skip


def pandas_features(folder: Path, built: Built) -> pd.DataFrame:
    """The counted features by cumulative sums and as-of merges; a row per impression."""

    def read(table: str) -> pd.DataFrame:
        frame = pd.concat([pd.read_parquet(path) for path in sorted((folder / table).glob("*/*"))])
        for name in ("event_time", "known_time"):
            frame[name] = frame[name].astype("datetime64[us, UTC]").astype("int64")
        return frame.reset_index(drop=True)

    ads = read("ads").drop_duplicates("ad_id")[
        ["ad_id", "campaign_id", "advertiser_id", "category_id"]
    ]
    shown = read("impressions").merge(ads, on="ad_id").rename(columns=COLUMNS)
    behaved = (
        read("behaviours")
        .merge(ads.drop(columns="category_id"), on="ad_id")
        .rename(columns=COLUMNS)
    )
    converted = read("conversions")[["impression_id", "known_time"]].merge(
        shown.drop(columns="known_time"), on="impression_id"
    )
    counts = ["impressions", "clicks", "conversions", "behaviours"]
    log = pd.concat(
        [
            shown.assign(impressions=1, clicks=shown["clicked"].astype(int)),
            converted.assign(conversions=1),
            behaved.assign(behaviours=1),
        ]
    ).fillna(dict.fromkeys(counts, 0))
    log = log.sort_values("known_time").reset_index(drop=True)
    plan = built.engine.plan
    asked = shown[
        ["impression_id", "user_id", "ad", "category", "advertiser", "campaign", "placement"]
    ].copy()
    time_of = shown["event_time"]
    for entity in (*USER_ENTITIES, *ITEM_ENTITIES):
        personal = entity in USER_ENTITIES
        keys = ["user_id", *entity.split("_")[1:]] if personal else [entity]
        rows = log if personal else log[log["behaviours"] == 0]
        cumulative = rows[["known_time", *keys]].copy()
        cumulative[counts] = rows.groupby(keys)[counts].cumsum()
        end = time_of if personal else time_of // MICROS_PER_HOUR * MICROS_PER_HOUR
        step = MICROS_PER_DAY if personal else MICROS_PER_HOUR

        def before(moment: pd.Series) -> pd.DataFrame:
            left = asked[keys].assign(moment=moment).sort_values("moment")  # noqa: B023
            found = pd.merge_asof(
                left, cumulative, left_on="moment", right_on="known_time", by=keys,  # noqa: B023
                allow_exact_matches=False,
            )[counts]  # fmt: skip
            found.index = left.index
            return found.fillna(0).sort_index()

        total = before(end)
        for days in plan.windows_days:
            wanted = [s for s in plan.specs if s.entity == entity and s.window_days == days]
            if not wanted:
                continue
            window = total - before(time_of // step * step - days * MICROS_PER_DAY)
            for spec in wanted:
                if spec.aggregate in RATES:
                    hit, of = (
                        ("clicks", "impressions")
                        if spec.aggregate == "ctr"
                        else ("conversions", "clicks")
                    )
                    mean = plan.ctr if spec.aggregate == "ctr" else plan.cvr
                    strength = plan.prior_strength
                    asked[spec.name] = (window[hit] + strength * mean) / (window[of] + strength)
                else:
                    asked[spec.name] = np.log1p(window[spec.aggregate])
    return asked


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_the_engine_is_faster_than_as_of_merges_and_equal(
    tmp_path: Path, full: bool, record: Record
) -> None:
    events = 1_000_000 if full else 100_000
    write_world(tmp_path / "validated", events)
    window = Window(tmp_path / "validated")
    built = build(window, Vocabulary({}), PARAMS)  # compiles
    frames: list[pd.DataFrame] = []
    rounds = 3
    own = [cpu_seconds(lambda: build(window, Vocabulary({}), PARAMS)) for _ in range(rounds)]
    peer = [cpu_seconds(lambda: frames.append(pandas_features(window.folder, built)))]
    log = built.features.impressions
    names = built.vocabulary.ids("user").to_numpy(zero_copy_only=False)
    ads = built.vocabulary.ids("ad").to_numpy(zero_copy_only=False)
    expected = frames[0].merge(
        pd.read_parquet(window.folder / "impressions")[["impression_id", "event_time"]],
        on="impression_id",
    )
    expected = expected.assign(
        event_time=expected["event_time"].astype("datetime64[us, UTC]").astype("int64")
    ).sort_values(["user_id", "event_time", "ad"])
    order = np.lexsort(
        (ads[log.ad - 1].astype(str), log.event_time, names[log.user - 1].astype(str))
    )
    for column, spec in enumerate(built.engine.plan.specs):
        if spec.window_days is not None:
            assert_allclose(
                log.dense[order, column], expected[spec.name].to_numpy(), rtol=1e-6, atol=1e-6,
                err_msg=spec.name,
            )  # fmt: skip
    ratio = peer[0] / statistics.median(own)
    size = f"{events:,} events"
    record(f"build_features, {size}, CPU", f"{statistics.median(own):.2f} s")
    record(f"the counted features alone by pandas, {size}, CPU", f"{peer[0]:.1f} s")
    record(f"build_features against pandas, {size}, CPU", f"{ratio:.1f} x")
    assert ratio > 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.mark.filterwarnings("error")
def test_one_request_of_200_candidates_from_redis(
    tmp_path: Path, full: bool, server: Server, record: Record
) -> None:
    write_world(tmp_path / "validated", 100_000 if full else 20_000)
    built = build(Window(tmp_path / "validated"), Vocabulary({}), PARAMS)
    (tmp_path / "features").mkdir()
    write_built(tmp_path / "features", built)
    plan, now = built.engine.plan, WEEKS[-1].end + 1
    store = RedisStore(plan, built.vocabulary, 50, server.url)
    load_snapshot(store, tmp_path / "features" / "online")
    users = [
        int(key.removeprefix(b"roiflow:user:u"))
        for key in server.client.scan_iter("*:user:*", 1000)
    ]
    sample = [f"roiflow:user:u{user}" for user in users[:500]]
    sizes = [server.client.memory_usage(key) or 0 for key in sample]
    catalogue = built.features.catalogues[-1]
    ad = np.ascontiguousarray(catalogue.ad[None, :200])
    price = np.ascontiguousarray(catalogue.price[None, :200])
    bid = np.ascontiguousarray(catalogue.bid[None, :200])
    one = np.ones(1, np.int32)

    def ask(user: int) -> None:
        states = store.read([f"u{user}"], now)
        dense(
            plan, states, store.ad_states(now), event_time=np.array([now]), placement=one,
            ad=ad, price=price, bid=bid,
        )  # fmt: skip

    ask(0)
    seconds = []
    for user in np.random.default_rng(0).choice(users, 2_000):
        start = time.perf_counter()
        ask(int(user))
        seconds.append(time.perf_counter() - start)
    median, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    store.close()
    record("online features of 200 candidates from Redis", f"p50 {median:.2f} ms, p99 {p99:.2f} ms")
    record("memory of a user in Redis", f"mean {np.mean(sizes):,.0f} bytes of {len(users):,} users")
    assert median < 5
