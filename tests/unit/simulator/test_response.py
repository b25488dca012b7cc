"""What comes of slates, against hand-worked numbers and closed forms."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import ArrayLike

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import SimulatorParams
from roiflow.simulator import auction
from roiflow.simulator.population import Ads, Ints
from roiflow.simulator.response import Outcome, Response, examine, goes_on, happen
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")
COUNT = 100_000
CLICK, CONVERSION = np.array([0.6, 0.3, 0.2]), np.array([0.5, 0.4, 0.1])
CASCADE = {"model": "cascade", "after_click": 0.4, "after_skip": 0.8}


@dataclass(frozen=True)
class Drawn:
    """Many slates of random ads, each position with the same P(click) and P(conversion)."""

    params: SimulatorParams
    ads: Ads
    slates: Ints
    outcome: Outcome


def drawn(make: Make, **keys: object) -> Drawn:
    params = make(**keys)
    ads = World(params).ads(WEEK)
    slates = np.random.default_rng(0).integers(0, 20, (COUNT, 3), np.int32)
    price = auction.expected_price(params.auction, ads)[slates]
    truth = Response(
        click=np.tile(CLICK, (COUNT, 1)),
        conversion=np.tile(CONVERSION, (COUNT, 1)),
        revenue=ads.price[slates].astype(np.float64),
        click_cost=price,
        look_cost=np.zeros(slates.shape),
    )
    numbers = np.arange(COUNT)
    return Drawn(params, ads, slates, happen(params, WEEK, ads, truth, slates, numbers))


def close(rate: ArrayLike, expected: ArrayLike, count: float = COUNT) -> None:
    """Within 4 standard errors of a share of `count`."""
    share = np.asarray(expected)
    error = np.sqrt(share * (1 - share) / count)
    assert np.all(np.abs(np.asarray(rate) - share) <= 4 * error)


def test_positions_by_hand(make: Make) -> None:
    look = make(model="position_based", exponent=0.5).examination
    np.testing.assert_allclose(examine(look, CLICK[None]), [[1.0, 2**-0.5, 3**-0.5]])
    flat = make(model="position_based", exponent=0.0).examination
    np.testing.assert_array_equal(examine(flat, CLICK[None]), [[1.0, 1.0, 1.0]])


def test_the_cascade_by_hand(make: Make) -> None:
    """0.6 x 0.4 + 0.4 x 0.8 = 0.56 go on from the first; 0.3 x 0.4 + 0.7 x 0.8 from the second."""
    look = make(**CASCADE).examination
    np.testing.assert_allclose(goes_on(look, CLICK[None]), [[0.56, 0.68, 0.72]])
    np.testing.assert_allclose(examine(look, CLICK[None]), [[1.0, 0.56, 0.56 * 0.68]])


@pytest.mark.parametrize(
    ("keys", "seen"),
    [
        ({"exponent": 0.7}, [1.0, 2**-0.7, 3**-0.7]),
        (CASCADE, [1.0, 0.56, 0.56 * 0.68]),
        ({**CASCADE, "after_click": 0.0, "after_skip": 0.0}, [1.0, 0.0, 0.0]),
        ({**CASCADE, "after_click": 1.0, "after_skip": 1.0}, [1.0, 1.0, 1.0]),
    ],
)
def test_looks_and_clicks_have_their_closed_form(
    make: Make, keys: dict[str, object], seen: list[float]
) -> None:
    """Charged by impression, a cost tells who looked."""
    of = drawn(make, charge="impression", **keys)
    looked = of.outcome.cost > 0
    close(looked.mean(axis=0), np.array(seen))
    close(of.outcome.clicked.mean(axis=0), np.array(seen) * CLICK)
    assert not (of.outcome.clicked & ~looked).any()


def test_the_cascade_goes_on_after_clicks_and_skips_as_planted(make: Make) -> None:
    of = drawn(make, charge="impression", **CASCADE)
    looked, clicked = of.outcome.cost > 0, of.outcome.clicked
    for position in (0, 1):
        after = looked[:, position + 1]
        click, skip = clicked[:, position], looked[:, position] & ~clicked[:, position]
        close(after[click].mean(), 0.4, click.sum())
        close(after[skip].mean(), 0.8, skip.sum())
        assert not after[~looked[:, position]].any()


def test_positions_are_looked_at_apart(make: Make) -> None:
    looked = drawn(make, charge="impression", exponent=0.7).outcome.cost > 0
    both = (looked[:, 1] & looked[:, 2]).mean()
    close(both, 6**-0.7)


@pytest.mark.parametrize("pricing", ["first", "second"])
def test_a_click_is_charged_and_nothing_else(make: Make, pricing: str) -> None:
    of = drawn(make, charge="click", pricing=pricing)
    clicked, cost = of.outcome.clicked, of.outcome.cost
    np.testing.assert_array_equal(cost > 0, clicked)
    mean = auction.expected_price(of.params.auction, of.ads)[of.slates[clicked]].mean()
    assert cost[clicked].mean() == pytest.approx(mean, rel=0.01)
    bid = of.ads.bid[of.slates[clicked]]
    if pricing == "first":
        np.testing.assert_array_equal(cost[clicked], bid)
    else:
        assert np.all(cost[clicked] <= bid)


def test_clicks_convert_as_planted(make: Make) -> None:
    of = drawn(make)
    won = np.isin(np.arange(of.slates.size), of.outcome.converted).reshape(of.slates.shape)
    assert not (won & ~of.outcome.clicked).any()
    for position in range(3):
        clicked = of.outcome.clicked[:, position]
        close(won[clicked, position].mean(), CONVERSION[position], clicked.sum())


def test_delays_are_exponential_and_cut_at_the_window(make: Make) -> None:
    """Mean and median of each category, which has one mean delay for all of its ads."""
    of = drawn(make, delay_hours=[5.0, 60.0], attribution_days=4)
    window = 96.0
    hours = of.outcome.delay / MICROS_PER_HOUR
    planted = of.ads.delay[of.slates.ravel()[of.outcome.converted]]
    assert hours.min() > 0
    assert hours.max() <= window
    np.testing.assert_allclose(np.unique(of.ads.delay), np.geomspace(5, 60, 4))
    for mean in np.unique(planted):
        mine = hours[planted == mean]
        cut = np.exp(-window / mean)
        assert mine.mean() == pytest.approx(
            mean - window * cut / (1 - cut), abs=4 * mine.std() / np.sqrt(mine.size)
        )
        middle = -mean * np.log(1 - (1 - cut) / 2)
        close(np.mean(mine < middle), 0.5, mine.size)


def test_revenue_has_the_price_as_its_mean_and_a_log_normal_tail(make: Make) -> None:
    of = drawn(make, revenue_sigma=0.4)
    ratio = of.outcome.revenue / of.ads.price[of.slates.ravel()[of.outcome.converted]]
    count = ratio.size
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(count))
    assert np.log(ratio).mean() == pytest.approx(-0.08, abs=4 * 0.4 / np.sqrt(count))
    assert np.log(ratio).std() == pytest.approx(0.4, abs=4 * 0.4 / np.sqrt(2 * count))
    close(np.mean(ratio > np.exp(-0.08 + 0.4 * 1.6449)), 0.05, count)


def test_revenue_without_spread_is_the_price(make: Make) -> None:
    of = drawn(make, revenue_sigma=0.0)
    price = of.ads.price[of.slates.ravel()[of.outcome.converted]]
    np.testing.assert_array_equal(of.outcome.revenue, price)


def test_a_share_is_returned_within_its_days(make: Make) -> None:
    of = drawn(make, return_rate=0.2, return_days=5)
    sold, back = of.outcome.converted.size, of.outcome.returned
    assert np.all(np.diff(back) > 0)
    close(back.size / sold, 0.2, sold)
    days = of.outcome.kept / MICROS_PER_DAY
    assert days.min() > 0
    assert days.max() <= 5.0
    assert days.mean() == pytest.approx(2.5, abs=4 * 5 / np.sqrt(12 * back.size))
    net = of.outcome.revenue.sum() - of.outcome.revenue[back].sum()
    price = of.ads.price[of.slates.ravel()[of.outcome.converted]].sum()
    assert net / price == pytest.approx(0.8, rel=0.02)


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_nothing_or_everything_is_returned(make: Make, rate: float, share: float) -> None:
    outcome = drawn(make, return_rate=rate).outcome
    assert outcome.returned.size == share * outcome.converted.size


def test_a_draw_depends_on_its_request_alone(make: Make) -> None:
    """Requests in another order, or without the others, come to the same."""
    world = World(make(click_rate=0.3, conversion_rate=0.5, return_rate=0.5, pricing="second"))
    requests = world.requests(WEEK)
    slates = np.random.default_rng(0).permuted(
        np.tile(np.arange(20, dtype=np.int32), (requests.number.size, 1)), axis=1
    )[:, :3]
    whole = world.happen(WEEK, requests, slates)
    rows = np.arange(40, 90)
    part = world.happen(WEEK, requests.take(rows), slates[rows])
    np.testing.assert_array_equal(part.clicked, whole.clicked[rows])
    np.testing.assert_array_equal(part.cost, whole.cost[rows])
    inside = (whole.converted >= 40 * 3) & (whole.converted < 90 * 3)
    np.testing.assert_array_equal(part.converted + 40 * 3, whole.converted[inside])
    np.testing.assert_array_equal(part.delay, whole.delay[inside])
    np.testing.assert_array_equal(part.revenue, whole.revenue[inside])
    back = inside[whole.returned]
    np.testing.assert_array_equal(
        part.converted[part.returned] + 120, whole.converted[whole.returned][back]
    )
    np.testing.assert_array_equal(part.kept, whole.kept[back])
    assert part.converted.size
    assert part.returned.size
