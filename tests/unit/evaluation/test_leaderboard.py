from pathlib import Path

import numpy as np
import pytest

from roiflow.evaluation.leaderboard import LEADER, compare, leaderboard
from roiflow.evaluation.ranking import Happened
from roiflow.features.table import Flags, Longs
from roiflow.params import Params, load_params
from roiflow.ranking.metrics import auc
from tests.unit.ranking.worlds import PARAMS, build


def quick() -> Params:
    params = load_params(Path(__file__).parents[3] / "params.yaml")
    trees = params.train_candidates.xgboost.model_copy(update={"rounds": 10})
    return params.model_copy(
        update={
            "train_ranker": PARAMS.model_copy(update={"epochs": 1}),
            "train_candidates": params.train_candidates.model_copy(update={"xgboost": trees}),
            "evaluate": params.evaluate.model_copy(update={"resamples": 400}),
        }
    )


def known(label: Flags, user: Longs) -> Happened:
    return Happened(user, label, np.ones(label.size), 0.5)


def test_every_model_is_on_the_board_with_its_interval() -> None:
    world = build(users=40, per_user=20, history_length=6)
    lines = leaderboard(world.features, world.labels, quick())
    assert [line.model for line in lines] == [
        "popularity",
        "logistic",
        "xgboost",
        "sasrec",
        "din",
        "rosa",
    ]
    for line in lines:
        for score in (line.click, line.conversion):
            assert score is not None
            assert score.low <= score.auc <= score.high
            assert score.lead_low <= score.lead <= score.lead_high


def test_a_lead_is_paired_and_its_interval_narrower_than_the_models_own() -> None:
    rng = np.random.default_rng(0)
    user, label = np.repeat(np.arange(400), 10), rng.random(4000) < 0.3
    signal = (label + rng.normal(size=4000)).astype(np.float32)
    noisy = (signal + 0.3 * rng.normal(size=4000)).astype(np.float32)
    found = compare({"noisy": noisy, LEADER: signal}, known(label, user), quick())
    leader, other = found[LEADER], found["noisy"]
    assert (leader.lead, leader.lead_low, leader.lead_high) == (0, 0, 0)
    assert leader.auc == pytest.approx(auc(signal, label))
    assert other.lead == pytest.approx(leader.auc - other.auc)
    assert other.lead_low > 0
    assert other.lead_high - other.lead_low < 0.5 * (other.high - other.low)


def test_the_interval_is_as_wide_as_a_plain_bootstrap_of_the_auc() -> None:
    rng = np.random.default_rng(1)
    user, label = np.repeat(np.arange(300), 5), rng.random(1500) < 0.4
    score = (label + 1.5 * rng.normal(size=1500)).astype(np.float32)
    found = compare({LEADER: score}, known(label, user), quick())[LEADER]
    rows = np.arange(1500).reshape(300, 5)
    draws = []
    for _ in range(400):
        chosen = rows[rng.integers(0, 300, 300)].ravel()
        draws.append(auc(score[chosen], label[chosen]))
    low, high = np.percentile(draws, [2.5, 97.5])
    assert found.high - found.low == pytest.approx(high - low, rel=0.15)
    assert found.low == pytest.approx(low, abs=0.01)


def test_an_outcome_without_both_classes_has_no_score() -> None:
    nothing = np.zeros(5, np.bool_)
    scores = {LEADER: np.ones(5, np.float32)}
    assert compare(scores, known(nothing, np.arange(5)), quick()) == {}
