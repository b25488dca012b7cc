"""Planted numbers come back from what the world does."""

import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ContractError, ParamsError
from roiflow.simulator import population as people
from roiflow.simulator.policies import random_policy
from roiflow.simulator.world import Outcome, Response, World, WorldRequests
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("slate_size", 21),
        ("categories", 21),
        ("known_lag_hours", 5),
        ("attribution_days", 7),
        ("first_week", "2026-W54"),
        ("delay_hours", [40.0, 4.0]),
        ("delay_hours", [4.0]),
        ("action_importance", {"view": 1.0}),
    ],
)
def test_an_impossible_world_is_refused(make: Make, key: str, value: object) -> None:
    with pytest.raises(ParamsError, match=f"ingest.simulator.{key}: ") as refusal:
        World(make(**{key: value}))
    assert str(value) in str(refusal.value)


@pytest.mark.parametrize(("key", "value"), [("click_rate", 1.2), ("delay_hours", [-1.0, 2.0])])
def test_a_number_out_of_bounds_is_refused(make: Make, key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        make(**{key: value})


@pytest.fixture(scope="module")
def busy(make: Make) -> tuple[World, WorldRequests, np.ndarray, Response, Outcome]:
    """Half a million impressions of random slates."""
    world = World(make(users=1000, requests_per_user_day=20.0, click_rate=0.2, conversion_rate=0.2))
    requests = world.requests(WEEK)
    slates, _ = random_policy(world).choose(requests, np.random.default_rng(0))
    look = world.respond(requests, slates)
    return world, requests, slates, look, world.happen(WEEK, requests, slates)


Busy = tuple[World, WorldRequests, np.ndarray, Response, Outcome]


def test_position_bias_comes_back(busy: Busy) -> None:
    _, _, _, look, outcome = busy
    recovered = outcome.clicked.sum(axis=0) / look.click.sum(axis=0)
    np.testing.assert_allclose(recovered, [1.0, 2**-0.7, 3**-0.7], rtol=0.02)


def test_conversion_rate_comes_back(busy: Busy) -> None:
    _, _, _, look, outcome = busy
    expected = look.conversion[outcome.clicked].sum()
    assert outcome.converted.size == pytest.approx(expected, rel=0.02)


def test_delays_come_back_by_category(busy: Busy) -> None:
    world, _, slates, _, outcome = busy
    ad = slates.ravel()[outcome.converted]
    hours = outcome.delay / MICROS_PER_HOUR
    window = 24.0 * world.params.attribution_days
    assert hours.max() <= window
    for category in range(world.params.categories):
        of = world.ads.category[ad] == category
        mean = world.ads.delay[world.ads.category == category][0]
        cut = mean - window * np.exp(-window / mean) / -np.expm1(-window / mean)
        assert hours[of].mean() == pytest.approx(cut, rel=5 / np.sqrt(of.sum()))


def test_revenue_has_the_price_as_its_mean(busy: Busy) -> None:
    world, _, slates, _, outcome = busy
    ratio = outcome.revenue / world.ads.price[slates.ravel()[outcome.converted]]
    assert ratio.mean() == pytest.approx(1.0, rel=0.01)
    assert np.log(ratio).std() == pytest.approx(world.params.revenue_sigma, rel=0.02)


def test_a_share_of_the_bid_is_paid_per_click(busy: Busy) -> None:
    world, _, slates, _, outcome = busy
    paid = np.where(outcome.clicked, np.rint(0.9 * world.ads.bid[slates]), 0)
    np.testing.assert_array_equal(outcome.cost, paid)


def test_rates_of_visits_come_back(make: Make) -> None:
    world = World(make(users=2000, requests_per_user_day=3.0, behaviours_per_user_day=4.0))
    here = world.users.activity[world.users.joined <= WEEK.start].sum()
    week = people.WEEKDAY_FACTORS.sum()
    assert world.requests(WEEK).number.size == pytest.approx(3 * here * week, rel=0.02)
    assert world.behaviours(WEEK).user.size == pytest.approx(4 * here * week, rel=0.02)
    assert week == pytest.approx(7.0)


def test_newcomers_are_silent_before_they_join(make: Make) -> None:
    world = World(make(users=2000))
    for week in (Week.parse("2026-W01"), WEEK):
        for user in (world.requests(week).user_index, world.behaviours(week).user):
            assert np.all(world.users.joined[user] <= week.start)
    assert np.any(world.users.joined > WEEK.start)


def test_requests_are_in_time_order_and_never_on_the_hour(make: Make) -> None:
    time = World(make()).requests(WEEK).event_time
    assert np.all(np.diff(time) >= 0)
    assert np.all(time % MICROS_PER_HOUR > 0)
    assert time[0] >= WEEK.start
    assert time[-1] < WEEK.end


def test_known_time_is_the_next_multiple_of_the_lag(make: Make) -> None:
    world = World(make(known_lag_hours=6))
    hour = MICROS_PER_HOUR
    events = np.array([0, 1, 6 * hour - 1, 6 * hour, 6 * hour + 1])
    assert world.known_time(events).tolist() == [6 * hour, 6 * hour, 6 * hour, 12 * hour, 12 * hour]


def test_intent_equals_a_loop_over_behaviours(make: Make) -> None:
    world = World(make())
    requests = world.requests(WEEK).take(slice(0, 400))
    intent = world.intent(requests.user_index, requests.event_time)
    expected = np.zeros_like(intent)
    parameters = world.params
    for week in (WEEK.plus(-1), WEEK):
        past = world.behaviours(week)
        for user, ad, action, time in zip(
            past.user, past.ad, past.action, past.event_time, strict=True
        ):
            age = requests.event_time - time
            rows = (requests.user_index == user) & (age > 0) & (age <= MICROS_PER_WEEK)
            fading = 0.5 ** (age[rows] / MICROS_PER_HOUR / parameters.half_life_hours)
            importance = parameters.action_importance[people.ACTIONS[action]]
            expected[rows, world.ads.category[ad]] += importance * fading
    np.testing.assert_allclose(intent, expected, rtol=1e-9)
    assert expected.any()


def test_intent_does_not_depend_on_who_else_asks(make: Make) -> None:
    world = World(make())
    requests = world.requests(WEEK)
    whole = world.intent(requests.user_index, requests.event_time)
    part = requests.take(slice(50, 60))
    np.testing.assert_array_equal(world.intent(part.user_index, part.event_time), whole[50:60])


def test_interests_turn_and_keep_their_spread(make: Make) -> None:
    world = World(make(users=2000, interest_drift=0.1))
    user = np.arange(2000, dtype=np.int32)
    now, soon, late = (
        world.interest(user, np.full(2000, world.first_week.plus(weeks).start))
        for weeks in (0, 1, 8)
    )
    assert now.std() == pytest.approx(late.std(), rel=0.1)
    near, far = (np.corrcoef(now.ravel(), then.ravel())[0, 1] for then in (soon, late))
    assert near > 0.99
    assert far < 0.85


def test_stronger_interest_gives_stronger_actions(make: Make) -> None:
    world = World(make(users=2000))
    past = world.behaviours(WEEK)
    interest = world.interest(past.user, past.event_time)
    own = interest[np.arange(past.user.size), world.ads.category[past.ad]]
    by_action = [own[past.action == action].mean() for action in range(len(people.ACTIONS))]
    assert by_action == sorted(by_action)
    assert own.mean() > interest.mean() + 0.3


def test_unknown_ids_are_named(make: Make) -> None:
    world = World(make())
    assert world.ad_rows(world.ads.ids[[3, 1]]).tolist() == [3, 1]
    with pytest.raises(ContractError, match="'zz'"):
        world.ad_rows(np.array(["zz"]))
    with pytest.raises(ContractError, match="'nobody'"):
        world.user_rows(np.array(["nobody"]))


def test_weeks_are_days_of_their_own(make: Make) -> None:
    world = World(make())
    day = world.requests(WEEK).event_time // MICROS_PER_DAY
    assert set(day.tolist()) == set(range(WEEK.start // MICROS_PER_DAY, WEEK.end // MICROS_PER_DAY))
