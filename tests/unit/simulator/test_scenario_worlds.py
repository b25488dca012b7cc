"""Each scenario is found in the world, or in its log, where it was put and nowhere else."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.data import lake
from roiflow.data.sources.protocol import Tables
from roiflow.data.validate import Checked, RawWindow, validate
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.evaluation.estimators.diagnostics import diagnose, doubts
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.params import SimulatorParams, load_params
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.population import Ints
from roiflow.simulator.run import DELAYED
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.scenarios.bot_traffic import SHARE
from roiflow.simulator.scenarios.holiday import CONVERSION, TRAFFIC
from roiflow.simulator.source import SimulatorSource
from roiflow.simulator.synthetic import SyntheticPopulation
from roiflow.simulator.synthetic_draws import AGE_INTEREST
from roiflow.simulator.truth import expected_value_of
from roiflow.simulator.world import World
from tests.unit.data.worlds import bounds
from tests.worlds import SHIPPED

FIRST = Week.parse("2026-W01")
BEFORE, SHOCK, AFTER = FIRST.plus(1), FIRST.plus(2), FIRST.plus(3)
WEEKS = (FIRST, BEFORE, SHOCK, AFTER)
PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")


@cache
def params(scenario: str, **keys: float) -> SimulatorParams:
    """A world in which nothing changes but what the scenario changes: no births, ends or feasts."""
    shipped = SHIPPED.model_dump()
    still = {
        "users": 300, "ads": 20, "categories": 4, "holidays": [], "fatigue": 0.0,
        "new_ads_per_week": 0, "ad_weeks": 1e6, "newcomers": 0.0, "churn": 0.0,
    }  # fmt: skip
    auction = shipped["auction"] | {
        "budgets": scenario == "budget_cut" or "budget_share" in keys,
        "budget_share": keys.pop("budget_share", 1000.0),
    }
    synthetic = shipped["synthetic"] | still
    synthetic |= {name: keys.pop(name) for name in list(keys) if name in synthetic}
    often = {"click_rate": 0.15, "conversion_rate": 0.3, "first_week": str(FIRST)}
    named = {"scenario": scenario, "shock_week": str(SHOCK), "auction": auction}
    return SimulatorParams.model_validate(shipped | often | named | keys | {"synthetic": synthetic})


@cache
def world(scenario: str) -> World:
    return World(params(scenario))


@cache
def pulled(scenario: str) -> dict[Week, Tables]:
    """What arrives, with the two weeks in which the last one's events are known."""
    source = SimulatorSource(params(scenario), Path("/nonexistent"))
    return {week: source.pull(week, week.end) for week in (*WEEKS, AFTER.plus(1), AFTER.plus(2))}


def micros(rows: pa.Table, name: str = "event_time") -> Longs:
    times: Longs = rows[name].cast(pa.int64()).to_numpy()
    return times


def log_odds(probability: Floats) -> Floats:
    return np.asarray(np.log(probability) - np.log1p(-probability), np.float64)


def every_ad(of: World, week: Week) -> Ints:
    """Rows (B, A)."""
    ads = np.arange(of.ads(week).ids.size, dtype=np.int32)
    return np.broadcast_to(ads, (of.requests(week).number.size, ads.size)).copy()


# The world


def test_a_stationary_world_is_worth_the_same_every_week() -> None:
    """Per impression, within what the draw of the requests explains; slow drift is not."""
    still = World(params("stationary", users=2000))
    policy = logging_policy(still)
    rates = []
    for number in range(1, 7):
        truth, _ = expected_value_of(still, FIRST.plus(number), policy)
        rates.append([truth[name] / truth["impressions"] for name in ("clicks", "cost", "revenue")])
    spread = np.std(rates, axis=0) / np.mean(rates, axis=0)
    assert (spread < 0.02).all()


def test_slow_drift_turns_interests_by_its_angle_each_week() -> None:
    """cos(angle) of the turning part's variance is kept, the common part stays whole."""
    population = SyntheticPopulation(params("slow_drift", users=4000))
    common = AGE_INTEREST**2
    first = population.interest(0.0).ravel()
    for weeks in (1, 5, 10):
        turn = SCENARIOS["slow_drift"].effects(population.params, FIRST.plus(weeks)).turn
        found = np.corrcoef(first, population.interest(turn).ravel())[0, 1]
        assert found == pytest.approx(common + (1 - common) * np.cos(0.1 * weeks), abs=0.03)


