"""Planted users, ads and behaviour come back from what the population tells."""

from dataclasses import replace

import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import WorldRequests
from roiflow.simulator.scenarios import Effects
from roiflow.simulator.synthetic import (
    HOLIDAY_CONVERSION,
    HOLIDAY_TRAFFIC,
    SHARD_REQUESTS,
    SyntheticPopulation,
    is_holiday,
    shard_users,
    shards,
    user_count,
)
from roiflow.simulator.synthetic_draws import MEMBERSHIP_EFFECT, MEMBERSHIPS
from roiflow.simulator.synthetic_passes import ACTION_SHARES
from tests.unit.simulator.conftest import Make

FIRST = Week.parse("2026-W01")
WEEK = FIRST.plus(1)
NONE = Effects()


def alive(population: SyntheticPopulation, week: Week) -> int:
    return population.users(week)[0].size


# Users


def test_rates_of_visits_come_back(make: Make) -> None:
    """Sessions that midnight cuts lose a thousandth of the visits."""
    keys = {"requests_per_user_day": 3.0, "behaviours_per_user_day": 4.0, "session_events": 2.5}
    population = SyntheticPopulation(make(users=4000, **keys))
    activity = population.state.activity.sum()
    week = people.WEEKDAY_FACTORS.sum()
    requests, past = population.requests(WEEK, NONE), population.behaviours(WEEK, NONE)
    assert requests.number.size == pytest.approx(3 * activity * week, rel=0.02)
    assert past.user.size == pytest.approx(4 * activity * week, rel=0.02)
    assert week == pytest.approx(7.0)


@pytest.mark.parametrize("shape", [0.5, 1.5, 8.0])
def test_activity_is_gamma(make: Make, shape: float) -> None:
    activity = SyntheticPopulation(make(users=20_000, activity_shape=shape)).state.activity
    error = 4 / np.sqrt(20_000)
    assert activity.mean() == pytest.approx(1.0, abs=error / np.sqrt(shape))
    assert activity.var() == pytest.approx(1 / shape, rel=2 * error * np.sqrt(2 + 6 / shape))


def test_the_same_number_of_users_joins_every_week(make: Make) -> None:
    population = SyntheticPopulation(make(users=1000, newcomers=0.02))
    counts = [alive(population, FIRST.plus(week)) for week in range(4)]
    assert counts == [1000, 1020, 1040, 1060]
    assert population.user_ids.size == user_count(population.params) == 1000 + 52 * 20
    assert list(population.user_ids) == sorted(population.user_ids)


def test_the_same_share_of_users_leaves_every_week(make: Make) -> None:
    population = SyntheticPopulation(make(users=10_000, churn=0.1))
    for weeks in range(6):
        left = alive(population, FIRST.plus(weeks)) / 10_000
        expected = 0.9**weeks
        error = 4 * np.sqrt(expected * (1 - expected) / 10_000)
        assert left == pytest.approx(expected, abs=error)


def test_nobody_comes_before_joining_or_after_leaving(make: Make) -> None:
    population = SyntheticPopulation(make(users=1000, newcomers=0.1, churn=0.3))
    there = set()
    for number in range(4):
        week = FIRST.plus(number)
        here, profile = population.users(week)
        assert all(column.size == here.size for column in profile.values())
        for rows in (population.requests(week, NONE), population.behaviours(week, NONE)):
            user = rows.user_index if isinstance(rows, WorldRequests) else rows.user
            assert set(user.tolist()) <= set(here.tolist())
        there |= set(here.tolist())
    assert len(there) == 1000 + 3 * 100


def test_everybody_may_stay_for_ever(make: Make) -> None:
    population = SyntheticPopulation(make(users=500, churn=0.0))
    assert alive(population, FIRST.plus(500)) == 500


