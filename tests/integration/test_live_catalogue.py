"""Twelve weeks in which a tenth of the catalogue is replaced every week, and budgets run out.

A package a week, trained on the four weeks before it, which the logging policy served, so that what
is compared differs in the catalogue alone. Its ranker and pre-selection are logistic regressions of
the dense features: an ad that they have not met is scored from what its category, campaign and
advertiser have, until it has a history of its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from scipy.optimize import minimize

from roiflow import columns as c
from roiflow.catalogue.updates import UPDATES
from roiflow.data.schemas import TIME
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.features.folder import read
from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.online.snapshot import load_snapshot
from roiflow.ranking import serving_form
from roiflow.ranking.value import CostShares
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from roiflow.simulator.policies import Oracle, random_policy
from roiflow.simulator.population import HOUR_SHARES, WorldRequests
from roiflow.simulator.run import run_week
from roiflow.simulator.tables import WorldTables
from roiflow.simulator.truth import expected_value_of, truth
from roiflow.simulator.world import World
from tests.conftest import Record
from tests.unit.serving.packages import TinyWorld, scorer_of, tiny_world, write_package

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

FIRST = Week.parse("2026-W01")
WINDOW = 4
ADS = 60
WORLD: dict[str, object] = {
    "ads": ADS,
    "categories": 12,
    "new_ads_per_week": ADS // 10,
    "ad_weeks": 10.0,
    "budgets": True,
    "requests_per_user_day": 1.2,
    "click_rate": 0.035,
    "conversion_rate": 0.12,
    "return_rate": 0.05,
    "fatigue": 0.1,
    "newcomers": 0.01,
    "churn": 0.005,
    "seed": 7,
}


class AtOnce(ServedChooser):
    """Is told all changes of a week at its start."""

    def changes(self, ads: pa.Table) -> pa.Table:
        if not ads.num_rows or self.known_at(ads) != (week := Week.of(self.known_at(ads))).start:
            return UPDATES.empty_table()
        every = WorldTables(self._world, week).ads()
        column = every.column_names.index(c.KNOWN_TIME)
        told = pa.array(np.full(every.num_rows, week.start)).cast(TIME)
        return super().changes(every.set_column(column, every.schema.field(column), told))

    def known_at(self, ads: pa.Table) -> int:
        """When they became known."""
        return int(ads[c.KNOWN_TIME].cast(pa.int64())[0].as_py())


class Frozen(ServedChooser):
    """Shows what its package's window had: new ads wait for the next package."""

    def changes(self, ads: pa.Table) -> pa.Table:
        return UPDATES.empty_table()


KINDS: dict[str, type[ServedChooser]] = {"live": ServedChooser, "at once": AtOnce, "frozen": Frozen}


class WithoutNew(Oracle):
    """The oracle of the ads that there were before the week."""

    def __init__(self, world: World, week: Week) -> None:
        super().__init__(world)
        self.policy_version = "without new"
        self._old = world.ads(week).first < week.start

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """See Oracle."""
        return super().choose(requests, eligible & self._old, rng)


@dataclass(frozen=True)
class Served:
    """One week, and one kind of catalogue."""

    value: float
    slates: int
    barred: int
    """Ads shown that had ended, not come yet or spent what they may by the hour."""
    new: int
    first: Floats
    """Hours from an ad's start to its first impression, of those shown in the week that they came
    in."""


@dataclass(frozen=True)
class Lived:
    """One week by every kind of catalogue, and what bounds them."""

    kinds: dict[str, Served]
    bounds: dict[str, float]
    """Values of policies that know the world."""


def test_a_live_catalogue_loses_little_against_one_known_at_once(
    full: bool, record: Record, tmp_path: Path
) -> None:
    """And who has ended or spent his budget is never shown."""
    weeks, users = (12, 1000) if full else (2, 300)
    judge([lived(tmp_path / str(number), number, users) for number in range(weeks)], record)


