"""What is bid, paid and left to spend, against hand-worked numbers and integrals."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import lognorm

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import AuctionParams
from roiflow.simulator import auction
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.population import HOUR_SHARES, Ads
from roiflow.simulator.run import serve
from roiflow.simulator.tables import joined
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")


@pytest.fixture(scope="module")
def some_ads(make: Make) -> Ads:
    return World(make()).ads(WEEK)


def params(make: Make, **keys: object) -> AuctionParams:
    return make(**keys).auction


def test_first_price_pays_the_bid(make: Make, some_ads: Ads) -> None:
    first = params(make, pricing="first")
    rows = np.arange(20, dtype=np.int32)
    np.testing.assert_array_equal(auction.paid(first, some_ads, rows, rows / 20), some_ads.bid)
    np.testing.assert_array_equal(auction.expected_price(first, some_ads), some_ads.bid)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 1.5])
def test_the_second_price_is_the_integral_of_the_bids_below(
    make: Make, some_ads: Ads, sigma: float
) -> None:
    second = params(make, pricing="second", competition_sigma=sigma)
    found = auction.expected_price(second, some_ads)
    for bid, middle, mean in zip(some_ads.bid, some_ads.market, found, strict=True):
        law = lognorm(sigma, scale=middle)
        area, _ = quad(lambda price, law=law: price * law.pdf(price), 0, bid, limit=200)
        assert mean == pytest.approx(area / law.cdf(bid), rel=1e-6)
    assert np.all(found < some_ads.bid)


def test_draws_of_the_second_price_have_its_mean_and_its_quantiles(
    make: Make, some_ads: Ads
) -> None:
    second = params(make, pricing="second")
    count = 200_000
    uniform = np.random.default_rng(0).random(count)
    for row in (0, 7):
        price = auction.paid(second, some_ads, np.full(count, row, np.int32), uniform)
        mean = auction.expected_price(second, some_ads)[row]
        assert price.mean() == pytest.approx(mean, abs=4 * price.std() / np.sqrt(count))
        assert price.max() <= some_ads.bid[row]
        law = lognorm(second.competition_sigma, scale=some_ads.market[row])
        middle = law.ppf(0.5 * law.cdf(some_ads.bid[row]))
        assert np.mean(price < middle) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(count))


def test_a_market_without_spread_has_one_price(make: Make, some_ads: Ads) -> None:
    second = params(make, pricing="second", competition_sigma=0.0)
    ads = replace(some_ads, market=np.where(np.arange(20) < 10, 0.4, 1.7) * some_ads.bid)
    rows = np.arange(20, dtype=np.int32)
    expected = np.where(rows < 10, np.rint(0.4 * ads.bid), ads.bid)
    np.testing.assert_array_equal(auction.paid(second, ads, rows, rows / 20), expected)
    np.testing.assert_array_equal(auction.expected_price(second, ads), expected)


def test_bids_by_hand(make: Make) -> None:
    """Half of 10 units a click; by impression, where 4 in 100 looks are clicks, 0.2."""
    even = {"bid_share": 0.5, "bid_sigma": 0.4}
    expected, normal = np.array([10e6, 10e6, 1.0]), np.array([0.0, 1.0, 0.0])
    clicks = auction.bids(params(make, charge="click", **even), 0.04, expected, normal)
    assert clicks.tolist() == [5_000_000, round(500 * np.exp(0.4)) * 10_000, 10_000]
    looks = auction.bids(params(make, charge="impression", **even), 0.04, expected, normal)
    assert looks.tolist() == [200_000, 300_000, 10_000]  # 0.2 e^0.4 = 0.298, in cents
    market = auction.market(params(make, competition=0.8, **even), 0.04, expected)
    np.testing.assert_allclose(market, [4e6, 4e6, 0.4])


def test_budgets_by_hand(make: Make) -> None:
    """100 shows a day are 5 clicks at 1 unit; a budget share of 2 makes it 10 units.

    A house ad has none."""
    bid = np.array([1_000_000, 1_000_000, 90_000_000, 1_000_000])
    normal, house = np.array([0.0, 1.0, -9.0, 0.0]), np.arange(4) == 3
    by_click = params(make, charge="click", budgets=True, budget_share=2.0)
    found = auction.budgets(by_click, bid, 0.05, 100.0, normal, house)
    assert found.tolist() == [10_000_000, round(1000 * np.exp(0.5)) * 10_000, 90_000_000, 0]
    by_look = params(make, charge="impression", budgets=True, budget_share=2.0)
    assert auction.budgets(by_look, bid, 0.05, 100.0, normal, house)[0] == 200_000_000
    assert not auction.budgets(params(make), bid, 0.05, 100.0, normal, house).any()


def budgeted(ads: Ads, *units: int) -> Ads:
    """The first ads, with budgets in units of currency."""
    count = len(units)
    few = {name: column[:count] for name, column in vars(ads).items()}
    return replace(ads, **(few | {"budget": np.array(units) * 1_000_000}))


ZERO, ONE, NOON = 0, MICROS_PER_HOUR, 12 * MICROS_PER_HOUR


def test_a_paced_budget_is_spent_in_step_with_the_traffic(make: Make, some_ads: Ads) -> None:
    """Of 178 shares of a day's visits 3 come in the first hour, 5 in the first two."""
    pacer = auction.Pacer(params(make, pacing=True), budgeted(some_ads, 178, 178, 0))
    day = WEEK.start
    assert pacer.hourly
    assert pacer.eligible(day + ZERO).tolist() == [True, True, True]
    pacer.record(np.array([0, 1, 2, 2]), np.array([3_000_000, 2_999_999, 10**9, 10**9]))
    assert pacer.eligible(day + ZERO).tolist() == [False, True, True]
    assert pacer.eligible(day + ONE).tolist() == [True, True, True]
    pacer.record(np.array([0, 1]), np.array([2_000_000, 172_000_000]))
    assert pacer.eligible(day + ONE).tolist() == [False, False, True]
    assert pacer.eligible(day + NOON).tolist() == [True, False, True]
    assert pacer.eligible(day + 23 * MICROS_PER_HOUR).tolist() == [True, True, True]
    pacer.record(np.array([1]), np.array([4_000_000]))
    assert pacer.eligible(day + 23 * MICROS_PER_HOUR).tolist() == [True, False, True]
    assert pacer.eligible(day + MICROS_PER_DAY).tolist() == [True, True, True]


