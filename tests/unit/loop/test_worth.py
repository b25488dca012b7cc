"""What policies that did not serve are worth: known answers on some of a week's requests."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from roiflow import columns as c
from roiflow.data.schemas import TIME
from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ContractError
from roiflow.evaluation.slates import logged_slates
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.loop.ranker_chooser import RankerChooser
from roiflow.loop.served_clicks import first_days
from roiflow.loop.worth import Asked, RunWeek
from roiflow.params import load_params
from roiflow.simulator.policies import Oracle, logging_policy
from roiflow.simulator.truth import expected_value_of
from tests.labels import planted_labels
from tests.unit.loop.test_ranker_chooser import PAID_PER_CLICK, Knows
from tests.unit.serving.packages import TinyWorld

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tested(world: TinyWorld) -> RunWeek:
    """The tiny world's last week, without a checkout."""
    own = read(world.features)
    found = RunWeek(Path("/nowhere"), world.source.world)
    params = load_params(ROOT / "params.yaml")
    week = params.ingest.model_copy(update={"week": own.catalogues[-1].week})
    vars(found).update(
        features=own,
        engine=open_engine(world.features),
        labels=planted_labels((1.0, 0.6, 0.5), (0.5,)),
        vocabulary=world.built.vocabulary,
        params=params.model_copy(update={"ingest": week}),
    )
    return found


def test_a_ranker_that_knows_all_is_the_oracle_whichever_requests_it_is_asked(
    tested: RunWeek,
) -> None:
    oracle, _ = expected_value_of(tested.world, tested.week, Oracle(tested.world))
    for requests in (40, 10**9):
        asked = Asked.of(tested, requests)
        known = RankerChooser(Knows(tested.known), tested.known, PAID_PER_CLICK)
        assert asked.oracle == pytest.approx(oracle)
        assert asked.ranked(known) == pytest.approx(oracle, rel=1e-6)
    assert sum(one.size for one in Asked.of(tested, 40).rows) <= 40


def test_what_the_log_shows_is_worth_what_the_logging_policy_is(tested: RunWeek) -> None:
    """By the slates that it showed; those of the last hour are in no log yet."""
    asked = Asked.of(tested, 10**9)
    log = logged_slates(tested.features, tested.labels, tested.features.rows(TEST), 3)
    place = {row: at for at, row in enumerate(log.row.tolist())}
    rows = np.array([place[row] for row in np.concatenate(asked.rows).tolist()])
    found = asked.drawn(log.ad[rows])
    logging, _ = expected_value_of(tested.world, tested.week, logging_policy(tested.world))
    assert found["impressions"] == logging["impressions"]
    for name in ("clicks", "revenue", "cost"):
        assert found[name] == pytest.approx(logging[name], rel=0.05)


def test_a_slate_with_a_gap_has_no_worth(tested: RunWeek) -> None:
    asked = Asked.of(tested, 10)
    gap = np.full((sum(one.size for one in asked.rows), 3), -1, np.int32)
    with pytest.raises(ContractError, match=r"2026-W\d\d: a slate with a gap"):
        asked.drawn(gap)


def test_only_the_first_day_of_a_package_that_is_new_is_left_out() -> None:
    start = Week.parse("2026-W05").start
    times = [start, start + 5, start + MICROS_PER_DAY + 4, start + MICROS_PER_DAY + 5]
    slates = pa.table(
        {
            c.EVENT_TIME: pa.array(times, TIME),
            c.POLICY_VERSION: ["old", "new", "new", "new"],
        }
    )
    assert first_days(slates, {"old"}).tolist() == [False, True, True, False]
    assert first_days(slates, {"old", "new"}).tolist() == [False] * 4
