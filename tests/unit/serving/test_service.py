"""What the app is made of."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow.catalogue.updates import UPDATES
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ArtefactError, PackageError, ParamsError, ServiceError
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import CATALOGUE, FeatureStore, MemoryValues, Value, Writes
from roiflow.ranking.recalibration import Recalibrations
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.serving.service import (
    RECALIBRATION_KEY,
    Breaker,
    OnlineSlates,
    Renewal,
    build_app,
    namespace,
    tell,
    told,
)
from roiflow.serving.slates import RequestContexts
from tests.unit.ranking.test_recalibration import ONE
from tests.unit.serving.packages import LIMITS, TinyWorld


@pytest.fixture
def limits(tmp_path: Path) -> Path:
    path = tmp_path / "limits.json"
    path.write_bytes(LIMITS.content)
    return path


class Failing:
    """Values that fail while told so, and count who asks."""

    def __init__(self) -> None:
        self.values, self.down, self.asked = MemoryValues(), False, 0

    def get(self, keys: Sequence[str]) -> list[Value]:
        self.asked += 1
        if self.down:
            raise ServiceError("gone")
        return self.values.get(keys)

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        self.values.put(pairs, seconds)

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        self.values.commit(key, expected, writes)


def test_a_failed_store_is_asked_again_only_after_a_while() -> None:
    now, beneath = [0.0], Failing()
    breaker = Breaker(beneath, seconds=2.0, clock=lambda: now[0])
    beneath.values.content["a"] = b"1"
    assert breaker.get(["a"]) == [b"1"]
    beneath.down = True
    for _ in range(5):
        with pytest.raises(ServiceError):
            breaker.get(["a"])
    assert beneath.asked == 2
    now[0], beneath.down = 2.0, False
    assert breaker.get(["a"]) == [b"1"]


def test_slates_without_the_store_are_degraded_and_keep_the_item_counters(
    recommender: Recommender, world: TinyWorld
) -> None:
    values, models = Failing(), recommender.models
    store = FeatureStore(models.plan, models.vocabulary, recommender.history, values)
    load_snapshot(store, world.features / "online")
    maker = OnlineSlates(recommender, store)
    user = world.built.vocabulary.ids("user").to_pylist()[0]
    time = np.array([world.built.as_of + 1_000])
    contexts = RequestContexts(["r1"], [user], time, ["home_top"], ["phone"])
    _, degraded = maker(contexts)
    assert not degraded
    before = store.ad_states(int(time[0])).counts
    values.down = True
    slates, degraded = maker(contexts)
    assert degraded
    assert (slates.row >= 0).all()
    np.testing.assert_array_equal(store.ad_states(int(time[0])).counts, before)


def test_without_the_store_what_has_a_budget_waits_from_the_next_hour_on(
    recommender: Recommender, world: TinyWorld
) -> None:
    """In the hour that it last read it knows what was spent; afterwards nobody does."""
    values, models = Failing(), recommender.models
    store = FeatureStore(models.plan, models.vocabulary, recommender.history, values)
    load_snapshot(store, world.features / "online")
    time = world.built.as_of + 1_000
    maker = OnlineSlates(recommender, store)

    def shown(moment: int) -> set[str]:
        times = np.full(60, moment)
        names = [f"r{number}" for number in range(60)]
        around = (["u00"] * 60, times, ["home_top"] * 60, ["phone"] * 60)
        slates, _ = maker(RequestContexts(names, *around))
        return set(slates.ad_ids.ravel())

    limited = min(shown(time))
    rows = [
        {"change": "budget", "event_id": "b", "ad_id": limited, "daily_budget_micros": 10**12}
        | {"event_time": time, "known_time": time}
    ]
    store.update({CATALOGUE: pa.Table.from_pylist(rows, schema=UPDATES)})
    assert limited in shown(time)
    values.down = True
    assert limited in shown(time + 1)
    later = shown(time + MICROS_PER_HOUR)
    assert limited not in later
    assert len(later) >= 3


def test_a_service_says_why_it_has_nothing_to_show(
    recommender: Recommender, world: TinyWorld
) -> None:
    models, time = recommender.models, world.built.as_of
    store = FeatureStore(models.plan, models.vocabulary, recommender.history, MemoryValues())
    maker = OnlineSlates(recommender, store)
    with pytest.raises(ServiceError, match="the catalogue is empty"):
        maker.check(time)
    load_snapshot(store, world.features / "online")
    maker.check(time)
    ends = [
        {"change": "end", "event_id": f"e{name}", "ad_id": name}
        | {"event_time": time, "known_time": time}
        for name in store.catalogue().ad_id.to_pylist()
    ]
    store.update({CATALOGUE: pa.Table.from_pylist(ends, schema=UPDATES)})
    with pytest.raises(ServiceError, match=r"no ad may be shown: all \d+ have ended"):
        maker.check(time)


def test_packages_have_keys_of_their_own() -> None:
    assert namespace("a" * 64) != namespace("b" * 64)


def test_without_limits_of_the_door_there_is_no_app(package: Package, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="ROIFLOW_LIMITS"):
        build_app(package.folder, None, "redis://127.0.0.1:1/0", tmp_path)
    with pytest.raises(ParamsError, match=r"none\.json: No such file"):
        build_app(package.folder, tmp_path / "none.json", "redis://127.0.0.1:1/0", tmp_path)


def test_without_an_address_of_redis_there_is_no_app(
    package: Package, limits: Path, tmp_path: Path
) -> None:
    with pytest.raises(ServiceError, match="ROIFLOW_REDIS_URL"):
        build_app(package.folder, limits, None, tmp_path)


def test_without_a_package_there_is_no_app(limits: Path, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"manifest\.json"):
        build_app(tmp_path, limits, "redis://127.0.0.1:1/0", tmp_path / "served")


def test_a_service_takes_up_what_is_put_beside_its_package(
    package: Package, world: TinyWorld
) -> None:
    recommender, now = Recommender(Package.load(package.folder)), [0.0]
    models, beneath = recommender.models, Failing()
    store = FeatureStore(models.plan, models.vocabulary, recommender.history, beneath)
    load_snapshot(store, world.features / "online")
    maker = OnlineSlates(recommender, store, Renewal(models, beneath, 1.0, lambda: now[0]))
    user = world.built.vocabulary.ids("user").to_pylist()[0]
    time = np.array([world.built.as_of + 1_000])
    contexts = RequestContexts(["r1"], [user], time, ["home_top"], ["phone"])
    before, _ = maker(contexts)
    assert before.recalibration.tolist() == [None]
    one = replace(ONE, package=package.digest)
    tell(beneath, Recalibrations((one,)))
    again, _ = maker(contexts)  # within a second of the last look
    assert again.recalibration.tolist() == [None]
    now[0] = 1.0
    after, _ = maker(contexts)
    assert after.recalibration.tolist() == [one.digest]
    assert (after.click != before.click).all()
    # What is broken, of another package or not to be read changes nothing.
    for content in (b"{", b"{}", b"[1]", json.dumps([ONE.content()]).encode()):
        beneath.put({RECALIBRATION_KEY: content}, 0)
        now[0] += 1.0
        maker(contexts)
        assert models.recalibrations.each == (one,)
        with pytest.raises(ArtefactError, match="recalibration: "):
            told(content, package.digest)
    now[0], beneath.down = now[0] + 1.0, True
    assert maker(contexts)[1]
    assert models.recalibrations.each == (one,)
