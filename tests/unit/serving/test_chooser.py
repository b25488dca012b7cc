"""A simulated week that the package itself serves."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from roiflow.data import served_features
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError
from roiflow.evaluation.replay import replay
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.jobs.simulate_week import simulate
from roiflow.online import given as parity
from roiflow.online.snapshot import load_snapshot
from roiflow.policy.candidate_sets import columns_of
from roiflow.policy.plackett_luce import conditional_propensities
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models, Recommender
from roiflow.simulator.source import SimulatorSource
from tests.unit.evaluation.weeks import whole
from tests.unit.serving.packages import SLATE, TinyWorld, rebuilt

WEEK = Week.parse("2026-W03")


def test_the_week_is_served_logged_and_repeatable(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    online, source = world.features / "online", SimulatorSource(world.params, tmp_path)
    count = simulate(package.folder, online, source, WEEK)
    first = source.pull(WEEK, WEEK.end)["impressions"]
    assert count == first.num_rows > 100
    served = first.filter(pc.equal(first["policy_version"], package.digest[:12]))
    assert served.num_rows > 0.9 * first.num_rows  # the rest is last week's late hour
    assert set(served["slate_size"].to_pylist()) == {SLATE}
    propensity = np.asarray(served["propensity"])
    assert ((propensity > 0) & (propensity <= 1)).all()
    kept = served_features.path_of(tmp_path, "simulator", WEEK)
    before = kept.read_bytes()
    simulate(package.folder, online, source, WEEK)
    assert kept.read_bytes() == before
    again = SimulatorSource(world.params, tmp_path).pull(WEEK, WEEK.end)["impressions"]
    assert again.equals(first)


def test_what_the_slates_were_made_from_is_kept(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    source = SimulatorSource(world.params, tmp_path)
    simulate(package.folder, world.features / "online", source, WEEK)
    slates = served_features.read(tmp_path, "simulator", WEEK)
    assert slates is not None
    shown = source.pull(WEEK, WEEK.end)["impressions"].to_pylist()
    first = {row["request_id"]: row for row in shown if row["position"] == 1}
    ads: dict[str, list[str]] = {}
    for row in sorted(shown, key=lambda row: row["position"]):
        ads.setdefault(row["request_id"], []).append(row["ad_id"])
    rows = [row for row in slates.to_pylist() if row["request_id"] in first]  # known in the week
    assert len(rows) > 100
    for row in rows:
        assert row["ads"] == ads[row["request_id"]]
        for name in ("user_id", "event_time", "placement", "device", "policy_version"):
            assert row[name] == first[row["request_id"]][name]
        assert row["as_of"] < row["event_time"].timestamp() * 1e6
    whole = [row for row in rows if row["vector"] is not None]
    assert 0.3 < len(whole) / len(rows) < 0.7
    for row in whole:
        vector = np.frombuffer(row["vector"], np.uint8)[None]
        assert parity.hashes(vector) == [row["features"]]
    assert served_features.read(tmp_path, "simulator", WEEK.plus(1)) is None


def test_slates_are_those_of_the_offline_engine(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    """The week's logged propensities are what replay finds from the next week's features."""

    source = SimulatorSource(world.params, tmp_path / "lake")
    simulate(package.folder, world.features / "online", source, WEEK)
    folder = rebuilt(tmp_path, world, tmp_path / "lake", ("2026-W01", "2026-W02", "2026-W03"))
    features, models = read(folder), Models(Package.load(package.folder))
    log = features.impressions
    late = np.flatnonzero((log.event_time >= WEEK.start) & (log.position == 1))
    late = late[log.user[late] > 0]
    sets, logits = whole(replay(models, features, open_engine(folder), late))
    shown = np.stack([log.ad[late + at] for at in range(SLATE)], axis=1)
    logged = np.stack([log.propensity[late + at] for at in range(SLATE)], axis=1)
    found = conditional_propensities(logits, columns_of(sets.ad, shown))
    assert late.size > 100
    np.testing.assert_allclose(found, logged, rtol=2e-4)


def test_an_ad_without_money_waits_for_the_next_day(
    world: TinyWorld, package: Package, tmp_path: Path
) -> None:
    """The same package in a world of budgets that a few clicks use up."""
    auction = world.params.auction.model_copy(update={"budgets": True, "budget_share": 1.5})
    poor = world.params.model_copy(update={"auction": auction})
    source = SimulatorSource(poor, tmp_path)
    simulate(package.folder, world.features / "online", source, WEEK)
    shown = source.pull(WEEK, WEEK.end)["impressions"]
    ads, pacer = source.world.ads(WEEK), source.world.pacer(WEEK)
    row = source.world.ad_rows(WEEK, np.asarray(shown["ad_id"].to_pylist()))
    time = shown["event_time"].cast("int64").to_numpy()
    cost = shown["cost_micros"].to_numpy()
    blocked = 0
    for start in range(WEEK.start, WEEK.end, MICROS_PER_HOUR):
        eligible = pacer.eligible(start)
        blocked += int((~eligible).sum())
        now = (start <= time) & (time < start + MICROS_PER_HOUR)
        assert eligible[row[now]].all()
        pacer.record(row[now], cost[now])
    assert np.count_nonzero(ads.budget) == ads.budget.size - SLATE
    assert blocked > 100


def test_a_package_whose_ads_have_ended_is_named(world: TinyWorld, package: Package) -> None:
    recommender = Recommender(Package.load(package.folder))
    source = SimulatorSource(world.params, Path("/nonexistent"))
    store = recommender.memory_store()
    load_snapshot(store, world.features / "online")
    chooser = ServedChooser(recommender, store, source.world)
    eligible = np.zeros(source.world.ads(WEEK).ids.size, bool)
    eligible[:2] = True
    with pytest.raises(ContractError, match=r"only 2 ads of the catalogue .* fewer than 3 slots"):
        chooser.choose(source.world.requests(WEEK), eligible, np.random.default_rng(0))