def test_profiles_tell_of_the_hidden_state(make: Make) -> None:
    """Members convert more often, and users of an age have interests in common."""
    population = SyntheticPopulation(make(users=20_000))
    state = population.state
    _, profile = population.users(WEEK)
    for membership, effect in zip(MEMBERSHIPS, MEMBERSHIP_EFFECT, strict=True):
        mine = state.conversion[profile["membership"] == membership]
        assert mine.mean() == pytest.approx(effect, abs=4 * 0.3 / np.sqrt(mine.size))
        assert mine.std() == pytest.approx(0.3, rel=0.1)
    by_age = np.unique(state.common, axis=0)
    assert by_age.shape == (5, 4)
    own = population.interest(0.0) - state.common
    assert own.var() == pytest.approx(1 - 0.5**2, rel=0.02)


# Ads


def test_ads_keep_their_rows_and_new_ones_come_every_week(make: Make) -> None:
    population = SyntheticPopulation(make(ads=20, new_ads_per_week=3))
    for number in range(4):
        week = FIRST.plus(number)
        now, later = population.ads(week, NONE), population.ads(week.plus(1), NONE)
        size = 20 + 3 * number
        assert now.ids.size == size
        for name, column in vars(now).items():
            np.testing.assert_array_equal(column, getattr(later, name)[:size], err_msg=name)
        assert np.all(later.first[size:] >= week.plus(1).start)
        assert np.all(later.first[size:] < week.plus(1).end)
        np.testing.assert_array_equal(later.created_at[size:], later.first[size:])
        assert np.all(now.created_at < now.first[0] + MICROS_PER_WEEK * (number + 1))
        assert np.all(np.bincount(now.category, minlength=4) >= size // 4)


def test_lifetimes_are_geometric_and_a_slate_always_stays(make: Make) -> None:
    """Of the others a share exp(-1 / 8) is left each week."""
    population = SyntheticPopulation(make(ads=5000, ad_weeks=8.0))
    ads = population.ads(FIRST, NONE)
    for weeks in (1, 4, 12):
        left = np.mean(ads.last[3:] > FIRST.plus(weeks).start)
        expected = np.exp(-weeks / 8)
        assert left == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 5000))
    assert np.all(ads.last[:3] > FIRST.plus(10_000).start)
    assert np.all((ads.last - ads.first)[3:] % MICROS_PER_WEEK == 0)


def test_creatives_wear_out_and_are_replaced(make: Make) -> None:
    """0.2 less for each doubling of its age: over 3 weeks 0, 0.2 and 0.2 log2(3), then anew."""
    fresh, worn = (
        SyntheticPopulation(make(fatigue=fatigue, creative_weeks=3)) for fatigue in (0.0, 0.2)
    )
    weeks = [FIRST.plus(number) for number in range(6)]
    lost = np.stack([fresh.ads(week, NONE).click - worn.ads(week, NONE).click for week in weeks])
    cycle = np.array([0.0, 0.2, 0.2 * np.log2(3)])
    np.testing.assert_allclose(np.sort(lost[:3], axis=0), np.tile(cycle[:, None], 20), atol=1e-12)
    np.testing.assert_allclose(lost[3:], lost[:3], atol=1e-12)
    assert np.unique(np.rint(lost[0] * 1e6)).size == 3  # ads are of different ages at first


def test_prices_are_log_normal_around_their_category(make: Make) -> None:
    population = SyntheticPopulation(make(ads=4000, price_median=50.0, price_sigma=0.3))
    ads = population.ads(FIRST, NONE)
    log = np.log(ads.price / 50e6)
    level = np.array([np.median(log[ads.category == category]) for category in range(4)])
    np.testing.assert_allclose(np.sort(level), [-1, -1 / 3, 1 / 3, 1], atol=0.06)
    assert (log - level[ads.category]).std() == pytest.approx(0.3, rel=0.05)
    assert np.all(ads.price % 10_000 == 0)


# Behaviour


