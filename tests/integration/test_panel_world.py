"""The real panel as an ad world: its sizes, its fit to held-out weeks, and what policies earn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from roiflow import columns as c
from roiflow.cli.main import app
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.weeks import Week
from roiflow.params import load_params
from roiflow.simulator.panel import PanelPopulation
from roiflow.simulator.policies import Greedy, Oracle, logging_policy, random_policy
from roiflow.simulator.run import nothing, run_week
from roiflow.simulator.truth import expected_value_of
from roiflow.simulator.world import World

ROOT = Path(__file__).parents[2]
WEEK = Week(2017, 30)


@pytest.fixture(scope="module")
def world() -> World:
    shipped = load_params(ROOT / "params.yaml").ingest.simulator
    return World(shipped.model_copy(update={"world": "panel", "scenario": "stationary"}))


@pytest.fixture(scope="module")
def population(world: World) -> PanelPopulation:
    assert isinstance(world.population, PanelPopulation)
    return world.population


def test_weeks_are_of_the_panels_size(world: World) -> None:
    assert world.user_ids.size == 2469
    for week in (world.first_week, WEEK, Week(2017, 52)):
        assert 15_000 < world.requests(week).number.size < 20_000
        assert 4_500 < world.behaviours(week).user.size < 6_500
        assert 115 <= world.eligible(week).sum() <= 120


def test_catalogues_only_append(world: World) -> None:
    weeks = [world.first_week.plus(number) for number in (0, 15, 40)]
    ads = [world.ads(week) for week in weeks]
    for early, late in pairwise(ads):
        assert np.array_equal(early.ids, late.ids[: early.ids.size])
        ended = early.last < early.last.max()
        assert np.array_equal(early.last[ended], late.last[ended])
    assert not np.array_equal(world.eligible(weeks[0]), world.eligible(weeks[2]))


@pytest.mark.parametrize("week", [Week(2017, 12), WEEK, Week(2017, 50)])
def test_interests_foretell_a_week_that_they_were_not_fitted_on(
    population: PanelPopulation, week: Week
) -> None:
    found = population.held_out_fit(week)
    assert found.auc > 0.84
    assert found.log_loss < 0.8 * found.base_log_loss
    assert 0.8 < found.pcoc < 1.25


def test_the_fit_is_told_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(app, ["simulate", "fit", "--weeks", "2"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert [week in done.output for week in ("2017-W12", "2017-W52")] == [True, True]


def test_the_oracle_earns_most_and_chance_least(world: World) -> None:
    value = {}
    roi = {}
    for chooser in (random_policy(world), logging_policy(world), Greedy(world), Oracle(world)):
        found, _ = expected_value_of(world, WEEK, chooser)
        value[chooser.policy_version], roi[chooser.policy_version] = found["value"], found["roi"]
    assert value["random"] < value["logging"] < value["clicks"] < value["oracle"]
    assert roi["random"] < roi["clicks"] < roi["oracle"]


def test_a_week_becomes_the_contracts_tables(world: World) -> None:
    tables = run_week(world, WEEK, logging_policy(world), nothing()).tables
    for name, schema in SCHEMAS.items():
        assert tables[name].select(schema.names).schema == schema
        assert tables[name].num_rows > 0
    assert tables["ads"].num_rows == world.eligible(WEEK).sum()
    assert set(tables["impressions"][c.AD].to_pylist()) <= set(tables["ads"][c.AD].to_pylist())


def test_behaviours_are_the_panels_own_lines(world: World) -> None:
    real = CompleteJourney.installed(8).pull(WEEK, WEEK.end)["behaviours"]
    types = set(world.population.categories.tolist())
    real = real.filter(pc.is_in(real[c.CATEGORY], value_set=pa.array(sorted(types))))
    found = world.behaviours(WEEK)
    ids = world.ads(WEEK).ids
    mine = sorted(zip(world.user_ids[found.user], ids[found.ad], found.event_time, strict=True))
    times = real[c.EVENT_TIME].cast("int64").to_pylist()
    theirs = sorted(zip(real[c.USER].to_pylist(), real[c.AD].to_pylist(), times, strict=True))
    assert mine == theirs
