import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError, PropensityError
from roiflow.simulator import auction
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.policies import Oracle, PlackettLuce, logging_policy
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.run import DELAYED, nothing, run_week
from roiflow.simulator.served import REACH
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")
BUDGETS: dict[str, object] = {"budgets": True, "budget_share": 1.0}


def times(table: pa.Table, name: str) -> np.ndarray:
    return table[name].cast(pa.int64()).to_numpy()


def same(left: Tables, right: Tables) -> bool:
    return all(left[name].equals(right[name]) for name in left | right)


def test_tables_keep_the_contract(make: Make) -> None:
    world = World(make())
    tables = run_week(world, WEEK, logging_policy(world), nothing()).tables
    for name, schema in SCHEMAS.items():
        assert list(tables[name].schema)[: len(schema)] == list(schema)
        assert np.all(times(tables[name], "event_time") <= times(tables[name], "known_time"))
        tables[name].validate(full=True)
    impressions = tables["impressions"]
    assert pc.count_distinct(impressions["impression_id"]).as_py() == impressions.num_rows
    assert pc.count_distinct(impressions["request_id"]).as_py() == impressions.num_rows // 3
    assert impressions["position"].to_pylist()[:4] == [1, 2, 3, 1]


def test_same_seed_same_bytes_whatever_the_chunks(make: Make) -> None:
    runs = []
    for chunk_hours in (1, 6, 24):
        world = World(make())
        runs.append(
            run_week(world, WEEK, logging_policy(world), nothing(), chunk_hours=chunk_hours)
        )
    other = World(make(seed=4))
    assert same(runs[0].tables, runs[1].tables)
    assert same(runs[0].tables, runs[2].tables)
    assert same(runs[0].pending, runs[2].pending)
    assert not same(runs[0].tables, run_week(other, WEEK, logging_policy(other), nothing()).tables)


@pytest.mark.parametrize("keys", [BUDGETS, {**BUDGETS, "pacing": False}])
def test_budgets_are_looked_at_every_hour_whatever_the_chunks(
    make: Make, keys: dict[str, object]
) -> None:
    params = make(click_rate=0.3, return_rate=0.2, pricing="second", **keys)
    one, other = (
        run_week(World(params), WEEK, logging_policy(World(params)), nothing(), chunk_hours=hours)
        for hours in (1, 24)
    )
    assert same(one.tables, other.tables)
    assert same(one.pending, other.pending)
    free = World(make(click_rate=0.3, return_rate=0.2, pricing="second"))
    spent = run_week(free, WEEK, logging_policy(free), nothing()).tables["impressions"]
    cost = [rows["cost_micros"].to_numpy().sum() for rows in (one.tables["impressions"], spent)]
    assert cost[0] < cost[1]
    assert one.tables["ads"]["daily_budget_micros"].null_count == 3  # of a slate's places
    budgets = run_week(free, WEEK, logging_policy(free), nothing()).tables["ads"]
    assert budgets["daily_budget_micros"].null_count == budgets.num_rows


class Spender(PlackettLuce):
    """Shows the same ads, whatever they have left to spend."""

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        return super().choose(requests, np.ones_like(eligible), rng)


def test_an_ad_without_money_is_refused_by_its_request(make: Make) -> None:
    world = World(make(click_rate=0.3, **BUDGETS))
    named = r"week 2026-W02, request \d+: ads \[.*\] hold one that has ended or spent its budget"
    with pytest.raises(ContractError, match=named):
        run_week(world, WEEK, Spender(world, "spender"), nothing())


