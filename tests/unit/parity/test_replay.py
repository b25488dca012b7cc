"""A store that is filled batch by batch at odd times, replayed from the weeks it ended up with."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.served_features import SERVED
from roiflow.features.plan import context
from roiflow.features.rows import Window
from roiflow.features.spec import ITEM_ENTITIES, NAMES, SPECS
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import build
from roiflow.online import given as parity
from roiflow.online import store as online
from roiflow.online.given import Inputs, Shape
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import MemoryStore
from roiflow.parity.findings import by_feature, corrupt, sampled, unequal
from roiflow.parity.replay import (
    Content,
    Replayed,
    Setting,
    Slates,
    join_weeks,
    replay,
    with_later_users,
)
from tests.feature_world import ADS, HOUR, LAST, PARAMS, WEEKS, World, random_world

SHOWN = ("a1", "a3")
SHAPE = Shape(1, 3, 2, NAMES)


def replayed(folder: Path, world: World, batches: int, seed: int) -> Replayed:
    """Requests of every user after each of some batches of the last week, in its own time."""
    rng = np.random.default_rng(seed)
    whole, before = world.write(folder / "whole"), known_then(world).write(folder / "before")
    for name in SCHEMAS:
        shutil.rmtree(before / name / f"week={LAST}")
    built = build(Window(before), Vocabulary({}), PARAMS, folder / "features")
    plan, vocabulary = built.engine.plan, built.vocabulary
    store = MemoryStore(plan, vocabulary, SHAPE.history)
    load_snapshot(store, folder / "features" / "online")
    store.update(overtaking(world))
    stamps = np.sort(rng.integers(LAST.start, LAST.end, batches)).tolist()
    rows: list[dict[str, object]] = []
    since = LAST.start
    for stamp, following in zip(stamps, [*stamps[1:], LAST.end], strict=True):
        store.update(world.tables(since, stamp + 1), stamp)
        since = stamp + 1
        for user in (*world.users, "newcomer"):
            if following > stamp + 1:
                rows.append(
                    request(store, user, int(rng.integers(stamp + 1, following)), len(rows))
                )
    served = pa.Table.from_pylist(rows, SERVED)
    price = np.zeros(plan.sizes["ad"], np.int64)
    bid = price.copy()
    for name, (_, _, _, cost, offer) in ADS.items():
        row = vocabulary.lookup("ad")[name]
        price[row], bid[row] = cost, offer
    window = Window(whole)
    later = [window.all(name, ["user_id"])["user_id"] for name in ("impressions", "behaviours")]
    setting = Setting(
        plan=plan,
        shape=SHAPE,
        vocabulary=with_later_users(vocabulary, [served["user_id"], *later]),
        known_users=vocabulary.size("user"),
        attributes=plan.attributes,
        profile=np.asarray(built.features.profile),
        start=LAST.start,
        learnt=plan,
        catalogue_known=np.array([-1]),
        price=price[None],
        bid=bid[None],
    )
    content = Content.read(whole, setting.vocabulary)
    return replay(setting, content, Slates.of(served, setting))


def known_then(world: World) -> World:
    """Without the clicks that become known in the last week."""
    rows = [
        row | {"clicked": False, "click_known_time": None}
        if (row["click_known_time"] or 0) >= LAST.start
        else row
        for row in world.impressions
    ]
    return replace(world, impressions=rows)


def overtaking(world: World) -> dict[str, pa.Table]:
    """Clicks and conversions from before the last week, of impressions that are known in it."""
    tables = world.tables(0, LAST.start)
    later = [row["impression_id"] for row in world.impressions if row["known_time"] >= LAST.start]
    return {
        name: tables[name].filter(
            pc.is_in(tables[name]["impression_id"], pa.array(later, pa.string()))
        )
        for name in ("clicks", "conversions")
    }


def request(store: MemoryStore, user: str, time: int, number: int) -> dict[str, object]:
    """What serving logs of a slate of two ads, all of them whole."""
    users, at = store.read([user], time), np.array([time])
    items, plan = store.ad_states(time), store.plan
    index = {kind: store.vocabulary.lookup(kind) for kind in ("ad", "placement", "device")}
    ad = np.array([[index["ad"][name] for name in SHOWN]], np.int32)
    around = context(
        np.array([index["placement"]["feed"]], np.int32),
        np.array([index["device"]["phone"]], np.int32),
        at,
    )
    price, bid = (np.array([[ADS[name][column] for name in SHOWN]]) for column in (3, 4))
    dense = online.dense(
        plan, users, items, event_time=at, placement=around[:, 0], ad=ad, price=price, bid=bid
    )
    inputs = Inputs(
        users.user,
        users.profile,
        users.history_ad,
        users.history_category,
        users.history_action,
        users.history_time,
        around,
        dense,
    )
    vector = parity.pack(inputs)
    return {
        "request_id": f"s{number}",
        "user_id": user,
        "event_time": pa.scalar(time, pa.int64()).cast(TIME).as_py(),
        "placement": "feed",
        "device": "phone",
        "policy_version": "v",
        "ads": list(SHOWN),
        "as_of": users.as_of,
        "features": parity.hashes(vector)[0],
        "vector": vector[0].tobytes(),
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_store_gave_is_computed_again(tmp_path: Path, seed: int) -> None:
    """Whole where the item side was final, else on the user side; training sees more than that."""
    world = random_world(seed, requests=120, behaviours=150)
    found = replayed(tmp_path, world, 60, seed)
    slates = found.slates
    assert slates.user.size == 4 * 60
    assert found.same[found.final].all()
    assert 0.3 < found.final.mean() < 1
    assert not found.same[~found.final].all()
    times = found.content.known_times
    late = [
        bool(((times > as_of) & (times < time // HOUR * HOUR)).any())
        for as_of, time in zip(slates.as_of.tolist(), slates.event_time.tolist(), strict=True)
    ]
    assert (found.final == ~np.array(late)).all()
    different = sampled(found)
    assert different.rows.size == np.count_nonzero(~found.same)
    assert not unequal(different).any()
    assert by_feature(different, found.setting) == []
    assert corrupt(found).size == 0
    assert 0.05 < found.stale.mean() < 0.95


def test_what_differs_is_named_with_its_slate_and_its_ad(tmp_path: Path) -> None:
    """An impression that the store never heard of: its own counters differ, and no others."""
    world = random_world(3, requests=60, behaviours=60)
    lost = world.show("u2", "a3", LAST.start + 5 * HOUR, position=7)
    found = replayed(tmp_path, world, 20, 3)
    whole = lost.write(tmp_path / "lost")
    content = Content.read(whole, found.setting.vocabulary)
    again = replay(found.setting, content, found.slates)
    findings = by_feature(sampled(again), found.setting)
    names = {one.feature for one in findings}
    before = np.flatnonzero(again.slates.event_time < LAST.start + 5 * HOUR)
    assert again.same[before[again.final[before]]].all()
    assert "user_ctr_56d" in names
    assert "ad_ctr_56d" in names
    assert not names & {"user_behaviours_56d", "log_bid", "hour", "history_ad", "user"}
    items = {spec.name for spec in SPECS if spec.entity in ITEM_ENTITIES}
    user = next(one for one in findings if one.feature == "user_ctr_56d")
    (of,) = {again.slates.user[again.slates.request == one.request_id][0] for one in user.examples}
    assert of == found.setting.vocabulary.lookup("user")["u2"]
    for one in findings:
        if one.feature in {"ad_ctr_56d"} & items:
            assert {example.ad_id for example in one.examples} == {"a3"}


def test_a_vector_that_was_changed_is_found(tmp_path: Path) -> None:
    found = replayed(tmp_path, random_world(4), 5, 4)
    changed = bytearray(found.slates.vector[2])
    changed[5] ^= 1
    found.slates.vector[2] = bytes(changed)
    assert corrupt(found).tolist() == [2]


def test_weeks_of_two_folders_are_one(tmp_path: Path) -> None:
    one, other = (random_world(seed).write(tmp_path / str(seed)) for seed in (0, 1))
    join_weeks(tmp_path / "both", {WEEKS[0]: one, WEEKS[1]: other})
    window = Window(tmp_path / "both")
    assert window.weeks == WEEKS[:2]
    for week, folder in zip(window.weeks, (one, other), strict=True):
        assert window.read("impressions", week) == Window(folder).read("impressions", week)
