"""A panel of three households that shop every week, small enough to work out by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow.data.sources.complete_journey import PROFILE, CompleteJourney
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ParamsError, UnknownWeek
from roiflow.params import SimulatorParams, load_params
from roiflow.simulator.noise import Longs
from roiflow.simulator.panel import PanelPopulation
from roiflow.simulator.population import Ads, WorldRequests, logit
from roiflow.simulator.scenarios.effects import Effects

ROOT = Path(__file__).parents[3]
FIRST = Week(2017, 4)  # panel week 5: two weeks of history, one to train on, the short first one
WEEK = Week(2017, 10)
SUMMER = (datetime(2017, 3, 12, tzinfo=UTC), datetime(2017, 11, 5, tzinfo=UTC))

PRODUCTS = [
    # id, manufacturer, department, brand, category, type
    (10, 1, "GROCERY", "National", "MILK", "WHOLE MILK"),
    (11, 2, "GROCERY", "Private", "MILK", "WHOLE MILK"),
    (12, 2, "GROCERY", "Private", "MILK", "WHOLE MILK"),
    (20, 1, "GROCERY", "National", "BREAD", "RYE"),
    (30, 3, "FUEL", "National", "FUEL", "GASOLINE"),
    (40, 3, "GROCERY", "National", None, None),
]

Line = tuple[int, int, datetime, float, int]
"""Household, product, time on New York's clock, dollars, quantity."""


def week_lines(week: int) -> list[Line]:
    """A panel week's: household 1 on Tuesday and Friday, 2 on Wednesday, 10 every other Sunday."""
    monday = datetime(2016, 12, 26, tzinfo=UTC) + timedelta(weeks=week - 1)
    tuesday, wednesday = monday + timedelta(days=1, hours=12), monday + timedelta(days=2, hours=9)
    friday, sunday = monday + timedelta(days=4, hours=18), monday + timedelta(days=6, hours=15)
    rows = [
        (1, 10, tuesday, 2.0 + 0.5 * (week % 2), 1),
        (1, 20, tuesday, 3.0, 2),
        (1, 10, friday, 2.0, 1),
        (1, 30, friday, 25.0, 9000),
        (2, 11, wednesday, 4.0, 1),
        (2, 40, wednesday, 1.0, 1),
    ]
    return rows + ([(10, 20, sunday, 1.5, 1), (10, 12, sunday, 6.0, 1)] if week % 2 else [])


def panel_lines() -> list[Line]:
    """Panel weeks 2 to 53, and household 7, which comes late."""
    lines = [line for week in range(2, 54) for line in week_lines(week)]
    return [*lines, (7, 20, datetime(2017, 6, 1, 12, tzinfo=UTC), 1.0, 1)]


