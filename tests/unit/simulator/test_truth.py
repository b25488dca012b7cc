from itertools import permutations

import numpy as np
import pyarrow as pa
import pytest

from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.simulator.noise import Floats
from roiflow.simulator.policies import Oracle, logging_policy, random_policy
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.run import nothing, run_week
from roiflow.simulator.truth import expected_value_of, slate_truth, truth
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")
BUDGETS: dict[str, object] = {"budgets": True, "budget_share": 1.0}


def test_truth_of_shown_slates_has_three_equal_ways(make: Make) -> None:
    """From the log, from the policy, and summed over the slates."""
    world = World(make())
    policy = logging_policy(world)
    run = run_week(world, WEEK, policy, nothing())
    shown = [run.tables["impressions"], run.pending["impressions"]]
    from_log = [truth(world, table) for table in shown]
    requests = world.requests(WEEK)
    slates, _ = policy.choose(requests, world.eligible(WEEK), np.random.default_rng(0))
    sums = slate_truth(world, requests, slates).sum(axis=0)
    from_policy, _ = expected_value_of(world, WEEK, policy)
    for name, scale, column in (("clicks", 1, 0), ("conversions", 1, 1), ("revenue", 1e6, 2)):
        assert from_log[0][name] + from_log[1][name] == pytest.approx(from_policy[name])
        assert from_policy[name] == pytest.approx(sums[column] / scale)
    assert from_policy["roi"] == pytest.approx((sums[2] - sums[3]) / sums[3])


WORLDS: list[dict[str, object]] = [
    {"model": "position_based", "pricing": "first", "charge": "click"},
    {"model": "cascade", "pricing": "second", "charge": "click"},
    {"model": "position_based", "pricing": "second", "charge": "impression"},
    {"model": "cascade", "pricing": "first", "charge": "impression", **BUDGETS},
]


@pytest.mark.parametrize("keys", WORLDS)
def test_what_happened_agrees_with_the_truth(make: Make, keys: dict[str, object]) -> None:
    """Clicks, conversions, cost and revenue less returns, each within 4 standard errors."""
    often = {"click_rate": 0.2, "conversion_rate": 0.3, "return_rate": 0.2}
    world = World(make(users=1000, requests_per_user_day=5.0, **often, **keys))
    run = run_week(world, WEEK, logging_policy(world), nothing())
    rows = {
        name: pa.concat_tables([part[name] for part in (run.tables, run.pending)])
        for name in ("impressions", "conversions")
    }
    expected = truth(world, rows["impressions"])
    clicks = rows["impressions"]["clicked"].to_numpy().sum()
    revenue = rows["conversions"]["revenue_micros"].to_numpy() / 1e6
    cost = rows["impressions"]["cost_micros"].to_numpy() / 1e6
    sold = np.count_nonzero(revenue > 0)
    assert clicks == pytest.approx(expected["clicks"], abs=4 * np.sqrt(clicks))
    assert sold == pytest.approx(expected["conversions"], abs=4 * np.sqrt(sold))
    assert cost.sum() == pytest.approx(expected["cost"], abs=4 * np.sqrt((cost**2).sum()))
    error = 4 * np.sqrt((revenue**2).sum())
    assert revenue.sum() == pytest.approx(expected["revenue"], abs=error)
    assert error < 0.1 * expected["revenue"]
    assert expected["value"] == pytest.approx(expected["revenue"] - expected["cost"])


@pytest.mark.parametrize("model", ["position_based", "cascade"])
def test_drawn_slates_come_to_the_sum_over_all_slates(make: Make, model: str) -> None:
    """The random policy's closed form: every slate with the same probability."""
    world = World(make(users=50, ads=5, slate_size=3, model=model))
    requests = world.requests(WEEK)
    every = np.array(list(permutations(range(5), 3)), np.int32)
    exact = np.mean(
        [
            slate_truth(world, requests, np.tile(slate, (requests.number.size, 1)))
            for slate in every
        ],
        axis=0,
    ).sum(axis=0)
    mean, error = expected_value_of(world, WEEK, random_policy(world), draws=200)
    for name, value in zip(("clicks", "conversions"), exact[:2], strict=True):
        assert mean[name] == pytest.approx(value, abs=4 * error[name])
        assert error[name] < 0.01 * value
    assert mean["cost"] == pytest.approx(exact[3] / 1e6, abs=4 * error["cost"])
    assert mean["value"] == pytest.approx((exact[2] - exact[3]) / 1e6, abs=4 * error["value"])


def test_a_log_without_rows_is_worth_nothing(make: Make) -> None:
    outcome = truth(World(make()), nothing()["impressions"])
    assert outcome["impressions"] == outcome["clicks"] == outcome["value"] == 0
    assert np.isnan(outcome["roi"])


class Tossing(Oracle):
    """The oracle's slate or its mirror image, by the toss of a coin."""

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        slates, propensity = super().choose(requests, eligible, rng)
        return np.where(rng.random((len(slates), 1)) < 0.5, slates, slates[:, ::-1]), propensity / 2


def test_monte_carlo_error_shrinks_with_draws(make: Make) -> None:
    world = World(make())
    _, alike = expected_value_of(world, WEEK, Oracle(world), draws=3)
    assert alike["value"] == 0
    mean, error = expected_value_of(world, WEEK, Tossing(world), draws=30)
    straight, _ = expected_value_of(world, WEEK, Oracle(world))
    assert 0 < error["clicks"] < 0.01 * mean["clicks"]
    assert mean["value"] < straight["value"]


@pytest.mark.parametrize("column", ["placement", "device"])
def test_a_place_that_is_not_of_this_world_is_named(make: Make, column: str) -> None:
    world = World(make())
    rows = run_week(world, WEEK, random_policy(world), nothing()).tables["impressions"].slice(0, 3)
    other = rows.set_column(
        rows.column_names.index(column), rows.schema.field(column), [["zeppelin"] * 3]
    )
    with pytest.raises(ContractError, match=f"{column} 'zeppelin' is not of this world"):
        truth(world, other)
