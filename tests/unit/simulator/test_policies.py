from itertools import permutations

import numpy as np
import pytest

from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.simulator import response
from roiflow.simulator.noise import Floats
from roiflow.simulator.policies import (
    Greedy,
    Oracle,
    PlackettLuce,
    conditional_propensities,
    logging_policy,
    random_policy,
)
from roiflow.simulator.population import Flags, Ints
from roiflow.simulator.response import Response
from roiflow.simulator.run import SlateChooser
from roiflow.simulator.truth import expected_value_of, slate_truth
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")
RNG = np.random.default_rng(0)


def everything(world: World) -> Flags:
    return np.ones(world.ads(WEEK).ids.size, np.bool_)


def every_slate(ads: int, slots: int) -> Ints:
    """(N, S)."""
    return np.array(list(permutations(range(ads), slots)), np.int32)


def test_conditional_propensities_by_hand() -> None:
    logits = np.log([1.0, 2.0, 3.0])
    slates = np.array([[0, 2], [2, 1]], dtype=np.int32)
    expected = [[1 / 6, 3 / 5], [3 / 6, 2 / 3]]
    np.testing.assert_allclose(conditional_propensities(logits, slates), expected)
    by_request = np.stack([logits, logits[::-1]])
    expected = [[1 / 6, 3 / 5], [1 / 6, 2 / 5]]
    np.testing.assert_allclose(conditional_propensities(by_request, slates), expected)
    two = np.array([True, False, True])
    only = np.array([[0, 2]], dtype=np.int32)
    np.testing.assert_allclose(conditional_propensities(logits, only, two), [[1 / 4, 1.0]])


@pytest.mark.parametrize("temperature", [np.inf, 1.0, 0.15])
@pytest.mark.parametrize("out", [0, 2])
def test_slates_are_drawn_with_their_propensities(make: Make, temperature: float, out: int) -> None:
    """Exactly those of Plackett-Luce over the eligible ads; the lowest temperature is all but
    certain of its first ad, so that the slots below it are drawn from what little is left."""
    world = World(make(ads=5, categories=2, slate_size=3, requests_per_user_day=30.0))
    policy = PlackettLuce(world, "planted", noise=0.5, temperature=temperature)
    eligible = everything(world)
    eligible[[1, 3][:out]] = False
    requests = world.requests(WEEK)
    slates, propensity = policy.choose(requests, eligible, RNG)
    exact = conditional_propensities(policy.logits(WEEK), slates, eligible)
    np.testing.assert_allclose(propensity, exact, rtol=1e-9)
    count, total = len(slates), 0.0
    for slate in every_slate(5, 3):
        if not eligible[slate].all():
            continue
        probability = conditional_propensities(policy.logits(WEEK), slate[None], eligible).prod()
        total += probability
        error = np.sqrt(probability * (1 - probability) / count)
        shown = (slates == slate).all(axis=1).mean()
        assert shown == pytest.approx(probability, abs=4 * error + 1e-9)
    assert total == pytest.approx(1.0)


def test_too_few_ads_are_named_and_not_drawn_for_ever(make: Make) -> None:
    world = World(make(ads=5, categories=2, slate_size=3))
    eligible = everything(world)
    eligible[:3] = False
    with pytest.raises(ContractError, match=r"logging, week 2026-W02: 2 of 5 .* fewer than 3 slot"):
        logging_policy(world).choose(world.requests(WEEK), eligible, RNG)


def test_the_best_that_is_left_is_drawn_however_bad_it_is(make: Make) -> None:
    """An ad that has ended outweighs the others by more than a double holds."""
    world = World(make(ads=4, categories=2, slate_size=3))
    policy = PlackettLuce(world, "extreme")
    policy._logits[WEEK] = np.array([0.0, 2000.0, 0.0, 0.0])
    eligible = np.array([True, False, True, True])
    slates, propensity = policy.choose(world.requests(WEEK), eligible, RNG)
    assert set(slates.ravel().tolist()) == {0, 2, 3}
    np.testing.assert_allclose(propensity, np.tile([1 / 3, 1 / 2, 1.0], (len(slates), 1)))


def test_a_policy_of_extreme_logits_still_draws_whole_slates(make: Make) -> None:
    """One ad has all of the weight but 1 in 10^30; the rest is drawn after it, alike."""
    world = World(make(ads=4, categories=2, slate_size=3, requests_per_user_day=30.0))
    policy = PlackettLuce(world, "extreme")
    policy._logits[WEEK] = np.array([0.0, 70.0, 0.0, 0.0])
    slates, propensity = policy.choose(world.requests(WEEK), everything(world), RNG)
    assert np.all(slates[:, 0] == 1)
    np.testing.assert_allclose(propensity, np.tile([1, 1 / 3, 1 / 2], (len(slates), 1)), rtol=1e-9)
    share = np.bincount(slates[:, 1], minlength=4) / len(slates)
    np.testing.assert_allclose(share[[0, 2, 3]], 1 / 3, atol=4 * np.sqrt(2 / 9 / len(slates)))


def test_random_slates_are_all_alike(make: Make) -> None:
    world = World(make(slate_size=3))
    _, propensity = random_policy(world).choose(world.requests(WEEK), everything(world), RNG)
    expected = np.tile([1 / 20, 1 / 19, 1 / 18], (len(propensity), 1))
    np.testing.assert_allclose(propensity, expected, rtol=1e-12)