def test_behaviours_inside_a_category_follow_the_zipf_law(make: Make) -> None:
    population = SyntheticPopulation(
        make(users=5000, ads=40, behaviours_per_user_day=4.0, popularity_exponent=0.8)
    )
    past, ads = population.behaviours(WEEK, NONE), population.ads(WEEK, NONE)
    for category in range(4):
        count = np.bincount(past.ad, minlength=40)[ads.category == category]
        expected = np.arange(1, 11) ** -0.8
        expected *= count.sum() / expected.sum()
        assert np.sum((count - expected) ** 2 / expected) < 30  # 9 degrees: 1 in 2,000


def test_users_turn_to_categories_by_their_interest(make: Make) -> None:
    """Softmax: summed over users, in and out of sessions that are about one category."""
    population = SyntheticPopulation(make(users=3000, behaviours_per_user_day=5.0))
    past, ads = population.behaviours(WEEK, NONE), population.ads(WEEK, NONE)
    weight = np.exp(population.interest(0.0).astype(np.float64))
    share = weight / weight.sum(axis=1, keepdims=True)
    visits = np.bincount(past.user, minlength=3000)
    expected = (visits[:, None] * share).sum(axis=0)
    found = np.bincount(ads.category[past.ad], minlength=4)
    np.testing.assert_allclose(found / expected, 1.0, atol=0.02)


@pytest.mark.parametrize("stay", [0.0, 0.7])
def test_a_share_of_a_sessions_visits_is_about_one_category(make: Make, stay: float) -> None:
    """Neighbours of a session share their category more often than strangers by stay^2."""
    keys = {"session_events": 4.0, "session_minutes": 0.01, "activity_shape": 50.0}
    population = SyntheticPopulation(
        make(users=20_000, session_intent=stay, behaviours_per_user_day=1.0, **keys)
    )
    past, ads = population.behaviours(WEEK, NONE), population.ads(WEEK, NONE)
    order = np.lexsort((past.event_time, past.user))
    user, time, category = past.user[order], past.event_time[order], ads.category[past.ad][order]
    together = (user[1:] == user[:-1]) & (np.diff(time) < 20_000_000)
    weight = np.exp(population.interest(0.0).astype(np.float64))
    share = weight / weight.sum(axis=1, keepdims=True)
    by_chance = (share**2).sum(axis=1)[user[1:]][together].mean()
    same = (category[1:] == category[:-1])[together].mean()
    expected = stay**2 + (1 - stay**2) * by_chance
    assert same == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(together.sum()))


def test_stronger_interest_gives_stronger_actions(make: Make) -> None:
    population = SyntheticPopulation(make(users=4000, behaviours_per_user_day=5.0))
    past, ads = population.behaviours(WEEK, NONE), population.ads(WEEK, NONE)
    own = population.interest(0.0)[past.user, ads.category[past.ad]]
    by_action = [own[past.action == action].mean() for action in range(len(people.ACTIONS))]
    assert by_action == sorted(by_action)
    indifferent = np.abs(own) < 0.3
    share = np.bincount(past.action[indifferent], minlength=5) / indifferent.sum()
    assert np.all(np.diff(share) < 0)
    assert share[0] > ACTION_SHARES[0]  # the planted shares are of a log odds of 0.5


def test_only_live_ads_are_behaved_on(make: Make) -> None:
    """Where none of a category lives, its dead ones stand in."""
    population = SyntheticPopulation(make(ads=60, ad_weeks=2.0, new_ads_per_week=5))
    week = FIRST.plus(3)
    past, ads = population.behaviours(week, NONE), population.ads(week, NONE)
    for day in range(week.start, week.end, MICROS_PER_DAY):
        live = (ads.first <= day) & (day < ads.last)
        assert not live.all()
        assert set(ads.category[live].tolist()) == {0, 1, 2, 3}
        today = past.ad[(day <= past.event_time) & (past.event_time < day + MICROS_PER_DAY)]
        assert set(today.tolist()) == set(np.flatnonzero(live).tolist())


