"""A greedy ranker on the log of a week: with the world's own probabilities it is the oracle."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.candidates.selector import RevenueModel
from roiflow.data.split import TEST
from roiflow.errors import ContractError
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.features.table import Features, Longs, Requests
from roiflow.loop.ranker_chooser import KnownWeek, RankerChooser
from roiflow.policy.candidate_sets import first_rows
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.value import CostShares
from roiflow.simulator.policies import Oracle, random_policy
from roiflow.simulator.truth import expected_value_of
from tests.unit.serving.packages import TinyWorld, tiny_world

PAID_PER_CLICK = CostShares(0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Knows:
    """Predicts the world's own probabilities, times `sign`."""

    known: KnownWeek
    sign: float = 1.0
    name: str = "knows"

    def score(self, features: Features, requests: Requests) -> Predictions:
        """The truth of each candidate."""
        del features
        world, week = self.known.world, self.known.week
        every = world.requests(week)
        order = np.argsort(every.number)
        rows = order[np.searchsorted(every.number[order], requests.request)]
        columns = np.broadcast_to(self.known.world_rows(), requests.ad.shape)
        look = world.respond(every.take(rows), np.ascontiguousarray(columns))
        click = (self.sign * look.click).astype(np.float32)
        conversion = (self.sign * look.click * look.conversion).astype(np.float32)
        return Predictions(click, conversion, look.revenue.astype(np.float32))

    def predict(
        self, features: Features, rows: Longs, *, logged_position: bool = False
    ) -> Predictions:
        """Not asked for."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Not asked for."""
        raise NotImplementedError


def known_week(world: TinyWorld) -> KnownWeek:
    vocabulary = world.built.vocabulary
    folder = world.features
    return KnownWeek(world.source.world, read(folder), open_engine(folder), vocabulary)


@pytest.fixture(scope="module")
def known(world: TinyWorld) -> KnownWeek:
    return known_week(world)


def test_perfect_predictions_reach_the_oracle(known: KnownWeek) -> None:
    oracle, _ = expected_value_of(known.world, known.week, Oracle(known.world))
    chooser = RankerChooser(Knows(known), known, PAID_PER_CLICK)
    found, error = expected_value_of(known.world, known.week, chooser)
    assert found == pytest.approx(oracle, rel=1e-6)
    assert np.isnan(error["value"])


def test_perfect_predictions_reach_the_oracle_where_budgets_bind(tmp_path: Path) -> None:
    tight = known_week(tiny_world(tmp_path, budgets=True, budget_share=1.0, new_ads_per_week=0))
    world, week = tight.world, tight.week
    oracle, _ = expected_value_of(world, week, Oracle(world))
    free, _ = expected_value_of(world, week, RankerChooser(Knows(tight), tight, PAID_PER_CLICK))
    assert free == pytest.approx(oracle, rel=1e-6)


def test_upside_down_predictions_are_worse_than_chance(known: KnownWeek) -> None:
    upside_down = RankerChooser(Knows(known, -1.0), known, PAID_PER_CLICK)
    worst, _ = expected_value_of(known.world, known.week, upside_down)
    chance, _ = expected_value_of(known.world, known.week, random_policy(known.world))
    assert worst["value"] < chance["value"]


def test_a_heavier_cost_buys_less(known: KnownWeek) -> None:
    costs = [
        expected_value_of(
            known.world,
            known.week,
            RankerChooser(Knows(known), known, PAID_PER_CLICK, cost_weight=weight),
        )[0]["cost"]
        for weight in (0.0, 1.0, 5.0)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > costs[2]


def test_revenue_by_price_stands_in_for_the_predicted_one(known: KnownWeek) -> None:
    requests = known.requests(known.world.requests(known.week).take(slice(0, 3)))
    shares, model = CostShares(0.0, 0.5, 0.0), RevenueModel(0.5, 0.0)
    predicted = Knows(known).score(known.features, requests)
    values = RankerChooser(Knows(known), known, shares, revenue=model).values(requests)
    expected = predicted.conversion * 0.5 * requests.price - 0.5 * predicted.click * requests.bid
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_logged_requests_have_the_features_that_the_log_has(known: KnownWeek) -> None:
    """The same request, asked of the world and found in the log, to the bit."""
    features, log = known.features, known.features.impressions
    rows = first_rows(features, features.rows(TEST))[:40]
    logged = known.engine.requests(features, rows, features.catalogues[-1])
    every = known.world.requests(known.week)
    user = known.vocabulary.lookup("user")
    place = {
        (time, user[name]): at
        for at, (time, name) in enumerate(
            zip(
                every.event_time.tolist(),
                known.world.user_ids[every.user_index].tolist(),
                strict=True,
            )
        )
        if name in user
    }
    pairs = zip(log.event_time[rows].tolist(), log.user[rows].tolist(), strict=True)
    asked = known.requests(every.take(np.array([place[pair] for pair in pairs])))
    for field in fields(Requests):
        if field.name != "request":
            np.testing.assert_array_equal(
                getattr(asked, field.name), getattr(logged, field.name), field.name
            )


def test_only_eligible_ads_are_shown(known: KnownWeek) -> None:
    world = known.world
    chooser = RankerChooser(Knows(known), known, PAID_PER_CLICK)
    requests, rng = world.requests(known.week).take(slice(0, 50)), np.random.default_rng(0)
    eligible = np.zeros(world.ads(known.week).ids.size, bool)
    eligible[[1, 4, 5, 9]] = True
    slates, propensity = chooser.choose(requests, eligible, rng)
    assert set(np.unique(slates)) <= {1, 4, 5, 9}
    assert (propensity == 1).all()
    none, _ = chooser.choose(requests.take(slice(0, 0)), eligible, rng)
    assert none.shape == (0, world.slate_size)
    eligible[[1, 9]] = False
    with pytest.raises(ContractError, match="knows: 2 ads can be shown, fewer than 3 slots"):
        chooser.choose(requests, eligible, rng)


def test_an_ad_without_a_name_of_its_own_is_not_shown(known: KnownWeek) -> None:
    catalogue = known.features.catalogues[-1]
    ad = catalogue.ad.copy()
    ad[0] = 0
    features = replace(known.features, catalogues=(replace(catalogue, ad=ad),))
    rows = replace(known, features=features).world_rows()
    assert rows[0] == -1
    np.testing.assert_array_equal(rows[1:], known.world_rows()[1:])


def test_features_are_counted_as_the_models_expect(known: KnownWeek) -> None:
    plan = replace(known.engine.plan, prior_strength=1.0, ctr=0.5)
    counted = known.counted_as(plan)
    assert counted.engine.plan.prior_strength == 1.0
    assert counted.engine.plan.ctr == 0.5
    assert counted.engine.plan.sizes == known.engine.plan.sizes
    some = known.world.requests(known.week).take(slice(0, 5))
    assert (counted.requests(some).dense != known.requests(some).dense).any()
