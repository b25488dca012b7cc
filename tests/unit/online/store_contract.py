"""What every online store does; each implementation's tests inherit it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.testing import assert_array_equal

from roiflow.errors import ContractError, ServiceError
from roiflow.features.kernels import LARGEST_SUM
from roiflow.features.plan import Plan
from roiflow.features.spec import ITEM_ENTITIES
from roiflow.features.table import Ints, Longs, Singles
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import (
    LAYOUT_KEY,
    FeatureStore,
    MemoryValues,
    Value,
    Values,
    Writes,
    dense,
)
from tests.feature_world import (
    DAY,
    FIRST,
    HOUR,
    LAST,
    TEST_START,
    World,
    at,
    random_world,
    table,
)

Make = Callable[[Plan, Vocabulary, int], FeatureStore]

AFTER = LAST.end + HOUR + 1
"""A request after the snapshot."""


class Counting:
    """Values that count their round trips."""

    def __init__(self, values: Values) -> None:
        self.values, self.gets = values, 0

    def get(self, keys: Sequence[str]) -> list[Value]:
        self.gets += 1
        return self.values.get(keys)

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        self.values.put(pairs, seconds)

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        self.values.commit(key, expected, writes)


def catalogue(built: Built, users: int) -> tuple[Ints, Longs, Longs]:
    """Every ad of the test week for each of `users` requests."""
    found = built.features.catalogues[-1]
    return (
        np.tile(found.ad, (users, 1)),
        np.tile(found.price, (users, 1)),
        np.tile(found.bid, (users, 1)),
    )


def online(built: Built, store: FeatureStore, users: Sequence[str], time: int) -> Singles:
    """Dense features of every ad for users who ask at a time, from the store."""
    ad, price, bid = catalogue(built, len(users))
    states = store.read(users, time)
    return dense(
        built.engine.plan,
        states,
        store.ad_states(time),
        event_time=np.full(len(users), time),
        placement=np.ones(len(users), np.int32),
        ad=ad,
        price=price,
        bid=bid,
    )


def offline(built: Built, users: Sequence[str], time: int) -> Singles:
    """The same from the offline engine."""
    ad, price, bid = catalogue(built, len(users))
    index = np.array([built.vocabulary.lookup("user").get(name, 0) for name in users], np.int32)
    last = [last_behaviour(built, user, time) for user in index]
    return built.engine.dense(
        index,
        np.full(len(users), time),
        np.ones(len(users), np.int32),
        np.array(last),
        ad=ad,
        price=price,
        bid=bid,
    )


def item_counts(built: Built, counts: Longs, entity: str, days: int = 56) -> Longs:
    """Rows of `AdStates.counts` of one entity in one window."""
    cells = built.engine.plan.item_cells
    window, number = cells.days.tolist().index(days), ITEM_ENTITIES.index(entity)
    for cell in range(cells.of_window[window], cells.of_window[window + 1]):
        if cells.entity[cell] == number:
            return counts[cells.base[cell] : cells.base[cell + 1]]
    raise AssertionError(f"{entity} has no window of {days} days")


def last_behaviour(built: Built, user: int, time: int) -> int:
    events = built.features.events
    rows = range(events.offsets[user], events.offsets[user + 1])
    return max(
        (
            (int(events.known_time[row]), int(events.event_time[row]))
            for row in rows
            if events.known_time[row] < time
        ),
        default=(-1, -1),
    )[1]


@cache
def _built(folder: Path) -> Built:
    return random_world(11).built(folder / "contract")


@cache
def _snapshot(folder: Path) -> Path:
    _built(folder)
    return folder / "contract" / "features" / "online"


class StoreContract:
    """Inherit, and give the fixture `make`."""

    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError

    @pytest.fixture
    def world(self) -> World:
        return random_world(11)

    @pytest.fixture
    def built(self, tmp_path_factory: pytest.TempPathFactory) -> Built:
        return _built(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def snapshot(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return _snapshot(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def store(self, make: Make, built: Built) -> FeatureStore:
        return make(built.engine.plan, built.vocabulary, 3)

    def test_replayed_events_give_the_offline_features(
        self, world: World, built: Built, store: FeatureStore
    ) -> None:
        log, known = built.features.impressions, FIRST.start
        times = np.unique(np.concatenate([log.event_time, FIRST.start + np.arange(1, 21) * DAY]))
        events = built.features.events
        for time in times.tolist():
            store.update(world.tables(known, time))
            known = time
            assert_array_equal(
                online(built, store, world.users, time), offline(built, world.users, time)
            )
            for row in np.flatnonzero(log.event_time == time):
                user = built.vocabulary.ids("user")[log.user[row] - 1].as_py()
                states = store.read([user], time)
                slice_ = slice(log.history_start[row], log.history_end[row])
                length = int(states.history_length[0])
                assert length == slice_.stop - slice_.start
                for name, values in (
                    ("history_ad", events.ad),
                    ("history_category", events.category),
                    ("history_action", events.action),
                    ("history_time", events.event_time),
                ):
                    assert_array_equal(getattr(states, name)[0, 3 - length :], values[slice_])
                    assert not getattr(states, name)[0, : 3 - length].any()

    def test_batches_of_any_size_give_the_same(
        self, world: World, built: Built, store: FeatureStore, make: Make
    ) -> None:
        store.update(world.tables(FIRST.start, LAST.end))
        assert_array_equal(
            online(built, store, world.users, AFTER), offline(built, world.users, AFTER)
        )

    def test_the_snapshot_gives_the_offline_features(
        self, world: World, built: Built, store: FeatureStore, snapshot: Path
    ) -> None:
        assert load_snapshot(store, snapshot)
        assert_array_equal(
            online(built, store, world.users, AFTER), offline(built, world.users, AFTER)
        )
        states = store.read(world.users, AFTER)
        assert states.user.tolist() == [1, 2, 3]
        assert states.profile.tolist() == [[1]] * 3
        assert not states.degraded

    def test_a_snapshot_is_loaded_once(
        self, world: World, store: FeatureStore, snapshot: Path
    ) -> None:
        assert load_snapshot(store, snapshot)
        assert not load_snapshot(store, snapshot)

    def test_a_store_that_is_emptied_while_it_is_loaded_stays_empty(
        self, store: FeatureStore, snapshot: Path
    ) -> None:
        """It would have kept the last values alone, and have passed for whole."""
        values = MemoryValues()

        class Emptied(Counting):
            def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
                if any(key.startswith("user:") for key in pairs):
                    values.content.clear()
                values.put(pairs, seconds)

        losing = FeatureStore(store.plan, store.vocabulary, store.history, Emptied(values))
        with pytest.raises(ServiceError, match="'loading'"):
            load_snapshot(losing, snapshot)
        assert losing.watermark() is None
        losing.values = values
        assert load_snapshot(losing, snapshot)

    def test_a_snapshot_does_not_replace_what_is_newer(
        self, store: FeatureStore, snapshot: Path
    ) -> None:
        store.update(
            {"behaviours": World().behave("u1", "a1", AFTER).tables(0, 2**60)["behaviours"]}
        )
        assert not load_snapshot(store, snapshot)
        assert store.read(["u1"], AFTER + 1).history_length.tolist() == [1]

    def test_a_conversion_counts_for_an_impression_before_the_snapshot(
        self, built: Built, store: FeatureStore, snapshot: Path, world: World
    ) -> None:
        load_snapshot(store, snapshot)
        row = max(world.impressions, key=lambda row: row["known_time"])
        name = built.features.dense_names.index("user_conversions_56d")
        before = online(built, store, [row["user_id"]], AFTER + 1)[0, 0, name]
        late = World(impressions=[row]).convert(row["impression_id"], AFTER)
        store.update({"conversions": late.tables(0, 2**60)["conversions"]})
        after = online(built, store, [row["user_id"]], AFTER + 1)[0, 0, name]
        assert np.expm1(after) == pytest.approx(np.expm1(before) + 1, abs=1e-5)

    def test_conversions_too_late_or_of_unknown_impressions_are_no_counters(
        self, built: Built, store: FeatureStore
    ) -> None:
        shown = World().show("u1", "a1", FIRST.start).convert("i0", FIRST.start + 7 * DAY + 1)
        store.update(shown.convert("never", FIRST.start + DAY).tables(0, 2**60))
        states = store.read(["u1"], FIRST.start + 8 * DAY)
        assert states.bucket_counts[:, 2].sum() == 0

    @pytest.mark.parametrize("order", list(permutations(["impressions", "clicks", "conversions"])))
    def test_outcomes_wait_for_their_impression(
        self, built: Built, store: FeatureStore, order: Sequence[str]
    ) -> None:
        world = World().show("u1", "a1", FIRST.start, clicked=True, click_known_time=FIRST.start)
        tables = world.convert("i0", FIRST.start, revenue=5).tables(0, 2**60)
        for name in order:
            store.update({name: tables[name]})
        states = store.read(["u1"], FIRST.start + HOUR)
        assert states.bucket_counts.tolist() == [[1, 1, 1, 0, 0]]
        counts = store.ad_states(FIRST.start + HOUR).counts
        assert item_counts(built, counts, "ad")[1].tolist() == [1, 1, 1, 5]

    def test_an_outcome_that_waited_counts_from_its_impression_on(
        self, built: Built, store: FeatureStore
    ) -> None:
        late = FIRST.start + 3 * HOUR
        world = World().show("u1", "a1", late, clicked=True, click_known_time=FIRST.start)
        store.update({"clicks": world.tables(0, 2**60)["clicks"]})
        store.update({"impressions": world.tables(0, 2**60)["impressions"]})
        states = store.read(["u1"], late + HOUR)
        assert states.bucket_day.tolist() == [late // DAY]
        assert states.bucket_counts.tolist() == [[1, 1, 0, 0, 0]]

    def test_a_batch_counts_once_however_often_it_is_sent(
        self, store: FeatureStore, world: World
    ) -> None:
        tables = World().behave("u1", "a1", FIRST.start).tables(0, 2**60)
        assert store.watermark() is None
        assert store.update(tables, stamp=FIRST.start + 1)
        assert not store.update(tables, stamp=FIRST.start + 1)
        assert not store.update(tables, stamp=FIRST.start)
        assert store.watermark() == FIRST.start + 1
        states = store.read(["u1"], FIRST.start + 2)
        assert (states.history_length.tolist(), states.as_of) == ([1], FIRST.start + 1)
        assert store.update({}, stamp=FIRST.start + 9)
        assert store.watermark() == FIRST.start + 9

    def test_a_store_that_lost_what_it_had_takes_nothing_more(self, store: FeatureStore) -> None:
        tables = World().behave("u1", "a1", FIRST.start).tables(0, 2**60)
        store.update(tables, stamp=FIRST.start)
        assert not store.update(tables, stamp=FIRST.start, after=7)  # it is there already
        with pytest.raises(ServiceError, match="another writer moved 'as_of'"):
            store.update(tables, stamp=FIRST.start + 2, after=FIRST.start + 1)
        assert store.watermark() == FIRST.start

    def test_a_second_writer_is_told_and_nothing_is_written(
        self, make: Make, built: Built, store: FeatureStore
    ) -> None:
        other = make(built.engine.plan, built.vocabulary, 3)
        other.values = store.values
        tables = World().behave("u1", "a1", FIRST.start).tables(0, 2**60)

        class Meanwhile(Counting):
            def commit(self, key: str, expected: Value, writes: Writes) -> None:
                other.update(tables, stamp=5)
                super().commit(key, expected, writes)

        store.values = Meanwhile(store.values)
        with pytest.raises(ServiceError, match="another writer moved 'as_of'"):
            store.update(tables, stamp=6)
        assert other.watermark() == 5
        assert other.read(["u1"], FIRST.start).history_length.tolist() == [1]

    def test_counters_of_an_hour_are_read_again_until_they_are_final(
        self, built: Built, store: FeatureStore
    ) -> None:
        def seen() -> int:
            counts = store.ad_states(FIRST.start + HOUR).counts
            return int(item_counts(built, counts, "ad")[1, 0])

        shown = World().show("u1", "a1", FIRST.start).tables(0, 2**60)
        store.update(shown, stamp=FIRST.start)
        store.read(["u1"], FIRST.start + HOUR)
        assert (seen(), store.ad_states(FIRST.start + HOUR).final) == (1, False)
        late = World().show("u1", "a1", FIRST.start + HOUR - 1, impression_id="late")
        store.update(late.tables(0, 2**60), stamp=FIRST.start + HOUR)
        store.read(["u1"], FIRST.start + HOUR)
        assert (seen(), store.ad_states(FIRST.start + HOUR).final) == (2, True)

    def test_large_counts_stay_at_the_largest(self, store: FeatureStore) -> None:
        world = World().behave("u1", "a1", FIRST.start)
        rows = pa.concat_tables([world.tables(0, 2**60)["behaviours"]] * 40_000)
        for _ in range(2):
            store.update({"behaviours": rows})
        states = store.read(["u1"], FIRST.start + 1)
        assert states.bucket_counts.tolist() == [[0, 0, 0, 65_535, 0]]

    def test_sums_of_money_stay_at_the_largest_and_leave_their_windows_again(
        self, make: Make, tmp_path: Path
    ) -> None:
        """2^60 a sale: the ninth one in a window would have made its sum negative."""
        world = World()
        for number in range(12):
            time = at(1 + number // 4, number % 4)
            world = world.show("u1", "a1", time, clicked=True)
            world = world.convert(f"i{number}", time, revenue=2**60)
        built = world.built(tmp_path)
        store = make(built.engine.plan, built.vocabulary, 3)
        known = FIRST.start
        for time in (at(2), at(4), at(5), at(11), at(40)):
            store.update(world.tables(known, time))
            known = time
            assert_array_equal(online(built, store, ["u1"], time), offline(built, ["u1"], time))
            if time == at(5):
                row = item_counts(built, store.ad_states(time).counts, "ad")[1]
                assert row.tolist() == [12, 12, 12, LARGEST_SUM]
        assert built.features.impressions.revenue.tolist() == [2**60] * 12

    def test_a_user_never_seen_has_the_defaults(self, built: Built, store: FeatureStore) -> None:
        store.update(World().behave("u1", "a1", TEST_START).tables(0, 2**60))
        states = store.read(["nobody", "u1"], AFTER)
        assert states.user.tolist() == [0, 1]
        assert states.history_length.tolist() == [0, 1]
        assert states.history_ad[0].tolist() == [0, 0, 0]
        assert states.bucket_offsets.tolist() == [0, 0, 1]
        assert not states.degraded

    def test_a_user_after_the_vocabulary_is_remembered_by_id(self, store: FeatureStore) -> None:
        store.update(World().behave("new", "a2", TEST_START).tables(0, 2**60))
        states = store.read(["new"], AFTER)
        assert (states.user[0], states.history_length[0], states.history_ad[0, -1]) == (0, 1, 2)

    def test_profiles_are_updated(self, built: Built, store: FeatureStore) -> None:
        age = built.vocabulary.ids("profile:age")[0].as_py()
        times = {"event_time": TEST_START, "known_time": TEST_START}
        rows = [times | {"user_id": "u2", "age": age}, times | {"user_id": "u3", "age": "unheard"}]
        store.update({"users": table("users", rows)})
        store.update(World().behave("u2", "a1", TEST_START + 1).tables(0, 2**60))
        assert store.read(["u2", "u3"], AFTER).profile.tolist() == [[1], [0]]

    def test_old_buckets_and_old_behaviours_are_dropped(self, store: FeatureStore) -> None:
        world, days = World(), 70
        for day in range(days):
            for hour in (1, 1.5, 3):
                world = world.behave("u1", "a1", FIRST.start + day * DAY + int(hour * HOUR))
        for day in range(days):
            store.update(world.tables(FIRST.start + day * DAY, FIRST.start + (day + 1) * DAY))
        states = store.read(["u1"], FIRST.start + days * DAY)
        today = FIRST.start // DAY + days - 1
        assert states.bucket_day.tolist() == list(range(today - 56, today + 1))
        assert states.bucket_ad.tolist() == [1] * 57
        assert states.bucket_counts[:, 3].tolist() == [3] * 57
        (value,) = store.values.get(["user:u1"])
        assert value is not None
        assert len(value) == 20 + 4 + 12 * 20 + 57 * 24  # profile 1, 4 histories of 3, buckets

    def test_a_request_is_one_round_trip(self, store: FeatureStore, snapshot: Path) -> None:
        load_snapshot(store, snapshot)
        store.values = counting = Counting(store.values)
        for time in (AFTER, AFTER + 1, AFTER + HOUR):
            counting.gets = 0
            store.read(["u1"], time)
            store.ad_states(time)
            assert counting.gets == 1

    def test_item_counters_without_a_read(
        self, world: World, built: Built, store: FeatureStore, snapshot: Path
    ) -> None:
        load_snapshot(store, snapshot)
        counts = store.ad_states(AFTER).counts
        shown = [
            row for row in world.impressions if row["known_time"] >= AFTER // DAY * DAY - 56 * DAY
        ]
        assert item_counts(built, counts, "ad")[:, 0].sum() == len(shown)

    def test_ads_newer_than_the_plan_count_as_unknown(
        self, make: Make, built: Built, store: FeatureStore
    ) -> None:
        plan = built.engine.plan
        newer = Vocabulary(
            {kind: pa.concat_arrays([built.vocabulary.ids(kind), pa.array(["newest"])])
             for kind in built.vocabulary.kinds}
        )  # fmt: skip
        rows = World().show("u1", "a1", TEST_START, device="newest", placement="newest").impressions
        rows[0]["ad_id"] = "newest"
        attributes = np.vstack([plan.attributes, np.zeros((1, 5), np.int32)])
        sizes = {kind: size + 1 for kind, size in plan.sizes.items()}
        fresh = replace(plan, attributes=attributes, sizes=sizes)
        writer = make(fresh, newer, 3)
        writer.values = store.values
        writer.update({"impressions": table("impressions", rows)})
        states = store.read(["u1"], TEST_START + HOUR)
        assert states.bucket_ad.tolist() == [0]
        counts = store.ad_states(TEST_START + HOUR).counts
        for entity in ("ad", "category"):
            assert item_counts(built, counts, entity)[0].tolist() == [1, 0, 0, 0]

    def test_another_layout_is_refused_with_both_named(
        self, world: World, store: FeatureStore
    ) -> None:
        store.values.put({LAYOUT_KEY: b'{"layout": 0}'}, 0)
        for ask in (
            lambda: store.read(["u1"], AFTER),
            lambda: store.ad_states(AFTER),
            lambda: store.update(world.tables(FIRST.start, LAST.end)),
        ):
            with pytest.raises(ServiceError, match=r'layout \{"layout": 0\}.*\{"layout": 3'):
                ask()
        assert store.values.get(["impression:i0"]) == [None]

    def test_a_value_of_another_layout_is_refused(self, store: FeatureStore) -> None:
        store.values.put({"user:u1": np.array([9, 0, 0, 0, 0], "<i4").tobytes()}, 0)
        with pytest.raises(ServiceError, match="layout 9, this code reads 3"):
            store.read(["u1"], AFTER)

    def test_a_history_longer_than_what_is_kept_is_refused(self, make: Make, built: Built) -> None:
        with pytest.raises(ContractError, match="history of 13 behaviours: a store keeps 1 to 12"):
            make(built.engine.plan, built.vocabulary, 13)

    def test_a_snapshot_that_cannot_be_read_is_named(
        self, store: FeatureStore, tmp_path: Path
    ) -> None:
        with pytest.raises(ContractError, match=str(tmp_path / "snapshot.json")):
            load_snapshot(store, tmp_path)
        (tmp_path / "snapshot.json").write_text('{"layout": 7, "as_of": 1}')
        with pytest.raises(ContractError, match="layout 7, this code reads 3"):
            load_snapshot(store, tmp_path)
        (tmp_path / "snapshot.json").write_text('{"layout": 3, "as_of": 1}')
        with pytest.raises(ContractError, match=str(tmp_path / "impressions.parquet")):
            load_snapshot(store, tmp_path)
