"""What each scenario says and does to a log, on logs small enough to read."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow.data.schemas import SCHEMAS, TIME
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios import SCENARIOS, STEADY, Effects
from roiflow.simulator.scenarios.effects import ends, shock_week
from tests.worlds import SHIPPED

PARAMS = SHIPPED
SHOCK = shock_week(PARAMS)
BEFORE, AFTER = SHOCK.plus(-1), SHOCK.plus(1)
NOTHING = Effects()
HOUR = SHOCK.start + 2 * MICROS_PER_DAY + 10 * MICROS_PER_HOUR
FAULTS = {"logging_bug", "duplicated_hour", "time_zone_shift"}
"""Of the log alone."""


def same(one: Effects, other: Effects) -> bool:
    return all(
        np.array_equal(value, vars(other)[name]) if isinstance(value, np.ndarray)
        else value == vars(other)[name]
        for name, value in vars(one).items()
    )  # fmt: skip


def table(name: str, **columns: list[object]) -> pa.Table:
    """Rows of the contract; a column that is not named holds one plain value."""
    count = len(next(iter(columns.values())))
    plain = {"string": "x", "int32": 1, "int64": 5, "double": 0.25, "bool": False}
    arrays = []
    for field in SCHEMAS[name]:
        values = columns.get(field.name, [plain.get(str(field.type), 0)] * count)
        arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=SCHEMAS[name])


@pytest.fixture
def log() -> Tables:
    """Around one hour of the shock week: before it, twice in it, at its end and after it."""
    last = HOUR + MICROS_PER_HOUR - 1
    times: list[object] = [HOUR - 1, HOUR, last, last + 1, last + MICROS_PER_HOUR]
    known: list[object] = [HOUR, *[last + 1] * 2, *[last + 1 + MICROS_PER_HOUR] * 2]
    keys: list[object] = ["a", "b", "c", "d", "e"]
    both: dict[str, list[object]] = {"event_time": times, "known_time": known}
    return {
        "impressions": table("impressions", **both, impression_id=keys),
        "behaviours": table("behaviours", **both, user_id=keys),
        "conversions": table("conversions", **both, impression_id=keys),
        "ads": table("ads", event_time=[SHOCK.start], known_time=[SHOCK.start]),
        "users": table("users", event_time=[SHOCK.start], known_time=[SHOCK.start]),
    }


def test_one_file_is_one_scenario() -> None:
    folder = Path(__file__).parents[3] / "src/roiflow/simulator/scenarios"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "effects"} == set(SCENARIOS)
    assert len(SCENARIOS) == 12
    assert set(SCENARIOS) > STEADY


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"slow_drift"}))
def test_nothing_happens_before_the_shock(name: str, log: Tables) -> None:
    scenario = SCENARIOS[name]
    assert same(scenario.effects(PARAMS, BEFORE), NOTHING)
    assert scenario.arrive(PARAMS, BEFORE, log) is log


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - STEADY))
def test_every_shock_changes_either_the_world_or_the_log(name: str, log: Tables) -> None:
    scenario = SCENARIOS[name]
    quiet = same(scenario.effects(PARAMS, SHOCK), NOTHING)
    arrived = scenario.arrive(PARAMS, SHOCK, log)
    assert (quiet, arrived == log) == ((True, False) if name in FAULTS else (False, True))


@pytest.mark.parametrize("name", sorted(FAULTS | {"late_backfill", "holiday"}))
def test_a_passing_shock_is_over_in_the_week_after(name: str, log: Tables) -> None:
    assert same(SCENARIOS[name].effects(PARAMS, AFTER), NOTHING)
    assert SCENARIOS[name].arrive(PARAMS, AFTER, log) is log


@pytest.mark.parametrize(
    "name", ["concept_drift", "price_shock", "bot_traffic", "dead_advertiser", "budget_cut"]
)
def test_a_lasting_shock_stays(name: str) -> None:
    scenario = SCENARIOS[name]
    assert same(scenario.effects(PARAMS, SHOCK), scenario.effects(PARAMS, AFTER))


@pytest.mark.parametrize("name", ["stationary", *sorted(FAULTS)])
def test_a_stationary_world_never_changes(name: str) -> None:
    for weeks in range(-60, 60, 7):
        assert same(SCENARIOS[name].effects(PARAMS, SHOCK.plus(weeks)), NOTHING)


def changed(**keys: object) -> SimulatorParams:
    return SimulatorParams.model_validate(PARAMS.model_dump() | keys)


@pytest.mark.parametrize("weeks", [-2, 0, 1, 53])
def test_slow_drift_turns_interests_in_proportion_to_time(weeks: int) -> None:
    first = Week.parse(PARAMS.first_week)
    effects = SCENARIOS["slow_drift"].effects(PARAMS, first.plus(weeks))
    assert same(effects, Effects(turn=weeks * 0.1))


def test_slow_drift_leaves_a_real_panel_to_drift_by_itself() -> None:
    panel = changed(world="panel")
    assert same(SCENARIOS["slow_drift"].effects(panel, Week.parse("2017-W40")), NOTHING)


def test_effects_of_the_shock_week() -> None:
    def of(name: str) -> Effects:
        return SCENARIOS[name].effects(PARAMS, SHOCK)

    assert same(of("concept_drift"), Effects(turn=math.pi / 2))
    assert same(of("price_shock"), Effects(price=1.5, conversion=np.full(7, -1.5 * math.log(1.5))))
    assert same(of("bot_traffic"), Effects(bots=0.02))
    assert same(of("budget_cut"), Effects(budget=0.3))
    thursday = SHOCK.start + 3 * MICROS_PER_DAY
    assert of("dead_advertiser").stopped == (0, thursday)
    saturday = SHOCK.start + 5 * MICROS_PER_DAY
    late = (saturday, saturday + MICROS_PER_DAY, SHOCK.end + 3 * MICROS_PER_DAY)
    assert same(of("late_backfill"), Effects(outage=late))
    holiday = of("holiday")
    assert holiday.traffic.shape == holiday.conversion.shape == (7,)
    assert holiday.traffic.min() > 1
    assert holiday.conversion.min() > 0
    assert same(holiday, Effects(traffic=holiday.traffic, conversion=holiday.conversion))


def test_the_logging_bug_writes_propensity_1_and_nothing_else(log: Tables) -> None:
    arrived = SCENARIOS["logging_bug"].arrive(PARAMS, SHOCK, log)
    assert arrived["impressions"]["propensity"].to_pylist() == [1.0] * 5
    assert log["impressions"]["propensity"].to_pylist() == [0.25] * 5
    assert arrived["impressions"].schema == SCHEMAS["impressions"]
    assert arrived["impressions"].drop("propensity") == log["impressions"].drop("propensity")
    assert all(arrived[name] is rows for name, rows in log.items() if name != "impressions")


def test_one_hour_is_doubled_row_by_row(log: Tables) -> None:
    arrived = SCENARIOS["duplicated_hour"].arrive(PARAMS, SHOCK, log)
    for name in ("impressions", "behaviours", "conversions"):
        assert arrived[name] == log[name].take([0, 1, 1, 2, 2, 3, 4])
    assert arrived["ads"] is log["ads"]
    assert arrived["users"] is log["users"]


def test_a_log_without_the_hour_stays(log: Tables) -> None:
    other = log | {"conversions": log["conversions"].slice(3)}
    arrived = SCENARIOS["duplicated_hour"].arrive(PARAMS, SHOCK, other)
    assert arrived["conversions"] == other["conversions"]
    empty = {name: rows.slice(0, 0) for name, rows in log.items()}
    assert SCENARIOS["duplicated_hour"].arrive(PARAMS, SHOCK, empty) == empty


def test_event_times_move_by_exactly_8_hours_and_known_times_do_not(log: Tables) -> None:
    arrived = SCENARIOS["time_zone_shift"].arrive(PARAMS, SHOCK, log)
    for name in ("impressions", "behaviours", "conversions"):
        moved = log[name]["event_time"].cast(pa.int64()).to_numpy() - 8 * 3_600_000_000
        assert arrived[name]["event_time"].cast(pa.int64()).to_numpy().tolist() == moved.tolist()
        assert arrived[name].schema == SCHEMAS[name]
        assert arrived[name]["event_time"].type == TIME
        assert arrived[name].drop("event_time") == log[name].drop("event_time")
    assert arrived["ads"] is log["ads"]


def test_the_advertiser_that_ends_is_the_one_with_most_ads_at_the_time() -> None:
    """At time 10, x has the ads 0 and 1, y has 2, 3 and 4, of which 4 has ended; z comes later.

    So x comes before y, which are even, by name.
    """
    advertiser = np.array(["x", "x", "y", "y", "y", "z", "z", "z"])
    first = np.array([0, 5, 0, 0, 0, 11, 12, 13])
    last = np.array([99, 50, 99, 20, 9, 99, 99, 99])

    def ended(rank: int) -> list[int]:
        return ends(Effects(stopped=(rank, 10)), advertiser, first, last).tolist()

    assert ended(0) == [10, 10, 99, 20, 9, 99, 99, 99]
    assert ended(1) == [99, 50, 10, 10, 9, 99, 99, 99]
    assert ended(2) == [99, 50, 99, 20, 9, 10, 10, 10]
    assert ended(3) == ended(0)
    assert ends(Effects(), advertiser, first, last) is last
