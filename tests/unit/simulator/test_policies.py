from itertools import pairwise, permutations

import numpy as np
import pytest

from roiflow.data.weeks import Week
from roiflow.simulator.noise import Stream
from roiflow.simulator.policies import (
    Oracle,
    PlackettLuce,
    conditional_propensities,
    logging_policy,
    random_policy,
)
from roiflow.simulator.truth import expected_value_of, slate_truth
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")
RNG = np.random.default_rng(0)


def test_conditional_propensities_by_hand() -> None:
    logits = np.log([1.0, 2.0, 3.0])
    slates = np.array([[0, 2], [2, 1]], dtype=np.int32)
    expected = [[1 / 6, 3 / 5], [3 / 6, 2 / 3]]
    np.testing.assert_allclose(conditional_propensities(logits, slates), expected)


def test_slates_are_drawn_with_their_propensities(make: Make) -> None:
    world = World(make(ads=4, categories=2, slate_size=2, requests_per_user_day=30.0))
    policy = PlackettLuce(world, np.array([0.0, 0.5, 1.0, -0.5]), "planted")
    slates, propensity = policy.choose(world.requests(WEEK), RNG)
    count = len(slates)
    total = 0.0
    for pair in permutations(range(4), 2):
        shown = (slates == pair).all(axis=1)
        probability = propensity[shown].prod(axis=1)[0]
        total += probability
        error = np.sqrt(probability * (1 - probability) / count)
        assert shown.mean() == pytest.approx(probability, abs=4 * error)
    assert total == pytest.approx(1.0)


def test_the_oracle_finds_the_best_of_all_slates(make: Make) -> None:
    world = World(make(ads=5, categories=2, slate_size=2))
    requests = world.requests(WEEK).take(slice(0, 100))

    def value(slates: np.ndarray) -> np.ndarray:
        outcome = slate_truth(world, requests, slates)
        return outcome[:, 2] - outcome[:, 3]

    every = [
        value(np.tile(np.array(pair, dtype=np.int32), (100, 1)))
        for pair in permutations(range(5), 2)
    ]
    slates, propensity = Oracle(world).choose(requests, RNG)
    np.testing.assert_allclose(value(slates), np.max(every, axis=0))
    assert np.all(propensity == 1)


def test_oracle_beats_logging_beats_random(make: Make) -> None:
    """On the shipped world: in value and in ROI."""
    world = World(make(users=1000, ads=150, categories=12, seed=7))
    order = [
        expected_value_of(world, WEEK, policy)[0]
        for policy in (random_policy(world), logging_policy(world), Oracle(world))
    ]
    for worse, better in pairwise(order):
        assert better["value"] > worse["value"]
        assert better["roi"] > worse["roi"] + 0.05


class Clicks(Oracle):
    """Most clicks under the true probabilities, whatever they cost."""

    def score(self, look: object) -> np.ndarray:
        return look.click  # type: ignore[attr-defined]


def test_most_clicks_is_not_most_value(make: Make) -> None:
    world = World(make(ads=60, categories=6))
    most_clicks, most_value = (
        expected_value_of(world, WEEK, policy)[0] for policy in (Clicks(world), Oracle(world))
    )
    assert most_clicks["clicks"] > most_value["clicks"]
    assert most_clicks["value"] < most_value["value"]
    assert most_clicks["roi"] < most_value["roi"]


@pytest.fixture(scope="module")
def ips(make: Make) -> tuple[np.ndarray, np.ndarray]:
    """40 small worlds: (mean weight - 1, IPS - truth), each in standard errors."""
    weight_z, value_z = [], []
    for seed in range(40):
        world = World(make(users=60, ads=5, categories=2, slate_size=2, seed=seed, click_rate=0.2))
        requests = world.requests(WEEK)
        logging = logging_policy(world)
        logits = np.linspace(-0.5, 0.5, 5)
        target = PlackettLuce(world, logits, "target", Stream.CHOOSER)
        slates, propensity = logging.choose(requests, RNG)
        outcome = world.happen(WEEK, requests, slates)
        weight = (conditional_propensities(target.logits, slates) / propensity).prod(axis=1)
        terms = weight * outcome.clicked.sum(axis=1)
        truth = every_slate(world, requests, target)
        error = terms.std(ddof=1) / np.sqrt(terms.size)
        value_z.append((terms.mean() - truth) / error)
        weight_z.append((weight.mean() - 1) / (weight.std(ddof=1) / np.sqrt(weight.size)))
    return np.array(weight_z), np.array(value_z)


def every_slate(world: World, requests: object, target: PlackettLuce) -> float:
    """Exact expected clicks per request: the sum over all slates."""
    total = 0.0
    for pair in permutations(range(world.ads.ids.size), 2):
        slates = np.tile(np.array(pair, dtype=np.int32), (requests.number.size, 1))  # type: ignore[attr-defined]
        probability = conditional_propensities(target.logits, slates[:1]).prod()
        total += probability * slate_truth(world, requests, slates)[:, 0].mean()  # type: ignore[arg-type]
    return total


def test_mean_weight_is_one(ips: tuple[np.ndarray, np.ndarray]) -> None:
    weight_z, _ = ips
    assert np.abs(weight_z).max() < 4
    assert abs(weight_z.mean()) < 4 / np.sqrt(weight_z.size)


def test_ips_intervals_cover_the_truth(ips: tuple[np.ndarray, np.ndarray]) -> None:
    """Of 40 intervals of 95 %, fewer than 34 would cover with probability 0.001."""
    _, value_z = ips
    assert np.sum(np.abs(value_z) < 1.96) >= 34
    assert abs(value_z.mean()) < 4 / np.sqrt(value_z.size)