def write_panel(folder: Path, lines: list[Line]) -> CompleteJourney:
    """The package's files; New York is 5 hours behind UTC, 4 in summer."""
    folder.mkdir(exist_ok=True)
    names = [
        "product_id",
        "manufacturer_id",
        "department",
        "brand",
        "product_category",
        "product_type",
    ]
    columns = map(list, zip(*PRODUCTS, strict=True))
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), folder / "products.parquet")
    rows = []
    for household, product, time, sales, quantity in lines:
        summer = SUMMER[0] <= time < SUMMER[1]
        rows.append(
            {
                "household_id": household,
                "store_id": 5,
                "product_id": product,
                "quantity": quantity,
                "sales_value": sales,
                "retail_disc": 0.0,
                "coupon_disc": 0.0,
                "coupon_match_disc": 0.0,
                "transaction_timestamp": time.replace(tzinfo=None)
                + timedelta(hours=4 if summer else 5),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "transactions.parquet")
    known = {"household_id": [2], **{name: [f"{name} 2"] for name in PROFILE}}
    pq.write_table(pa.table(known), folder / "demographics.parquet")
    return CompleteJourney(folder, 2)


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> CompleteJourney:
    return write_panel(tmp_path_factory.mktemp("panel"), panel_lines())


def params_of(**keys: Any) -> SimulatorParams:
    shipped = load_params(ROOT / "params.yaml").ingest.simulator.model_dump()
    panel = shipped["panel"] | {
        "products": 3,
        "requests_per_visit": 50.0,
        "history_weeks": 2,
        "training_weeks": 1,
    }
    small = {"world": "panel", "scenario": "stationary", "slate_size": 2, "panel": panel}
    return SimulatorParams.model_validate(shipped | small | keys)


Build = Callable[..., PanelPopulation]


@pytest.fixture(scope="module")
def build(journey: CompleteJourney) -> Build:
    return lambda **keys: PanelPopulation(params_of(**keys), journey)


@pytest.fixture(scope="module")
def population(build: Build) -> PanelPopulation:
    return build()


def at(week: Week, day: int, hour: int) -> int:
    return week.start + day * MICROS_PER_DAY + hour * MICROS_PER_HOUR


def request(user: int, time: int) -> WorldRequests:
    one = np.zeros(1, np.int32)
    return WorldRequests(one.astype(np.int64), np.array([time]), one + user, one, one)


def test_weeks_leave_room_for_history_and_training(build: Build) -> None:
    assert (build().first_week, build().last_week) == (FIRST, Week(2017, 52))
    with pytest.raises(UnknownWeek, match=r"2017-W04 to 2017-W52 .* not 2017-W03"):
        build().ads(Week(2017, 3), Effects())
    with pytest.raises(UnknownWeek, match="not 2018-W01"):
        build().requests(Week(2018, 1), Effects())


def test_too_long_a_history_is_refused(build: Build) -> None:
    panel = {**params_of().panel.model_dump(), "history_weeks": 51}
    with pytest.raises(ParamsError, match=r"history_weeks: at most 50, .* \(value 51\)"):
        build(panel=panel)


def test_too_long_a_slate_is_refused(build: Build) -> None:
    with pytest.raises(ParamsError, match=r"slate_size: there are only 3 .* \(value 4\)"):
        _ = build(slate_size=4).catalogue


def test_users_are_sorted_as_text_and_come_when_they_first_shop(
    population: PanelPopulation,
) -> None:
    assert population.user_ids.tolist() == ["1", "10", "2", "7"]
    rows, profile = population.users(WEEK)
    assert rows.tolist() == [0, 1, 2]
    assert set(profile) == set(PROFILE)
    assert profile["age"].tolist() == ["unknown", "unknown", "age 2"]
    assert population.users(Week(2017, 22))[0].tolist() == [0, 1, 2, 3]


def test_ads_are_the_best_products_with_the_panels_attributes(
    population: PanelPopulation,
) -> None:
    ads = population.ads(WEEK, Effects())
    live = (ads.first <= WEEK.start) & (WEEK.start < ads.last)
    assert population.categories.tolist() == ["WHOLE MILK"]  # 3 ads are one category
    assert ads.ids[live].tolist() == ["10", "11", "12"]
    assert ads.campaign[live].tolist() == ["MILK"] * 3
    assert ads.advertiser[live].tolist() == ["1", "2", "2"]
    assert ads.brand[live].tolist() == ["National", "Private", "Private"]


def test_prices_are_the_mean_of_the_weeks_before(population: PanelPopulation) -> None:
    # Product 10 costs 2.00 or 2.50 on Tuesdays in turn and 2.00 on Fridays, from week 2 on.
    for week, tuesdays in ((FIRST, [2.0, 2.5, 2.0]), (FIRST.plus(1), [2.0, 2.5, 2.0, 2.5])):
        mean = (sum(tuesdays) + 2.0 * len(tuesdays)) / (2 * len(tuesdays))
        assert population.ads(week, Effects()).price[0] == round(mean * 1e6)


def test_rows_of_ads_stay_in_later_weeks(build: Build) -> None:
    panel = {**params_of().panel.model_dump(), "products": 1}
    population = build(panel=panel, slate_size=1)
    early, late = (population.ads(week, Effects()) for week in (FIRST, Week(2017, 52)))
    assert early.ids.tolist() == late.ids.tolist() == ["10", "11", "12"]
    for name in ("category", "ad_type", "click", "conversion", "delay"):
        assert np.array_equal(getattr(early, name), getattr(late, name))
    assert ((early.first <= FIRST.start) & (FIRST.start < early.last)).tolist() == [True, 0, 0]


def test_scenarios_change_prices_budgets_and_ends_but_no_bid(population: PanelPopulation) -> None:
    plain = population.ads(WEEK, Effects())
    stop = at(WEEK, 3, 0)
    changed = population.ads(WEEK, Effects(price=1.5, budget=0.5, stopped=(0, stop)))
    assert np.array_equal(changed.price, np.rint(1.5 * plain.price))
    assert np.array_equal(changed.budget, np.rint(0.5 * plain.budget))
    assert np.array_equal(changed.bid, plain.bid)
    assert (changed.last == stop).tolist() == [False, True, True]  # advertiser 2 has most


def test_a_slate_of_the_live_ads_has_no_budget(build: Build) -> None:
    """So that a slate can always be filled: of those that live, whatever will live later."""
    auction = params_of().auction.model_dump() | {"budgets": True}
    for slots in (1, 2):
        population = build(auction=auction, slate_size=slots)
        for week in (WEEK, Week(2017, 52)):
            ads = population.ads(week, Effects())
            live = (ads.first <= week.start) & (week.start < ads.last)
            house = ads.budget == 0
            assert house.sum() == slots
            assert live[house].sum() == min(slots, live.sum())
            assert (ads.budget[~house] >= ads.bid[~house]).all()
    assert not build(auction=auction | {"budgets": False}).ads(WEEK, Effects()).budget.any()


def test_behaviours_are_the_real_purchases_of_the_categories(population: PanelPopulation) -> None:
    week = Week(2017, 1)
    while week < WEEK:
        week = week.plus(2)
    found = population.behaviours(week, Effects())  # an odd week of the pattern, or an even one
    ids = population.ads(week, Effects()).ids
    days = (found.event_time - week.start) / MICROS_PER_DAY
    expected = [("1", "10", 1.5), ("2", "11", 2.375), ("1", "10", 4.75), ("10", "12", 6.625)]
    rows = list(zip(population.user_ids[found.user], ids[found.ad], days.tolist(), strict=True))
    assert rows in (expected, expected[:3])
    assert set(found.action.tolist()) == {4}


def views(population: PanelPopulation, effects: Effects | None = None) -> WorldRequests:
    return population.requests(WEEK, effects or Effects())


def test_views_are_drawn_around_the_real_baskets(population: PanelPopulation) -> None:
    found = views(population)
    count = np.bincount(found.user_index, minlength=4)
    assert count[3] == 0  # household 7 does not shop
    assert abs(count[0] - 100) < 5 * np.sqrt(100)  # two baskets
    assert abs(count[2] - 50) < 5 * np.sqrt(50)
    assert (np.diff(found.event_time) >= 0).all()
    assert (found.event_time % 2 == 1).all()
    assert ((found.event_time >= WEEK.start) & (found.event_time < WEEK.end)).all()
    assert found.number.tolist() == [*range(found.number.size)]


def test_most_views_are_in_the_hours_before_the_basket(build: Build) -> None:
    panel = {**params_of().panel.model_dump(), "requests_per_visit": 3000.0}
    found = views(build(panel=panel))
    mine = found.event_time[found.user_index == 2]  # household 2 shops on Wednesday at 9
    lead = (at(WEEK, 2, 9) - mine) / MICROS_PER_HOUR
    near = ((lead >= 0) & (lead < 12)).mean()
    # 70 % exponential with mean 3 hours, 30 % anywhere: of those, about half a day in seven.
    assert near == pytest.approx(0.7 * (1 - np.exp(-4)) + 0.3 * 0.5 / 7, abs=0.02)


def test_traffic_and_bots_change_the_number_of_views(population: PanelPopulation) -> None:
    wednesday = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    assert not (views(population, Effects(traffic=wednesday)).user_index == 2).any()
    more = views(population, Effects(bots=1.0)).number.size / views(population).number.size
    assert more == pytest.approx(10, rel=0.25)


def test_the_same_seed_gives_the_same_requests(build: Build) -> None:
    one, same, other = views(build()), views(build()), views(build(seed=8))
    for name, column in vars(one).items():
        assert np.array_equal(column, getattr(same, name))
    assert one.number.size != other.number.size


def test_need_halves_every_twelve_hours_ahead_of_the_real_purchase(
    population: PanelPopulation,
) -> None:
    times = np.array([at(WEEK, 1, 0), at(WEEK, 1, 12), at(WEEK, 1, 13), at(WEEK, 4, 19)])
    found = population.need(WEEK, np.zeros(4, np.int32), times)[:, 0]
    until_friday = (3 * 24 + 5) / 12
    assert found.tolist() == pytest.approx([0.5, 1.0, 2**-until_friday, 0.0])
    nobody = population.need(WEEK, np.array([3, 2], np.int32), np.array([WEEK.start] * 2))[:, 0]
    assert nobody.tolist() == pytest.approx([0.0, 2 ** -(57 / 12)])


def odds(
    population: PanelPopulation, user: int, time: int, effects: Effects | None = None
) -> tuple[Longs, Longs, Ads]:
    effects = effects or Effects()
    ads = population.ads(WEEK, effects)
    rows = np.arange(3, dtype=np.int32)[None]
    click, conversion = population.log_odds(request(user, time), ads, rows, effects)
    return click[0], conversion[0], ads


def test_the_log_odds_add_up(build: Build) -> None:
    time = at(WEEK, 0, 21)  # 15 hours before household 1 buys milk
    none = build(interest_weight=0.0, intent_weight=0.0)
    click, _, ads = odds(none, 0, time)
    known = logit(none.params.click_rate) + 0.15 + ads.click  # 21:00 is the best hour, in the feed
    creative = np.array([0.1, 0.35, -0.3])[ads.ad_type]  # on a mobile phone
    rest = click - known - creative
    assert rest == pytest.approx(np.full(3, rest[0]))  # the household's own
    needing, _, _ = odds(build(interest_weight=0.0, intent_weight=2.0), 0, time)
    assert needing - click == pytest.approx(np.full(3, 2.0 * 2 ** -(15 / 12)))
    interest = odds(build(interest_weight=1.0, intent_weight=0.0), 0, time)[0] - click
    twice = odds(build(interest_weight=2.0, intent_weight=0.0), 0, time)[0] - click
    assert twice == pytest.approx(2 * interest)
    assert interest.mean() == pytest.approx(0.0, abs=1e-12)


def test_households_want_what_they_bought(build: Build) -> None:
    population = build(interest_weight=1.0, intent_weight=0.0)
    plain = build(interest_weight=0.0, intent_weight=0.0)
    time = at(WEEK, 0, 10)
    interest = [odds(population, user, time)[0] - odds(plain, user, time)[0] for user in (0, 2)]
    assert interest[0].argmax() == 0  # household 1 buys product 10
    assert interest[1].argmax() == 1  # household 2 buys product 11


def test_conversions_follow_interest_need_and_the_weekday(build: Build) -> None:
    population = build(interest_weight=1.0, intent_weight=1.0)
    plain = build(interest_weight=0.0, intent_weight=0.0)
    time = at(WEEK, 1, 0)
    _, conversion, ads = odds(population, 0, time)
    moved = odds(population, 0, time)[0] - odds(plain, 0, time)[0]  # interest + need
    interest = moved - 0.5
    rest = conversion - 0.6 * interest - 0.5 * 0.5 - ads.conversion
    assert rest == pytest.approx(np.full(3, rest[0]))
    added = Effects(conversion=np.array([9.0, 0.25, 9.0, 9.0, 9.0, 9.0, 9.0]))
    assert odds(population, 0, time, added)[1] - conversion == pytest.approx(np.full(3, 0.25))


def test_interests_that_turn_by_a_right_angle_are_another_households(build: Build) -> None:
    population = build(interest_weight=1.0, intent_weight=0.0)
    plain = build(interest_weight=0.0, intent_weight=0.0)
    time = at(WEEK, 0, 10)
    own = [odds(population, user, time)[0] - odds(plain, user, time)[0] for user in range(4)]
    turned = odds(population, 0, time, Effects(turn=np.pi / 2))[0] - odds(plain, 0, time)[0]
    assert any(turned == pytest.approx(other) for other in own)
    back = odds(population, 0, time, Effects(turn=np.pi))[0] - odds(plain, 0, time)[0]
    assert back == pytest.approx(-own[0])


def test_nothing_that_is_bought_in_the_week_or_later_reaches_the_interest(tmp_path: Path) -> None:
    start = datetime(2017, 3, 6, tzinfo=UTC)  # WEEK's Monday
    lines = panel_lines()
    shuffled = [
        (household, 11 if product == 10 else product, time, 9 * sales, quantity)
        if time >= start
        else (household, product, time, sales, quantity)
        for household, product, time, sales, quantity in lines
    ]
    found = [
        PanelPopulation(params_of(intent_weight=0.0), write_panel(tmp_path / name, rows))
        for name, rows in (("real", lines), ("other", shuffled))
    ]
    time = at(WEEK, 0, 10)
    for user in range(3):
        real, other = (odds(population, user, time) for population in found)
        assert np.array_equal(real[0], other[0])
        assert np.array_equal(real[2].price, other[2].price)
        assert np.array_equal(real[2].first, other[2].first)


def test_no_request_has_no_odds(population: PanelPopulation) -> None:
    none = views(population).take(slice(0, 0))
    rows = np.zeros((0, 3), np.int32)
    click, conversion = population.log_odds(none, population.ads(WEEK, Effects()), rows, Effects())
    assert click.shape == conversion.shape == (0, 3)


def test_a_week_is_a_week(population: PanelPopulation) -> None:
    assert WEEK.end - WEEK.start == MICROS_PER_WEEK
    fit = population.held_out_fit(WEEK)
    assert fit.pairs % 3 == 0
    assert 0 < fit.purchases < fit.pairs
