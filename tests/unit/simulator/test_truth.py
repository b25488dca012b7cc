import numpy as np
import pytest

from roiflow.data.weeks import Week
from roiflow.simulator.noise import Floats
from roiflow.simulator.policies import Oracle, logging_policy
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.run import nothing, run_week
from roiflow.simulator.truth import expected_value_of, slate_truth, truth
from roiflow.simulator.world import World
from tests.unit.simulator.conftest import Make

WEEK = Week.parse("2026-W02")


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


def test_what_happened_agrees_with_the_truth(make: Make) -> None:
    world = World(make(users=1000, requests_per_user_day=10.0, click_rate=0.1))
    run = run_week(world, WEEK, logging_policy(world), nothing(), chunk_hours=24)
    expected = truth(world, run.tables["impressions"])
    clicked = run.tables["impressions"]["clicked"].to_numpy()
    assert clicked.sum() == pytest.approx(expected["clicks"], rel=4 / np.sqrt(clicked.sum()))
    paid = run.tables["impressions"]["cost_micros"].to_numpy().sum() / 1e6
    assert paid == pytest.approx(expected["cost"], rel=0.03)
    assert expected["value"] == pytest.approx(expected["revenue"] - expected["cost"])


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