def test_holidays_bring_visits_and_conversions(make: Make) -> None:
    """2026-01-07 is a Wednesday of the second week."""
    keys = {"users": 4000, "requests_per_user_day": 3.0}
    plain, feast = (
        SyntheticPopulation(make(holidays=days, **keys)) for days in ([], ["01-07", "12-25"])
    )
    day = WEEK.start // MICROS_PER_DAY + 2
    assert is_holiday(["01-07"], day)
    assert not is_holiday(["01-07"], day + 1)

    def by_day(population: SyntheticPopulation) -> Floats:
        time = population.requests(WEEK, NONE).event_time
        return np.bincount(time // MICROS_PER_DAY - day + 2, minlength=7).astype(np.float64)

    ratio = by_day(feast) / by_day(plain)
    np.testing.assert_array_equal(np.delete(ratio, 2), np.ones(6))
    assert ratio[2] == pytest.approx(HOLIDAY_TRAFFIC, rel=0.04)
    requests, ads = plain.requests(WEEK, NONE), plain.ads(WEEK, NONE)
    rows = np.zeros((requests.number.size, 2), np.int32)
    (click, won), (clicked, converted) = (
        one.log_odds(requests, ads, rows, NONE) for one in (feast, plain)
    )
    inside = requests.event_time // MICROS_PER_DAY == day
    np.testing.assert_allclose((won - converted)[inside], HOLIDAY_CONVERSION)
    np.testing.assert_array_equal(won[~inside], converted[~inside])
    assert np.abs(click - clicked)[requests.event_time < day * MICROS_PER_DAY].max() == 0


# Log odds


def log_odds(population: SyntheticPopulation, requests: WorldRequests) -> tuple[Floats, Floats]:
    ads = population.ads(WEEK, NONE)
    rows = np.tile(np.arange(ads.ids.size, dtype=np.int32), (requests.number.size, 1))
    return population.log_odds(requests, ads, rows, NONE)


@pytest.mark.parametrize(("half_life", "days"), [(24.0, 3), (3.0, 1), (200.0, 7)])
def test_intent_equals_a_loop_over_behaviours(make: Make, half_life: float, days: int) -> None:
    keys = {"half_life_hours": half_life, "intent_days": days}
    with_it, without = (
        SyntheticPopulation(make(intent_weight=weight, **keys)) for weight in (1.0, 0.0)
    )
    requests = with_it.requests(WEEK, NONE).take(slice(0, 400))
    found = log_odds(with_it, requests)[0] - log_odds(without, requests)[0]
    affinity = np.zeros((400, 4))
    importance = with_it.params.synthetic.action_importance
    for week in (FIRST, WEEK):
        past, category = with_it.behaviours(week, NONE), with_it.ads(week, NONE).category
        for user, ad, action, time in zip(
            past.user, past.ad, past.action, past.event_time, strict=True
        ):
            age = requests.event_time - time
            rows = (requests.user_index == user) & (age > 0) & (age <= days * MICROS_PER_DAY)
            fading = 0.5 ** (age[rows] / MICROS_PER_HOUR / half_life)
            affinity[rows, category[ad]] += importance[people.ACTIONS[action]] * fading
    category = with_it.ads(WEEK, NONE).category
    np.testing.assert_allclose(found, np.log1p(affinity)[:, category], rtol=1e-7, atol=1e-9)
    assert np.count_nonzero(affinity) > 200


def test_log_odds_do_not_depend_on_who_else_asks_or_on_what_was_asked_before(make: Make) -> None:
    population = SyntheticPopulation(make())
    requests = population.requests(WEEK, NONE)
    whole = log_odds(population, requests)
    fresh = SyntheticPopulation(make())
    part = log_odds(fresh, requests.take(slice(50, 60)))
    for one, other in zip(part, whole, strict=True):
        np.testing.assert_array_equal(one, other[50:60])
    none = log_odds(population, requests.take(slice(0, 0)))
    assert none[0].shape == none[1].shape == (0, 20)


def test_a_click_is_the_sum_of_its_planted_parts(make: Make) -> None:
    population = SyntheticPopulation(
        make(interest_weight=0.7, intent_weight=0.0, click_rate=0.1, conversion_rate=0.2)
    )
    requests, ads = population.requests(WEEK, NONE).take(slice(0, 50)), population.ads(WEEK, NONE)
    click, conversion = log_odds(population, requests)
    state, interest = population.state, population.interest(0.0)
    for row in range(50):
        user, device = requests.user_index[row], requests.device_index[row]
        hour = requests.event_time[row] // MICROS_PER_HOUR % 24
        context = people.PLACEMENT_EFFECT[requests.placement_index[row]] + people.HOUR_EFFECT[hour]
        for ad in range(20):
            taste = interest[user, ads.category[ad]]
            parts = np.log(0.1 / 0.9) + state.click[user] + context + 0.7 * taste
            parts += people.AD_TYPE_ON_DEVICE[ads.ad_type[ad], device] + ads.click[ad]
            assert click[row, ad] == pytest.approx(parts, abs=1e-6)
            parts = np.log(0.2 / 0.8) + state.conversion[user] + 0.3 * taste + ads.conversion[ad]
            assert conversion[row, ad] == pytest.approx(parts, abs=1e-6)


def test_interests_turn_and_keep_their_spread(make: Make) -> None:
    population = SyntheticPopulation(make(users=2000))
    now, soon, far = (population.interest(angle) for angle in (0.0, 0.1, np.pi / 2))
    assert now.std() == pytest.approx(far.std(), rel=0.1)
    assert np.corrcoef(now.ravel(), soon.ravel())[0, 1] > 0.99
    east, north = ((turned - population.state.common).ravel() for turned in (now, far))
    assert np.corrcoef(east, north)[0, 1] == pytest.approx(0.0, abs=4 / np.sqrt(8000))


# Parts


def test_parts_make_up_the_whole(make: Make) -> None:
    """Users, requests, behaviours and log odds; request numbers are the same and unique."""
    keys = {"behaviours_per_user_day": 60.0, "newcomers": 0.002, "churn": 0.05}
    params = make(users=2500, requests_per_user_day=2.0, **keys)
    whole = SyntheticPopulation(params)
    ranges = shards(params)
    assert len(ranges) == 3
    assert [one.start for one in ranges] == [number * shard_users(params) for number in range(3)]
    assert ranges[-1].stop == user_count(params)
    parts = [SyntheticPopulation(params, part) for part in ranges]
    assert [*whole.user_ids] == [name for part in parts for name in part.user_ids]
    requests = whole.requests(WEEK, NONE)
    click, conversion = log_odds(whole, requests)
    behaviours = whole.behaviours(WEEK, NONE)
    for part in parts:
        mine = np.isin(requests.user_index, list(part.part))
        own = part.requests(WEEK, NONE)
        shifted = replace(own, user_index=own.user_index + np.int32(part.part.start))
        for name, column in vars(shifted).items():
            np.testing.assert_array_equal(column, getattr(requests, name)[mine], err_msg=name)
        found = log_odds(part, own)
        np.testing.assert_array_equal(found[0], click[mine])
        np.testing.assert_array_equal(found[1], conversion[mine])
        mine = np.isin(behaviours.user, list(part.part))
        past = part.behaviours(WEEK, NONE)
        for name, column in vars(past).items():
            shift = part.part.start if name == "user" else 0
            np.testing.assert_array_equal(column + shift, getattr(behaviours, name)[mine])
    assert np.unique(requests.number).size == requests.number.size
    assert set((requests.number // SHARD_REQUESTS).tolist()) == {0, 1, 2}


def test_budgets_are_shared_out_among_parts(make: Make) -> None:
    params = make(users=1800, behaviours_per_user_day=60.0, budgets=True, budget_share=500.0)
    whole = SyntheticPopulation(params).ads(WEEK, NONE).budget
    parts = [SyntheticPopulation(params, part).ads(WEEK, NONE).budget for part in shards(params)]
    np.testing.assert_allclose(sum(parts), whole, rtol=0.01)