def test_slates_do_not_depend_on_who_else_asks(make: Make) -> None:
    world = World(make())
    requests, eligible = world.requests(WEEK), everything(world)
    policy = logging_policy(world)
    whole, _ = policy.choose(requests, eligible, RNG)
    part, _ = policy.choose(requests.take(slice(70, 90)), eligible, RNG)
    np.testing.assert_array_equal(part, whole[70:90])
    none, _ = policy.choose(requests.take(slice(0, 0)), eligible, RNG)
    assert none.shape == (0, 3)


AUCTIONS = [
    {"pricing": "first", "charge": "click"},
    {"pricing": "second", "charge": "click"},
    {"pricing": "second", "charge": "impression"},
]
LOOKS = [
    {"model": "position_based"},
    {"model": "cascade", "after_click": 0.3, "after_skip": 0.9},
    {"model": "cascade", "after_click": 0.9, "after_skip": 0.3},
    {"model": "cascade", "after_click": 1.0, "after_skip": 1.0},
    {"model": "cascade", "after_click": 0.0, "after_skip": 0.0},
]


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("keys", AUCTIONS)
def test_the_oracle_finds_the_best_of_all_slates(
    make: Make, keys: dict[str, object], looks: dict[str, object]
) -> None:
    world = World(make(ads=6, categories=3, slate_size=3, click_rate=0.3, **keys, **looks))
    requests, eligible = world.requests(WEEK).take(slice(0, 60)), everything(world)
    eligible[2] = False

    def value(slates: Ints) -> Floats:
        outcome = slate_truth(world, requests, slates)
        return np.asarray(outcome[:, 2] - outcome[:, 3])

    others = [slate for slate in every_slate(6, 3) if 2 not in slate]
    every = [value(np.tile(slate, (60, 1))) for slate in others]
    slates, propensity = Oracle(world).choose(requests, eligible, RNG)
    np.testing.assert_allclose(value(slates), np.max(every, axis=0), rtol=1e-9)
    assert np.all(propensity == 1)


@pytest.mark.parametrize("looks", LOOKS)
@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_the_oracle_is_exact_whatever_the_values(
    make: Make, looks: dict[str, object], level: float
) -> None:
    """Also where every ad loses money and a slate must be filled all the same."""
    world, rng = World(make(slate_size=3, **looks)), np.random.default_rng(1)
    shape = (200, 6)
    click, nothing = rng.beta(0.5, 0.5, shape), np.zeros(shape)
    click[:20, :3] = 1.0
    look = Response(click, nothing, nothing, nothing, look_cost=-(level + rng.normal(size=shape)))
    slates = every_slate(6, 3)
    seen = response.examine(world.params.examination, click[:, slates].reshape(-1, 3))
    every = (seen * look.value[:, slates].reshape(-1, 3)).sum(axis=1).reshape(200, -1)
    found = Oracle(world).best(look)
    assert np.all(np.diff(np.sort(found, axis=1), axis=1) > 0)
    seen = response.examine(world.params.examination, np.take_along_axis(click, found, 1))
    value = (seen * np.take_along_axis(look.value, found, 1)).sum(axis=1)
    np.testing.assert_allclose(value, every.max(axis=1), rtol=1e-9, atol=1e-12)


def test_the_greedy_one_shows_what_is_clicked_most(make: Make) -> None:
    world = World(make())
    requests, eligible = world.requests(WEEK).take(slice(0, 50)), everything(world)
    eligible[[0, 4]] = False
    slates, propensity = Greedy(world).choose(requests, eligible, RNG)
    click = world.respond(requests, np.tile(np.arange(20, dtype=np.int32), (50, 1))).click
    click[:, [0, 4]] = -1.0
    np.testing.assert_array_equal(slates, np.argsort(-click, axis=1)[:, :3])
    assert np.all(propensity == 1)


@pytest.mark.parametrize("looks", LOOKS[:2])
@pytest.mark.parametrize("keys", AUCTIONS)
def test_the_order_of_the_policies(
    make: Make, keys: dict[str, object], looks: dict[str, object]
) -> None:
    """The oracle earns more than anybody; who maximises clicks has more of them, and pays.

    Charged by impression a click costs nothing more, so the ROI of most clicks is high.
    """
    world = World(make(users=600, ads=60, categories=12, seed=7, **keys, **looks))
    policies: list[SlateChooser] = [
        random_policy(world),
        logging_policy(world),
        PlackettLuce(world, "sharper", 0.0, 0.3),
        Greedy(world),
        Oracle(world),
    ]
    values = [expected_value_of(world, WEEK, policy)[0] for policy in policies]
    random, logging, sharper, clicks, oracle = values
    assert max(values, key=lambda value: value["value"]) is oracle
    assert min(values[:3], key=lambda value: value["value"]) is random
    assert random["value"] < logging["value"] < sharper["value"] < oracle["value"]
    assert random["clicks"] < logging["clicks"] < sharper["clicks"] < clicks["clicks"]
    assert oracle["clicks"] < clicks["clicks"]
    if keys["charge"] == "click":
        assert clicks["roi"] < oracle["roi"] - 0.1