def test_an_unpaced_budget_lasts_until_it_is_spent(make: Make, some_ads: Ads) -> None:
    pacer = auction.Pacer(params(make, pacing=False), budgeted(some_ads, 178, 10))
    pacer.eligible(WEEK.start)
    pacer.record(np.array([0, 1]), np.array([177_999_999, 10_000_000]))
    assert pacer.eligible(WEEK.start + ONE).tolist() == [True, False]
    pacer.record(np.array([0]), np.array([1]))
    # nobody has money left, and nobody comes back to fill a slate
    assert pacer.eligible(WEEK.start + ONE).tolist() == [False, False]


def test_an_ended_ad_is_not_eligible(make: Make, some_ads: Ads) -> None:
    few = budgeted(some_ads, 10, 10, 10)
    over, early = WEEK.start + ONE, np.array([ZERO, WEEK.start + NOON, ZERO])
    ended = replace(few, first=early, last=np.array([over, 2**62, 2**62]))
    pacer = auction.Pacer(params(make), ended)
    assert pacer.eligible(WEEK.start).tolist() == [True, False, True]
    assert pacer.eligible(over).tolist() == [False, False, True]
    assert pacer.eligible(WEEK.start + NOON).tolist() == [False, True, True]


def test_no_budgets_no_hours(make: Make, some_ads: Ads) -> None:
    assert not auction.Pacer(params(make), budgeted(some_ads, 0, 0)).hourly


@pytest.mark.parametrize("pacing", [True, False])
@pytest.mark.parametrize("charge", ["click", "impression"])
def test_no_ad_spends_more_than_its_budget_and_one_hour(
    make: Make, charge: str, pacing: bool
) -> None:
    """Nor is it shown in an hour that it enters with its share of the budget spent."""
    world = World(
        make(
            users=1000, requests_per_user_day=5.0, click_rate=0.2,
            charge=charge, pacing=pacing, budgets=True, budget_share=1.0,
        )
    )  # fmt: skip
    ads = world.ads(WEEK)
    shown = joined(list(serve(world, WEEK, logging_policy(world))))
    hour = (shown.requests.event_time - WEEK.start) // MICROS_PER_HOUR
    cells = np.repeat(hour, 3), shown.slates.ravel()
    spent, shows = np.zeros((2, 7 * 24, ads.ids.size))
    np.add.at(spent, cells, shown.outcome.cost.ravel())
    np.add.at(shows, cells, 1)
    spent, shows = spent.reshape(7, 24, -1), shows.reshape(7, 24, -1)
    before = np.cumsum(spent, axis=1) - spent
    share = np.cumsum(HOUR_SHARES)[:, None] if pacing else np.ones((24, 1))
    out = (before >= ads.budget * share) & (ads.budget > 0)
    assert out.any()
    assert (~out).sum(axis=2).min() >= 3
    assert not shows[out].any()
    # Three ads have no limit, so that a slate can always be filled.
    limited = ads.budget > 0
    assert (~limited).sum() == 3
    assert np.all((spent.sum(axis=1) <= ads.budget + spent.max(axis=1))[:, limited])
    late = before + spent <= ads.budget * share + spent.max(axis=1)[:, None]
    assert np.all(late[:, :, limited])