def test_a_catalogue_that_has_spent_all_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One click each a day, and no ad without a budget: nobody comes back to fill a slate."""
    monkeypatch.setattr(auction, "budgets", lambda params, bid, *rest: bid.copy())
    world = World(make(click_rate=0.5, requests_per_user_day=20.0, pacing=False))
    named = (
        r"week 2026-W02, hour \d+: [012] of 20 ads can be shown, fewer than the 3 places .* spent"
    )
    with pytest.raises(ContractError, match=named):
        run_week(world, WEEK, logging_policy(world), nothing())


def test_a_partition_holds_what_became_known_in_its_week(make: Make) -> None:
    world = World(make(click_rate=0.3, conversion_rate=0.3, return_rate=0.3))
    run = run_week(world, WEEK, logging_policy(world), nothing())
    for name in DELAYED:
        known, waiting = (times(part[name], "known_time") for part in (run.tables, run.pending))
        assert known.min() >= WEEK.start
        assert known.max() < WEEK.end <= waiting.min()
        assert waiting.max() < WEEK.plus(REACH if name == "conversions" else 1).end
    last_hour = times(run.pending["impressions"], "event_time")
    assert np.all(last_hour >= WEEK.end - MICROS_PER_HOUR)


class Witness(PlackettLuce):
    """Notes what was known when it chose."""

    learns = True

    def __init__(self, world: World) -> None:
        super().__init__(world, "witness")
        self.news: list[Tables] = []
        self.asked: list[Longs] = []

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        self.asked.append(requests.event_time)
        return super().choose(requests, eligible, rng)

    def observe(self, tables: Tables) -> None:
        self.news.append(tables)


@pytest.mark.parametrize("lag", [1, 6])
def test_every_row_is_observed_once_and_as_known(make: Make, lag: int) -> None:
    world = World(make(click_rate=0.3, conversion_rate=0.3, known_lag_hours=lag))
    before = run_week(world, WEEK.plus(-1), logging_policy(world), nothing())
    witness = Witness(world)
    run = run_week(world, WEEK, witness, before.pending)
    assert len(witness.news) == 7 * 24 // lag
    for name in DELAYED:
        told = pa.concat_tables([news[name] for news in witness.news])
        known = run.tables[name]
        assert told.num_rows == known.num_rows
        keys = [(name, "ascending") for name in known.column_names]
        assert told.sort_by(keys).equals(known.sort_by(keys))
    for news, asked in zip(witness.news, witness.asked, strict=True):
        for table in news.values():
            if table.num_rows and asked.size:
                assert times(table, "known_time").max() < asked.min()
                assert times(table, "known_time").min() > asked.max() - 2 * lag * MICROS_PER_HOUR


class Wrong(PlackettLuce):
    def __init__(self, world: World, slate: list[int], propensity: float) -> None:
        super().__init__(world, "wrong")
        self.answer = slate, propensity

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        slate, propensity = self.answer
        slates = np.tile(np.array(slate, dtype=np.int32), (requests.number.size, 1))
        return slates, np.full(slates.shape, propensity)


@pytest.mark.parametrize(
    ("slate", "propensity", "error", "named"),
    [
        ([1, 2, 1], 0.5, ContractError, r"request 0: ads \[1, 2, 1\]"),
        ([1, 2, 20], 0.5, ContractError, r"\[1, 2, 20\].*catalogue of 20"),
        ([-1, 2, 3], 0.5, ContractError, r"\[-1, 2, 3\]"),
        ([1, 2], 0.5, ContractError, r"expected \(\d+, 3\)"),
        ([1, 2, 3], 0.0, PropensityError, r"request 0: \[0.0"),
        ([1, 2, 3], 1.5, PropensityError, r"\[1.5"),
        ([1, 2, 3], float("nan"), PropensityError, "nan"),
    ],
)
def test_an_answer_that_is_no_slate_is_refused(
    make: Make, slate: list[int], propensity: float, error: type[Exception], named: str
) -> None:
    world = World(make())
    with pytest.raises(error, match=named):
        run_week(world, WEEK, Wrong(world, slate, propensity), nothing())


def test_progress_ends_at_one(make: Make) -> None:
    world = World(make())
    done: list[float] = []
    run_week(
        world,
        WEEK,
        logging_policy(world),
        nothing(),
        chunk_hours=24,
        progress=lambda fraction, what: done.append(fraction),
    )
    assert done == pytest.approx(np.arange(8) / 7)


def test_the_smallest_world_runs(make: Make) -> None:
    """Hours without a request, one ad, nobody behaves."""
    smallest = {"users": 1, "ads": 1, "categories": 1, "slate_size": 1}
    world = World(make(**smallest, behaviours_per_user_day=0.0))
    for policy in (logging_policy(world), Oracle(world)):
        run = run_week(world, WEEK, policy, nothing())
        shown = run.tables["impressions"].num_rows + run.pending["impressions"].num_rows
        assert shown == world.requests(WEEK).number.size
        assert run.tables["behaviours"].num_rows == 0
        assert set(run.tables["impressions"]["propensity"].to_pylist()) <= {1.0}