def lived(folder: Path, number: int, users: int) -> Lived:
    """The week so many after the first that there is a package for."""
    week = FIRST.plus(WINDOW + number)
    window = tuple(str(one) for one in week.plus(-1).window(WINDOW))
    world = tiny_world(folder, window, **(WORLD | {"users": users}))
    package = trained(folder / "package", world)
    ad_world = world.source.world
    policies = Oracle(ad_world), WithoutNew(ad_world, week), random_policy(ad_world)
    return Lived(
        {name: serve(world, package, week, kind) for name, kind in KINDS.items()},
        {
            one.policy_version: expected_value_of(ad_world, week, one)[0]["value"]
            for one in policies
        },
    )


def judge(weeks: list[Lived], record: Record) -> None:
    """Figures of all weeks, and what must be true of them."""
    served = {name: [one.kinds[name] for one in weeks] for name in KINDS}
    value = {name: sum(one.value for one in some) for name, some in served.items()}
    bound = {name: sum(one.bounds[name] for one in weeks) for name in weeks[0].bounds}
    slates = sum(one.slates for one in served["live"])
    barred = sum(one.barred for some in served.values() for one in some)
    first = np.concatenate([one.first for one in served["live"]])
    new = sum(one.new for one in served["live"])
    way = {
        name: (one - bound["random"]) / (bound["oracle"] - bound["random"])
        for name, one in value.items()
    }
    lost = 1 - value["live"] / value["at once"]
    gained = value["live"] / value["frozen"] - 1
    stake = 1 - bound["without new"] / bound["oracle"]
    what = f"{len(weeks)} weeks, a tenth of {ADS} ads replaced in each, budgets on"
    for name, figure in (
        (
            "ads ended, not come yet or exhausted",
            f"{barred} in {slates:,} slates of a live catalogue and as many of each other one",
        ),
        ("value lost by a live catalogue against one known at once", f"{lost:.2%}"),
        ("value won by a live catalogue over a frozen one", f"{gained:+.2%}"),
        ("value that the oracle loses without the new ads of a week in it", f"{stake:.2%}"),
        (
            "way to the oracle, live, at once and frozen",
            ", ".join(f"{one:.1%}" for one in way.values()),
        ),
        (
            "new ads shown in the week that they came in",
            f"{first.size} of {new}, a median of {np.median(first):.1f} hours after they came",
        ),
    ):
        record(f"{what}: {name}", figure)
    assert barred == 0
    assert not any(one.first.size for one in served["frozen"])
    assert abs(lost) < 0.02
    assert gained > -0.05
    assert first.size > 0.5 * new
    assert slates >= 100_000 or len(weeks) < 12