def test_concept_drift_makes_own_interests_strangers_to_what_they_were() -> None:
    changed = World(params("concept_drift", users=4000))
    population = changed.population
    assert isinstance(population, SyntheticPopulation)
    common = population.state.common

    def own(week: Week) -> Floats:
        turned = population.interest(changed.effects(week).turn)
        return np.asarray(turned - common, np.float64).ravel()

    assert own(FIRST) == pytest.approx(own(BEFORE), abs=0)
    assert own(SHOCK) == pytest.approx(own(AFTER), abs=0)
    correlation = np.corrcoef(own(BEFORE), own(SHOCK))[0, 1]
    assert abs(correlation) < 4 / np.sqrt(common.size)


def test_concept_drift_moves_the_clicks() -> None:
    """The same users' log odds of the same ads: alike from week to week, not across the shock."""
    changed, still = world("concept_drift"), world("stationary")

    def odds(of: World, week: Week) -> Floats:
        requests, rows = still.requests(week), every_ad(still, week)
        no_intent = requests.take(np.arange(min(requests.number.size, 400)))
        return log_odds(of.respond(no_intent, rows[: no_intent.number.size]).click)

    assert odds(changed, BEFORE) == pytest.approx(odds(still, BEFORE), abs=0)
    apart = np.corrcoef(odds(changed, AFTER).ravel(), odds(still, AFTER).ravel())[0, 1]
    assert apart < 0.7


def test_a_price_shock_moves_prices_and_demand_and_no_bid() -> None:
    changed, still = world("price_shock"), world("stationary")
    assert (changed.ads(BEFORE).price == still.ads(BEFORE).price).all()
    for week in (SHOCK, AFTER):
        new, old = changed.ads(week), still.ads(week)
        # Both are rounded to whole cents, of 10,000 micros each: half a cent times 1 + 1.5.
        assert np.abs(new.price - 1.5 * old.price).max() <= 12_500
        assert (new.bid == old.bid).all()
        assert (new.click == old.click).all()
        requests, rows = still.requests(week), every_ad(still, week)
        one, other = changed.respond(requests, rows), still.respond(requests, rows)
        fall = log_odds(one.conversion) - log_odds(other.conversion)
        assert fall == pytest.approx(np.full(fall.shape, -1.5 * np.log(1.5)), abs=1e-9)
        assert one.click == pytest.approx(other.click, abs=1e-12)


def test_bots_visit_10_times_as_often_click_nearly_all_and_buy_nothing() -> None:
    """Draws have addresses: whoever visits otherwise than in the still world is a bot."""
    changed, still = (
        World(params("bot_traffic", users=3000)),
        World(params("stationary", users=3000)),
    )

    def visits(of: World, week: Week) -> Longs:
        return np.bincount(of.requests(week).user_index, minlength=of.user_ids.size)

    assert (visits(changed, BEFORE) == visits(still, BEFORE)).all()
    new, old = visits(changed, SHOCK), visits(still, SHOCK)
    bots = np.flatnonzero(new != old)
    assert bots.size == pytest.approx(SHARE * 3000, abs=4 * np.sqrt(SHARE * 3000))
    assert new[bots].sum() / old[bots].sum() == pytest.approx(10, rel=0.15)
    requests = changed.requests(SHOCK)
    rows = np.zeros((requests.number.size, 1), np.int32)
    truth, bot = changed.respond(requests, rows), np.isin(requests.user_index, bots)
    assert (truth.click[bot] == 0.9).all()
    assert truth.conversion[bot].max() < 1e-6
    assert truth.click[~bot].max() < 0.9
    outcome = changed.happen(SHOCK, requests, rows)
    assert outcome.clicked[bot].mean() == pytest.approx(0.9, abs=0.02)
    assert not bot[outcome.converted].any()


def test_the_biggest_advertiser_is_shown_until_it_dies_and_never_after() -> None:
    ads = world("stationary").ads(SHOCK)
    known, count = np.unique(ads.advertiser, return_counts=True)
    biggest = known[count.argmax()]
    own = ads.ids[ads.advertiser == biggest].tolist()
    dies = SHOCK.start + 3 * MICROS_PER_DAY

    def times(scenario: str) -> Longs:
        rows = pa.concat_tables([tables["impressions"] for tables in pulled(scenario).values()])
        return micros(rows.filter(pc.is_in(rows["ad_id"], value_set=pa.array(own))))

    after_all = times("stationary")
    assert (after_all >= dies).sum() > 100
    shown = times("dead_advertiser")
    assert shown.max() < dies
    assert dies - shown.max() < 12 * MICROS_PER_HOUR
    assert (shown < SHOCK.start).sum() == (after_all < SHOCK.start).sum()
    catalogue = pulled("dead_advertiser")[AFTER]["ads"]["ad_id"].to_pylist()
    assert set(own) <= set(pulled("dead_advertiser")[SHOCK]["ads"]["ad_id"].to_pylist())
    assert not set(own) & set(catalogue) or set(own) <= set(catalogue)


