"""Every model on one split: trained on TRAIN, stopped on VALIDATION, compared on TEST.

Intervals are over users (cluster bootstrap of each AUC's linear part, all models on the same
draws), so the lead of one model over another has an interval of its own, narrower than the two
models' intervals suggest.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from roiflow.candidates import selector as candidates
from roiflow.data.split import TEST
from roiflow.evaluation.ranking import Happened, auc_influence, happened
from roiflow.evaluation.statistics import cluster_sums, percentile_interval, resampled_totals
from roiflow.features.table import Features, Singles
from roiflow.labels.model import Labels
from roiflow.params import Params
from roiflow.ranking.protocol import Predictions, Ranker

LEADER = "rosa"
OUTCOMES = ("click", "conversion")
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Score:
    """An AUC on all logged impressions of the test week, and the leader's lead over it."""

    auc: float
    low: float
    high: float
    lead: float
    lead_low: float
    lead_high: float


@dataclass(frozen=True)
class Line:
    """One model of the leaderboard; an outcome that the week lacks is None."""

    model: str
    click: Score | None
    conversion: Score | None
    train_seconds: float  # CPU


def trainers(features: Features, labels: Labels, params: Params) -> dict[str, Callable[[], Ranker]]:
    """Name -> train; in the order of the table."""
    # Torch takes seconds to load, and `compare` alone does not need it.
    from roiflow.ranking.baselines import popularity
    from roiflow.ranking.baselines.din import DinRanker
    from roiflow.ranking.baselines.sasrec import SasRecRanker
    from roiflow.ranking.rosa import RosaRanker
    from roiflow.ranking.train import fit

    return {
        "popularity": lambda: popularity.fit(features, labels),
        "logistic": lambda: candidates.fit(features, labels, params.train_candidates, "logistic"),
        "xgboost": lambda: candidates.fit(features, labels, params.train_candidates, "xgboost"),
        "sasrec": lambda: fit(SasRecRanker, features, labels, params.train_ranker)[0],
        "din": lambda: fit(DinRanker, features, labels, params.train_ranker)[0],
        LEADER: lambda: fit(RosaRanker, features, labels, params.train_ranker)[0],
    }


def leaderboard(
    features: Features, labels: Labels, params: Params, progress: Progress | None = None
) -> list[Line]:
    """Train all models and compare their click and conversion AUCs on the TEST rows."""
    rows = features.rows(TEST)
    predictions: dict[str, Predictions] = {}
    seconds: dict[str, float] = {}
    models = trainers(features, labels, params)
    for name, ranker, spent in _train(models, progress):
        predictions[name], seconds[name] = ranker.predict(features, rows), spent
    outcomes = happened(features, labels, rows, params.evaluate.min_maturity)
    scores = {
        outcome: compare(
            {name: getattr(found, outcome) for name, found in predictions.items()},
            outcomes[outcome],
            params,
        )
        for outcome in OUTCOMES
    }
    return [
        Line(name, scores["click"].get(name), scores["conversion"].get(name), seconds[name])
        for name in models
    ]


def _train(
    models: dict[str, Callable[[], Ranker]], progress: Progress | None
) -> Iterator[tuple[str, Ranker, float]]:
    for done, (name, train) in enumerate(models.items()):
        if progress:
            progress(done / len(models), f"train {name}")
        # CPU, not wall: a neighbour on the machine must not change the table.
        start = time.process_time()
        ranker = train()
        yield name, ranker, time.process_time() - start
    if progress:
        progress(1.0, "trained")


def compare(scores: dict[str, Singles], found: Happened, params: Params) -> dict[str, Score]:
    """Scores (n,) by model -> AUCs with intervals; nothing where a class is absent.

    Known conversions stand for those that are not known yet.
    """
    weight = found.weight
    told = weight > 0
    if not 0 < found.label[told].sum() < told.sum():
        return {}
    names = list(scores)
    # An AUC is no sum over rows; its influences are, to first order, and a user's add up. A
    # resampled AUC is the value plus the drawn users' influences: nothing is sorted again.
    each = [auc_influence(scores[name].astype(np.float64), found.label, weight) for name in names]
    value, influence = np.array([one for one, _ in each]), np.column_stack([one for _, one in each])
    # One set of draws for all models: what a draw of users does to one, it does to the other.
    rng = np.random.default_rng(params.evaluate.seed)
    by_user = cluster_sums(found.user, influence)
    draws = value + resampled_totals(by_user, params.evaluate.resamples, rng)
    first = names.index(LEADER)
    confidence = params.evaluate.confidence
    return {
        name: Score(
            float(value[at]),
            *percentile_interval(draws[:, at], confidence),
            float(value[first] - value[at]),
            *percentile_interval(draws[:, first] - draws[:, at], confidence),
        )
        for at, name in enumerate(names)
    }