def serve(world: TinyWorld, package: Package, week: Week, kind: type[ServedChooser]) -> Served:
    """The week after a package's window, from its snapshot."""
    recommender = Recommender(package)
    store = recommender.memory_store()
    load_snapshot(store, world.features / "online")
    ad_world = world.source.world
    run = run_week(ad_world, week, kind(recommender, store, ad_world), world.source.carried(week))
    rows = pa.concat_tables([part["impressions"] for part in (run.tables, run.pending)])
    time = rows[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    rows = rows.filter(pa.array((time >= week.start) & (time < week.end)))
    ads = ad_world.ads(week)
    row = ad_world.ad_rows(week, np.array(rows[c.AD].to_pylist()))
    time = rows[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    new = np.flatnonzero((ads.first > week.start) & (ads.first < week.end))
    shown = [time[row == ad].min() - ads.first[ad] for ad in new if (row == ad).any()]
    return Served(
        truth(ad_world, rows)["value"],
        rows.num_rows // ad_world.slate_size,
        int(np.count_nonzero(barred(ad_world, week, row, time, rows[c.COST].to_numpy()))),
        new.size,
        np.array(shown, np.float64) / MICROS_PER_HOUR,
    )


def barred(world: World, week: Week, row: Ints, time: Longs, cost: Longs) -> Flags:
    """Impressions (n,) that should not have been, counted anew: no code is shared with eligibility.

    A day's spend of an ad up to the hour's start against its budget's share of the day's traffic.
    """
    ads = world.ads(week)
    out = (time < ads.first[row]) | (time >= ads.last[row])
    shares = np.cumsum(HOUR_SHARES)
    for hour in range(168):
        start = week.start + hour * MICROS_PER_HOUR
        today = (time >= start // MICROS_PER_DAY * MICROS_PER_DAY) & (time < start)
        spent = np.bincount(row[today], weights=cost[today], minlength=ads.budget.size)
        limit = ads.budget * shares[hour % 24]
        # A microcurrency unit apart, rounding of the shares decides.
        poor = (ads.budget > 0) & (spent >= limit + 1)
        now = (time >= start) & (time < start + MICROS_PER_HOUR)
        out |= now & poor[row]
    return out


def trained(folder: Path, world: TinyWorld) -> Package:
    """A package whose scorer is two logistic regressions, of clicks and of conversions of clicks.

    Revenue is what remains of the price after returns.
    """
    features = read(world.features).as_of_end()
    weight, constant = fitted(features)
    price = features.dense_names.index("log_price")
    return write_package(
        folder,
        world,
        temperature=0.35,
        scores=scorer_of(
            len(features.profile_names),
            len(features.dense_names),
            *logistic(weight, constant, price, kept=0.95),
        ),
        top_k=40,
        shares=CostShares(0.0, 1.0, 0.0),
    )


def fitted(features: Features) -> tuple[Floats, Floats]:
    """Weights (F, 2) and constants (2,) of the log odds of a click and of a clicked conversion."""
    log = features.impressions
    dense = np.asarray(log.dense, np.float64)
    mean, std = dense.mean(axis=0), np.maximum(dense.std(axis=0), 1e-3)
    x = np.column_stack([(dense - mean) / std, np.log(log.position), np.ones(len(dense))])
    clicked = np.asarray(log.clicked)
    found = [
        regression(x, clicked, 10.0),
        regression(x[clicked], np.asarray(log.converted)[clicked], 30.0),
    ]
    # At the first position, whose logarithm is 0.
    weight = np.column_stack([one[:-2] / std for one in found])
    constant = np.array([one[-1] for one in found]) - mean @ weight
    return weight, constant


def regression(x: Floats, y: Flags, l2: float) -> Floats:
    """Coefficients of a logistic regression; the last is its constant, which is not drawn to 0."""
    drawn = np.full(x.shape[1], l2)
    drawn[-1] = 0.0

    def loss(b: Floats) -> tuple[float, Floats]:
        z = x @ b
        p = 1 / (1 + np.exp(-z))
        return (
            float(np.sum(np.logaddexp(0, z) - y * z) + drawn @ b**2 / 2),
            x.T @ (p - y) + drawn * b,
        )

    b: Floats = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x
    return b


def logistic(
    weight: Floats, constant: Floats, price: int, kept: float
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes from `dense` (B, K, F) to predictions (B, K, 3), and their constants."""
    real, long = TensorProto.FLOAT, TensorProto.INT64
    nodes = []
    for name in ("clicks", "sales"):
        nodes += [
            helper.make_node("MatMul", ["dense", f"{name}_weight"], [f"{name}_sum"]),
            helper.make_node("Add", [f"{name}_sum", f"{name}_constant"], [f"{name}_z"]),
            helper.make_node("Sigmoid", [f"{name}_z"], [name]),
        ]
    nodes += [
        helper.make_node("Mul", ["clicks", "sales"], ["conversions"]),
        helper.make_node("Gather", ["dense", "price"], ["log_price"], axis=2),
        helper.make_node("Exp", ["log_price"], ["price_and_one"]),
        helper.make_node("Sub", ["price_and_one", "one"], ["paid"]),
        helper.make_node("Mul", ["paid", "kept"], ["revenue"]),
        helper.make_node(
            "Concat", ["clicks", "conversions", "revenue"], [serving_form.SCORER_OUTPUT], axis=2
        ),
    ]
    constants = [
        helper.make_tensor("one", real, [], [1.0]),
        helper.make_tensor("kept", real, [], [kept]),
        helper.make_tensor("price", long, [1], [price]),
    ]
    for number, name in enumerate(("clicks", "sales")):
        column = weight[:, number].tolist()
        constants += [
            helper.make_tensor(f"{name}_weight", real, [len(column), 1], column),
            helper.make_tensor(f"{name}_constant", real, [], [float(constant[number])]),
        ]
    return nodes, constants