def test_a_budget_cut_leaves_less_to_spend() -> None:
    """Most of all to the ads that spent most; the still world's budgets hardly bind."""
    keys = {"budget_share": 2.0, "users": 600}
    changed, still = (
        SimulatorSource(params(name, **keys), Path("/nonexistent"))
        for name in ("budget_cut", "stationary")
    )

    def spend(source: SimulatorSource, week: Week) -> dict[str, int]:
        rows = source.pull(week, week.end)["impressions"].group_by("ad_id")
        sums = rows.aggregate([("cost_micros", "sum")])
        return dict(zip(*(sums[name].to_pylist() for name in sums.column_names), strict=True))

    assert spend(changed, BEFORE) == spend(still, BEFORE)
    new, old = spend(changed, SHOCK), spend(still, SHOCK)
    assert sum(new.values()) < 0.85 * sum(old.values())
    top = max(old, key=lambda ad: old[ad])
    assert new[top] < 0.6 * old[top]
    after, before = (one.pull(SHOCK, SHOCK.end)["ads"] for one in (changed, still))
    cut, full = (rows["daily_budget_micros"].to_numpy() for rows in (after, before))
    bid = before["bid_micros"].to_numpy()
    kept = cut > bid  # no budget falls under one click
    assert kept.sum() > 15
    assert cut[kept] / full[kept] == pytest.approx(np.full(kept.sum(), 0.3), rel=0.01)
    assert (after["bid_micros"].to_numpy() == bid).all()


def test_rich_budgets_do_not_feel_the_cut() -> None:
    """Nobody spends a thousand times an equal share: only what the catalogue says is cut."""
    for week, tables in pulled("budget_cut").items():
        for name, rows in pulled("stationary")[week].items():
            if name != "ads":
                assert tables[name] == rows


