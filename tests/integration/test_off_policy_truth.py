"""Off-policy estimates against the only judge there is: a world whose truth is a closed form."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow import columns as c
from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.data.split import VALIDATION
from roiflow.data.weeks import Week
from roiflow.evaluation.estimators.logger import chances_of_log
from roiflow.evaluation.roi import estimate_roi
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import LoggedWeek, target_on_log
from roiflow.evaluation.terms import logged_terms, target_terms
from roiflow.evaluation.weekly import test_slates
from roiflow.features.table import Floats, Longs
from roiflow.params import load_params
from roiflow.policy import network
from roiflow.policy.candidate_sets import CandidateSets, first_rows, score_requests
from roiflow.policy.plackett_luce import sample
from roiflow.simulator.truth import Truth, truth
from roiflow.simulator.world import World
from tests.unit.evaluation.weeks import EVALUATE, Evaluated, evaluated_week
from tests.unit.serving.packages import (
    SHARES,
    SLATE,
    TOP_K,
    WEEKS,
    TinyWorld,
    tiny_world,
    write_package,
)
from tests.worlds import ROOT

DRAWS = 20
PARAMS = EVALUATE.model_copy(
    update={"requests": 100_000, "resamples": 1000, "min_effective_sample_size": 200.0}
)


@dataclass(frozen=True)
class Judged:
    """A policy's estimates beside its true ROI."""

    estimates: dict[str, RoiEstimate]
    slates: int
    new: Truth
    logged: Truth
    realised: float
    """Revenue that the logged slates bring once all conversions and returns are known."""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """A policy that favours what the logistic model values, on 7,000 slates of 400 users."""
    folder = tmp_path_factory.mktemp("truth")
    tiny = tiny_world(
        folder / "world", users=400, requests_per_user_day=2.5, ads=20, return_rate=0.05
    )
    evaluated = evaluated_week(tiny, write_package(folder / "package", tiny), PARAMS)
    features, ranker = evaluated.features, evaluated.logistic

    def scored(rows: Longs) -> CandidateSets:
        return score_requests(
            features, evaluated.engine, ranker, ranker, SHARES, rows=rows, k=TOP_K
        )

    slates, _ = test_slates(features, evaluated.labels, 3, PARAMS)
    sets = scored(slates.row)
    logits = network.start(
        scored(first_rows(features, features.rows(VALIDATION))),
        load_params(ROOT / "params.yaml").finetune_policy.model_copy(
            update={"slate_size": SLATE, "temperature": 2.0, "residual_bound": 1.0}
        ),
        top_k=TOP_K,
        network=network.Network.start(4, np.random.default_rng(1)),
    ).logits(sets)
    week, rng = LoggedWeek.of(features, evaluated.labels), np.random.default_rng(2)
    target = target_on_log(slates, sets, logits, SHARES, week, PARAMS.draws, rng)
    estimates = estimate_roi(
        np.unique(slates.user),
        logged_terms(slates),
        target_terms(slates, target, chances_of_log(slates, target, PARAMS.draws), PARAMS),
        slates=slates.row.size,
        resamples=PARAMS.resamples,
        confidence=PARAMS.confidence,
        limits=PARAMS,
        cost_weight=1.0,
        rng=rng,
    )
    return Judged(
        estimates,
        slates.row.size,
        new=_true_outcome(tiny, evaluated, slates, sets.ad, logits),
        logged=_outcome(tiny, slates.row, slates.ad, evaluated),
        realised=_realised(tiny),
    )


def _true_outcome(
    tiny: TinyWorld, evaluated: Evaluated, slates: Slates, ads: np.ndarray, logits: Floats
) -> Truth:
    rng = np.random.default_rng(0)
    rows, shown = [], []
    for _ in range(DRAWS):
        choices, _ = sample(logits, 3, rng)
        rows.append(slates.row)
        shown.append(np.take_along_axis(ads, choices, axis=1))
    return _outcome(tiny, np.concatenate(rows), np.concatenate(shown), evaluated)


def _realised(tiny: TinyWorld) -> float:
    """Of the test week's impressions, from what becomes known in it and in the next two weeks."""
    test = Week.parse(WEEKS[-1])
    weeks = [test, test.plus(1), test.plus(2)]
    tables = {week: tiny.source.pull(week, week.end) for week in weeks}
    shown = tables[test]["impressions"]
    own = shown.filter(pc.greater_equal(shown[c.EVENT_TIME].cast(pa.int64()), test.start))
    sold = pa.concat_tables([tables[week]["conversions"] for week in weeks])
    mine = sold.filter(pc.is_in(sold[c.IMPRESSION], value_set=own[c.IMPRESSION].combine_chunks()))
    return float(pc.sum(mine[c.REVENUE]).as_py()) / 1e6


def _outcome(tiny: TinyWorld, rows: Longs, ads: np.ndarray, evaluated: Evaluated) -> Truth:
    """Closed form of slates `ads` (B, 3) shown in the place of those at impression `rows`."""
    log = evaluated.features.impressions
    ids = {
        kind: np.array(["", *tiny.built.vocabulary.ids(kind).to_pylist()], dtype=object)
        for kind in ("user", "ad", "placement", "device")
    }
    slots = ads.shape[1]

    def each(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, slots)

    table = pa.table(
        {
            c.EVENT_TIME: each(log.event_time[rows]),
            c.REQUEST: each(np.arange(rows.size)),
            c.USER: each(ids["user"][log.user[rows]]),
            c.AD: ids["ad"][ads.ravel()],
            c.POSITION: np.tile(np.arange(1, slots + 1), rows.size),
            c.PLACEMENT: each(ids["placement"][log.context[rows, 0]]),
            c.DEVICE: each(ids["device"][log.context[rows, 1]]),
        }
    )
    return truth(World(tiny.params), table)


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr"])
def test_the_interval_holds_the_truth(judged: Judged, estimator: str) -> None:
    found = judged.estimates[estimator].roi
    assert found.verdict == "conclusive", found.reason
    assert found.low is not None
    assert found.high is not None
    assert found.low < judged.new["roi"] < found.high


def test_the_lift_interval_holds_the_true_lift(judged: Judged) -> None:
    lift = judged.estimates["dr"].lift
    assert lift.low is not None
    assert lift.high is not None
    assert lift.low < (1 + judged.new["roi"]) / (1 + judged.logged["roi"]) - 1 < lift.high


def test_the_logging_policy_is_judged_by_all_that_its_slates_will_bring(judged: Judged) -> None:
    """Revenue of conversions still to come, less returns still to come, within 2 %.

    Against what these slates bring: their own luck would hide a bias from the expectation, which
    the interval has to hold.
    """
    logged = judged.estimates["logged"]
    cost = logged.cost_per_slate_micros * judged.slates / 1e6
    revenue = logged.revenue_per_slate_micros * judged.slates / 1e6
    assert cost == pytest.approx(judged.logged["cost"], rel=0.05)
    assert revenue == pytest.approx(judged.realised, rel=0.02)
    assert logged.maturity is not None
    assert 0.8 < logged.maturity < 0.97
    assert logged.roi.low is not None
    assert logged.roi.high is not None
    assert logged.roi.low < judged.logged["roi"] < logged.roi.high
