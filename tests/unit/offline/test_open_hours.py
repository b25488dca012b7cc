"""Who could be shown, from the log alone: by hand, and against the world that served it."""

import numpy as np
import pyarrow as pa
import pytest

from roiflow.catalogue.eligibility import UNLIMITED, Pacing
from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.evaluation.slates import logged_slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, target_on_log
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.features.table import Catalogue, Features, Flags, Floats
from roiflow.offline.open_hours import HOURS, Spend, shown_hours, solvent
from roiflow.params import load_params
from roiflow.policy.candidate_sets import of_predictions
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.value import CostShares
from roiflow.simulator.policies import PlackettLuce, logging_policy
from roiflow.simulator.population import HOUR_SHARES, Ints, WorldRequests
from roiflow.simulator.run import serve
from tests.labels import planted_labels
from tests.unit.serving.packages import TinyWorld, tiny_world
from tests.worlds import ROOT

WEEK = Week.parse("2026-W02")
ADS = 4
ALL_KNOWN = planted_labels([1.0], [])
BUDGETS: dict[str, object] = {
    "budgets": True,
    "budget_share": 1.5,
    "ads": 24,
    "new_ads_per_week": 6,
    "ad_weeks": 4.0,
    "requests_per_user_day": 6.0,
}


def spend(*rows: tuple[int, int, int]) -> Spend:
    """Of (hour of the week, ad, micros), some of them twice."""
    hour, ad, cost = np.array(rows).T
    code = (WEEK.start // MICROS_PER_HOUR + hour) * ADS + ad
    parts = [Spend(code[one : one + 1], cost[one : one + 1], ADS) for one in range(len(rows))]
    return Spend.of(parts, ADS)


def test_a_budget_lasts_by_hand() -> None:
    """Ad 1 has 100 a day, ad 2 has none, ad 3 has 100 and spends it on the second day."""
    found = solvent(
        WEEK,
        np.array([1, 2, 3], np.int32),
        np.array([100, UNLIMITED, 100]),
        spend((0, 1, 60), (3, 1, 39), (5, 1, 1), (5, 2, 10**9), (30, 3, 99), (30, 3, 1)),
        Pacing.none(),
    )
    expected = np.ones((HOURS, 3), np.bool_)
    expected[6:24, 0] = False  # spent in the sixth hour, looked at in the next, back next day
    expected[31:48, 2] = False
    np.testing.assert_array_equal(found, expected)


def test_a_paced_budget_by_hand() -> None:
    """A quarter of the traffic by each quarter of the day."""
    traffic = np.zeros(24)
    traffic[[0, 6, 12, 18]] = 1.0
    found = solvent(
        WEEK,
        np.array([1], np.int32),
        np.array([100]),
        spend((1, 1, 24), (2, 1, 1), (7, 1, 26), (20, 1, 10)),
        Pacing.of(traffic),
    )
    expected = np.ones(HOURS, np.bool_)
    expected[3:6] = False  # 25 of 25; more may be spent from 6:00 on
    expected[8:12] = False  # 51 of 50
    np.testing.assert_array_equal(found[:, 0], expected)


def test_without_budgets_all_hours_are_alike() -> None:
    ad = np.array([1, 2], np.int32)
    assert solvent(WEEK, ad, np.zeros(2, np.int64), spend((1, 1, 5)), Pacing.none()).shape == (1, 2)


def test_what_was_shown_is_found_by_hour_and_column() -> None:
    first = WEEK.start // MICROS_PER_HOUR
    rows = [(-1, 1), (0, 0), (0, 2), (5, 1), (167, 2), (168, 1)]
    asked = np.array([(first + hour) * ADS + ad for hour, ad in rows])
    hour, column = shown_hours(asked, ADS, WEEK, np.array([2, 1], np.int32))
    assert hour.tolist() == [0, 5, 167]
    assert column.tolist() == [0, 1, 0]


def test_an_ad_comes_and_ends_at_its_times() -> None:
    catalogue = Catalogue(
        str(WEEK),
        np.array([1, 2], np.int32),
        np.array([1, 1]),
        np.array([1, 1]),
        np.array([0, WEEK.start + 90]),
        np.array([WEEK.start + MICROS_PER_DAY, 2**62]),
        np.array([[True, True]] * 30 + [[True, False]] * (HOURS - 30)),
    )
    times = WEEK.start + np.array([-5, 89, 90, MICROS_PER_DAY - 1, MICROS_PER_DAY])
    found = catalogue.eligible(np.append(times, WEEK.end + 7))
    assert found[:, 0].tolist() == [True, True, True, True, False, False]
    assert found[:, 1].tolist() == [False, False, True, True, True, False]


class Watched:
    """A policy, and what it was told was eligible."""

    learns = False

    def __init__(self, policy: PlackettLuce) -> None:
        self._policy = policy
        self.policy_version, self.by = policy.policy_version, policy.by
        self.seen: dict[int, Flags] = {}

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        for hour in np.unique(requests.event_time // MICROS_PER_HOUR).tolist():
            self.seen[hour] = eligible
        return self._policy.choose(requests, eligible, rng)

    def observe(self, tables: dict[str, pa.Table]) -> None:
        """Learns nothing."""


@pytest.fixture(scope="module", params=[True, False], ids=["paced", "unpaced"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Two weeks of budgets, with ads that come and end in the middle of them."""
    folder = tmp_path_factory.mktemp("budgets")
    return tiny_world(folder, **(BUDGETS | {"pacing": request.param}))  # type: ignore[arg-type]


def test_the_shipped_traffic_is_the_worlds() -> None:
    traffic = np.array(load_params(ROOT / "params.yaml").build_features.traffic)
    np.testing.assert_allclose(traffic / traffic.sum(), HOUR_SHARES)


def test_the_log_tells_what_the_world_found_eligible(world: TinyWorld) -> None:
    """0 differences over two served weeks of hours and ads."""
    features = read(world.features)
    compared = blocked = come = 0
    for catalogue in features.catalogues:
        week = Week.parse(catalogue.week)
        watched = Watched(logging_policy(world.source.world))
        list(serve(world.source.world, week, watched))
        ids = world.built.vocabulary.ids("ad").take(pa.array(catalogue.ad - 1)).to_pylist()
        rows = world.source.world.ad_rows(week, np.array(ids))
        hours = np.array(sorted(watched.seen))
        theirs = np.array([watched.seen[hour][rows] for hour in hours.tolist()])
        ours = catalogue.eligible(hours * MICROS_PER_HOUR + 1)
        assert np.count_nonzero(theirs != ours) == 0
        every = np.concatenate([watched.seen[hour] for hour in hours.tolist()])
        assert every.sum() == ours.sum()  # and no other ad of the world could be shown
        compared += ours.size
        blocked += int(np.count_nonzero(~catalogue.solvent))
        inside = (catalogue.start > week.start) | (catalogue.end < week.end)
        come += int(np.count_nonzero(inside))
    assert compared > 2 * 100 * 24
    assert blocked > 200
    assert come >= 6


def of_itself(world: TinyWorld, features: Features) -> TargetOnLog:
    """The logging policy on its own log, as evaluation asks a policy."""
    catalogue, engine = features.catalogues[-1], open_engine(world.features)
    slates = logged_slates(features, ALL_KNOWN, features.rows(TEST), 3)
    requests = engine.requests(features, slates.row, catalogue)
    ids = world.built.vocabulary.ids("ad").take(pa.array(catalogue.ad - 1)).to_pylist()
    logits = logging_policy(world.source.world).logits(WEEK)
    own = logits[world.source.world.ad_rows(WEEK, np.array(ids))]
    chance = np.full(requests.ad.shape, 0.1, np.float32)
    sets = of_predictions(requests, Predictions(chance, chance, chance), CostShares(0.0, 1.0, 0.0))
    return target_on_log(
        slates,
        sets,
        np.where(sets.present, own, -np.inf),
        CostShares(0.0, 1.0, 0.0),
        LoggedWeek.of(features, ALL_KNOWN),
        1,
        np.random.default_rng(0),
    )


def test_a_policy_on_its_own_log_weighs_1(world: TinyWorld) -> None:
    """Every slate does, and not only their mean; as if all could be shown, hardly any does."""
    features = read(world.features)
    logged = logged_slates(features, ALL_KNOWN, features.rows(TEST), 3).propensity
    weight = slate_weights(of_itself(world, features).propensity, logged)
    np.testing.assert_allclose(weight, 1.0, rtol=1e-9)
    assert weight.mean() == pytest.approx(1.0, abs=1e-12)
    last = features.catalogues[-1]
    whole = Catalogue.all_week(last.week, last.ad, last.price, last.bid)
    blind = of_itself(
        world, Features(**{**vars(features), "catalogues": (*features.catalogues[:-1], whole)})
    )
    last_slot = slate_weights(blind.propensity, logged)[:, -1]
    assert last_slot.mean() < 0.8
    assert np.mean(np.abs(last_slot - 1) < 1e-6) < 0.2