def test_a_holiday_brings_its_factors() -> None:
    changed, still = (World(params(name, users=3000)) for name in ("holiday", "stationary"))
    for week in (BEFORE, AFTER):
        assert (changed.requests(week).event_time == still.requests(week).event_time).all()
    by_day = [
        np.bincount((of.requests(SHOCK).event_time - SHOCK.start) // MICROS_PER_DAY, minlength=7)
        for of in (changed, still)
    ]
    ratio, error = by_day[0] / by_day[1], 2 / np.sqrt(by_day[1])
    assert (np.abs(ratio - TRAFFIC) < 4 * error).all()
    requests, rows = still.requests(SHOCK), every_ad(still, SHOCK)[:, :3]
    more = log_odds(changed.respond(requests, rows).conversion)
    more -= log_odds(still.respond(requests, rows).conversion)
    weekday = (requests.event_time - SHOCK.start) // MICROS_PER_DAY
    wanted = np.array(CONVERSION)[weekday][:, None] * np.ones(3)
    assert more == pytest.approx(wanted, abs=1e-9)


# The log


def by_key(rows: pa.Table) -> pa.Table:
    """Without the time of arrival, and in an order of its own."""
    return (
        rows.drop(["known_time"])
        .sort_by(
            [(name, "ascending") for name in rows.column_names[2:5]] + [("event_time", "ascending")]
        )
        .combine_chunks()
    )


@pytest.mark.parametrize("name", sorted(DELAYED))
def test_a_late_back_fill_brings_each_event_exactly_once(name: str) -> None:
    still, late = (
        pa.concat_tables([tables[name] for tables in pulled(scenario).values()])
        for scenario in ("stationary", "late_backfill")
    )
    assert by_key(late) == by_key(still)
    effects = SCENARIOS["late_backfill"].effects(params("late_backfill"), SHOCK)
    assert effects.outage is not None
    start, end, known = effects.outage
    happened, arrived = micros(late), micros(late, "known_time")
    hidden = (start <= happened) & (happened < end)
    assert hidden.sum() > 30
    assert (arrived[hidden] == known).all()
    lag = arrived[~hidden] - happened[~hidden]
    assert lag.min() > 0
    assert lag.max() <= MICROS_PER_HOUR
    for week, tables in pulled("late_backfill").items():
        times = micros(tables[name], "known_time")
        assert ((week.start <= times) & (times < week.end)).all()


@pytest.mark.parametrize("scenario", ["logging_bug", "duplicated_hour", "time_zone_shift"])
def test_a_fault_of_the_log_is_in_the_shock_week_alone(scenario: str) -> None:
    """And the truth stays as it was: it is SCENARIOS[...].arrive of the still world's log."""
    for week, tables in pulled(scenario).items():
        sound = pulled("stationary")[week]
        wanted = SCENARIOS[scenario].arrive(params(scenario), week, sound)
        for name, rows in tables.items():
            assert rows == wanted[name]
            assert (rows == sound[name]) == (week != SHOCK or wanted[name] is sound[name])


@pytest.mark.parametrize("scenario", ["logging_bug", "duplicated_hour", "time_zone_shift"])
def test_a_fault_of_the_log_leaves_the_truth_alone(scenario: str) -> None:
    spoilt, still = world(scenario), world("stationary")
    truths = [expected_value_of(of, SHOCK, logging_policy(of))[0] for of in (spoilt, still)]
    assert truths[0] == truths[1]


def checked(scenario: str, folder: Path) -> dict[tuple[str, Week], Checked]:
    """What the validate stage makes of the window, at any share of bad rows."""
    for week in WEEKS:
        for name, rows in pulled(scenario)[week].items():
            lake.write(folder, name, week, rows)
    parts = validate(RawWindow(folder, "files"), WEEKS, AFTER.end, bounds(1.0))
    return {(one.table, one.week): one for one in parts}


QUIET = sorted(SCENARIOS.keys() - {"duplicated_hour", "time_zone_shift"})


@pytest.mark.parametrize("scenario", QUIET)
def test_validation_finds_nothing_in_rows_that_are_sound_one_by_one(
    scenario: str, tmp_path: Path
) -> None:
    results = checked(scenario, tmp_path).values()
    assert [one.reasons for one in results if one.reasons] == []


def test_validation_sets_doubled_impressions_and_conversions_aside(tmp_path: Path) -> None:
    results = checked("duplicated_hour", tmp_path)
    reasons = {place: one.reasons for place, one in results.items() if one.reasons}
    sound, spoilt = pulled("stationary")[SHOCK], pulled("duplicated_hour")[SHOCK]
    extra, sold = (
        spoilt[name].num_rows - sound[name].num_rows for name in ("impressions", "conversions")
    )
    assert extra > 10
    found = {("impressions", SHOCK): {"duplicate impression_id": extra}}
    found |= {("conversions", SHOCK): {"duplicate conversion": sold}} if sold else {}
    assert reasons == found
    assert results["impressions", SHOCK].clean == sound["impressions"]
    assert results["conversions", SHOCK].clean == sound["conversions"]
    assert results["behaviours", SHOCK].clean.num_rows > sound["behaviours"].num_rows


def test_validation_sees_a_shifted_clock_only_in_what_precedes_its_cause(tmp_path: Path) -> None:
    """A conversion of an earlier week's impression that the shift puts before it."""
    results = checked("time_zone_shift", tmp_path)
    shown = {
        key: time
        for week in WEEKS
        for key, time in zip(
            pulled("time_zone_shift")[week]["impressions"]["impression_id"].to_pylist(),
            micros(pulled("time_zone_shift")[week]["impressions"]).tolist(),
            strict=True,
        )
    }
    rows = pulled("time_zone_shift")[SHOCK]["conversions"]
    early = sum(
        time < shown[key]
        for key, time in zip(rows["impression_id"].to_pylist(), micros(rows).tolist(), strict=True)
    )
    assert early > 0
    reasons = {place: one.reasons for place, one in results.items() if one.reasons}
    assert reasons == {("conversions", SHOCK): {"conversion before its impression": early}}


def uniform_doubts(scenario: str) -> list[str]:
    """What evaluation doubts of the shock week's log as evidence on uniform slates.

    Of 20 ads a uniform slate has conditional propensities 1/20, 1/19 and 1/18.
    """
    rows = pulled(scenario)[SHOCK]["impressions"]
    logged = rows["propensity"].to_numpy().reshape(-1, 3)
    target = np.broadcast_to(1 / np.array([20.0, 19.0, 18.0]), logged.shape)
    return doubts(diagnose(slate_weights(target, logged), support=1.0), PARAMS.evaluate)


def test_evaluation_doubts_a_log_with_propensity_1() -> None:
    """The mean weight of a slate is 1 / (20 x 19 x 18) then, of its first position 1 / 20."""
    assert uniform_doubts("stationary") == []
    (doubt,) = uniform_doubts("logging_bug")
    assert doubt == "mean weight 0.000 not within 0.2 of 1"
