"""What the world adds to its population: prices, eligibility, what is known when."""

import numpy as np
import pyarrow as pa
import pytest

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ContractError
from roiflow.simulator import auction
from roiflow.simulator.population import Ints
from roiflow.simulator.tables import WorldTables
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

FIRST = Week.parse("2026-W01")
WEEK = FIRST.plus(1)


def every_ad(world: World, week: Week, count: int) -> Ints:
    ads = np.arange(world.ads(week).ids.size, dtype=np.int32)
    return np.tile(ads, (count, 1))


def test_requests_are_in_time_order_inside_the_week_and_never_on_the_hour(make: Make) -> None:
    time = World(make()).requests(WEEK).event_time
    assert np.all(np.diff(time) >= 0)
    assert np.all(time % MICROS_PER_HOUR > 0)
    days = set((time // MICROS_PER_DAY).tolist())
    assert days == set(range(WEEK.start // MICROS_PER_DAY, WEEK.end // MICROS_PER_DAY))


def test_request_numbers_are_unique(make: Make) -> None:
    for seed in (1, 2):
        number = World(make(seed=seed, users=2000)).requests(WEEK).number
        assert np.unique(number).size == number.size


def test_known_time_is_the_next_multiple_of_the_lag(make: Make) -> None:
    world = World(make(known_lag_hours=6))
    hour = MICROS_PER_HOUR
    events = WEEK.start + np.array([0, 1, 6 * hour - 1, 6 * hour, 6 * hour + 1])
    known = world.known_time(events) - WEEK.start
    assert known.tolist() == [6 * hour, 6 * hour, 6 * hour, 12 * hour, 12 * hour]


@pytest.mark.parametrize("pricing", ["first", "second"])
def test_the_response_prices_looks_or_clicks(make: Make, pricing: str) -> None:
    clicks, looks = (
        World(make(charge=charge, pricing=pricing, return_rate=0.25))
        for charge in ("click", "impression")
    )
    requests, rows = clicks.requests(WEEK).take(slice(0, 30)), every_ad(clicks, WEEK, 30)
    by_click, by_look = clicks.respond(requests, rows), looks.respond(requests, rows)
    ads = clicks.ads(WEEK)
    price = auction.expected_price(clicks.params.auction, ads)
    np.testing.assert_allclose(by_click.click_cost, np.tile(price, (30, 1)))
    assert not by_click.look_cost.any()
    assert not by_look.click_cost.any()
    per_look = auction.expected_price(looks.params.auction, looks.ads(WEEK))
    np.testing.assert_allclose(by_look.look_cost, np.tile(per_look, (30, 1)))
    np.testing.assert_array_equal(by_click.revenue, np.tile(0.75 * ads.price, (30, 1)))
    np.testing.assert_array_equal(by_click.click, by_look.click)
    earned = by_click.click * by_click.conversion * by_click.revenue
    np.testing.assert_allclose(by_click.value, earned - by_click.click * price)
    np.testing.assert_allclose(by_look.value, earned - per_look)


def test_responses_follow_the_week_that_is_asked(make: Make) -> None:
    """Creatives age and ads come; asking for one week in between changes no other."""
    world = World(make(fatigue=0.2, new_ads_per_week=4))
    first = world.requests(FIRST).take(slice(0, 20))
    before = world.respond(first, every_ad(world, FIRST, 20))
    later = world.requests(FIRST.plus(2)).take(slice(0, 20))
    assert world.respond(later, every_ad(world, FIRST.plus(2), 20)).click.shape == (20, 28)
    again = world.respond(first, every_ad(world, FIRST, 20))
    for name, values in vars(before).items():
        np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)


def test_eligible_ads_are_the_living_ones(make: Make) -> None:
    world = World(make(ads=200, ad_weeks=4.0, new_ads_per_week=10))
    week = FIRST.plus(3)
    ads, eligible = world.ads(week), world.eligible(week)
    np.testing.assert_array_equal(eligible, (ads.first <= week.start) & (ads.last > week.start))
    assert eligible[-20:-10].all()  # last week's; this week's come in it
    assert not eligible[-10:].any()
    assert 0.3 < eligible[:200].mean() < 0.65  # exp(-3 / 4) = 0.47
    np.testing.assert_array_equal(world.pacer(week).eligible(week.start), eligible)


def test_ads_come_at_full_hours_of_their_week_and_are_booked_with_their_end(make: Make) -> None:
    """A tenth of 200 ads a week: the hours of 400 of them are spread over all days."""
    world = World(make(ads=200, ad_weeks=10.0, new_ads_per_week=20))
    week = FIRST.plus(20)
    ads = world.ads(week)
    come = ads.first[200:] - FIRST.start
    assert (come // MICROS_PER_WEEK == 1 + np.arange(400) // 20).all()
    hour, rest = np.divmod(come % MICROS_PER_WEEK, MICROS_PER_HOUR)
    assert not rest.any()
    assert np.histogram(hour, bins=7, range=(0, 168))[0].min() > 30  # 57 a day
    table = WorldTables(world, week).ads()
    start, created, end = (
        table[name].cast(pa.int64()).to_numpy() for name in ("known_time", "created_at", "ends_at")
    )
    new = start > week.start
    assert new.sum() == 20
    assert (start[new] == created[new]).all()
    assert (np.diff(start) >= 0).all()
    row = world.ad_rows(week, np.array(table["ad_id"].to_pylist()))
    inside = ads.last[row] < week.end
    assert inside.sum() > 5
    assert (end[inside] == ads.last[row][inside]).all()
    assert np.isnan(end[~inside]).all()


def test_ads_may_come_with_their_week(make: Make) -> None:
    world = World(make(new_ads_per_week=4, arrival_days=0))
    ads = world.ads(FIRST.plus(2))
    assert ads.first[-8:].tolist() == [FIRST.plus(1).start] * 4 + [FIRST.plus(2).start] * 4


def test_no_request_has_no_response(make: Make) -> None:
    world = World(make())
    none = world.requests(WEEK).take(slice(0, 0))
    assert world.respond(none, np.zeros((0, 5), np.int32)).click.shape == (0, 5)


def test_unknown_ids_are_named(make: Make) -> None:
    world = World(make())
    ids = world.ads(WEEK).ids
    assert world.ad_rows(WEEK, ids[[3, 1]]).tolist() == [3, 1]
    assert world.user_rows(world.user_ids[[5, 0]]).tolist() == [5, 0]
    with pytest.raises(ContractError, match="ad 'zz' is not in the catalogue"):
        world.ad_rows(WEEK, np.array([ids[0], "zz"]))
    with pytest.raises(ContractError, match="user 'nobody'"):
        world.user_rows(np.array(["nobody"]))
