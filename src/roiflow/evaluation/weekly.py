"""The evaluation of one week: prediction metrics of every model, ROI of the new policy.

Everything is measured on the test week, which no model has seen; what is looked at was learnt
before it. Conversions that are still to come are allowed for (labels), and each figure that rests
on conversions says what share of them is known. The direct model is the ranker itself, trained on
earlier weeks, so it needs no cross-fitting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roiflow.artefacts.evaluation import (
    PRIMARY,
    Leaks,
    Metrics,
    Report,
    RoiEstimate,
    Rows,
    SlateCounts,
)
from roiflow.data.split import TEST, TRAIN, VALIDATION
from roiflow.evaluation import ranking, roi
from roiflow.evaluation.estimators.logger import chances_of_log
from roiflow.evaluation.replay import on_log
from roiflow.evaluation.slates import Slates, logged_slates
from roiflow.evaluation.statistics import one_blas_thread
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.terms import logged_terms, target_terms
from roiflow.features.engine import Engine
from roiflow.features.table import AD_ATTRIBUTES, Features, Ints
from roiflow.labels.model import Labels
from roiflow.labels.settled import settle
from roiflow.params import EvaluateParams
from roiflow.ranking.protocol import Ranker
from roiflow.serving.recommender import Models

CATEGORY = AD_ATTRIBUTES.index("category")

_RANKING, _REQUESTS, _RESAMPLES = range(3)

Progress = Callable[[float, str], None]


def silent(_fraction: float, _text: str) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Evaluation:
    """What the screen, the registry and the weekly report read."""

    report: Report
    calibration: ranking.CalibrationCurve
    target: TargetOnLog
    """The package on the slates: the screen compares it with the champion's."""


@one_blas_thread()
def evaluate_week(
    features: Features,
    labels: Labels,
    engine: Engine,
    models: Models,
    rankers: Mapping[str, Ranker],
    params: EvaluateParams,
    *,
    threads: int = 1,
    progress: Progress = silent,
) -> Evaluation:
    """Of the package's `models`, and of `rankers`, of which the first is the package's own.

    Raises ContractError where the test week holds no whole slate.
    """
    name = next(iter(rankers))
    # One set of slates for every policy and estimator, drawn before any model is asked: a lift is
    # between two readings of the same page views.
    slates, chosen = test_slates(features, labels, models.about.slate_size, params)
    metrics, curve = _models(features, labels, rankers, params, progress)
    progress(0.5, "the package on the test week's slates")
    week = LoggedWeek.of(features, labels)
    target = on_log(models, features, engine, slates, week, params, threads)
    progress(0.9, "off-policy evaluation")
    logged = chances_of_log(slates, target, params.draws)
    estimates = roi.estimate_roi(
        np.unique(slates.user),
        logged_terms(slates),
        target_terms(slates, target, logged, params),
        slates=slates.row.size,
        resamples=params.resamples,
        confidence=params.confidence,
        limits=params,
        cost_weight=models.about.cost_weight,
        rng=np.random.default_rng([params.seed, _RESAMPLES]),
    )
    report = Report(
        week=features.catalogues[-1].week,
        package=models.digest,
        ranker=name,
        impressions=Rows(*(int(features.rows(split).size) for split in (TRAIN, VALIDATION, TEST))),
        slates=chosen,
        propensities_logged=bool(slates.logged.all()),
        models=metrics,
        examination=tuple(labels.examination.factor.tolist()),
        maturity=slates.maturity(),
        roi=estimates,
        policy=_drawn_slates(features, target.drawn),
        suspected_leak=suspected_leaks(metrics, estimates, params),
        suspicious_lift=params.suspicious_lift,
    )
    progress(1.0, "done")
    return Evaluation(report, curve, target)


def _drawn_slates(features: Features, drawn: Ints) -> dict[str, float]:
    """What slates (B, S) that the policy drew look like."""
    log = features.impressions
    past = np.concatenate([features.rows(TRAIN), features.rows(VALIDATION)])
    # Clicks from before the test week: its own would make popular what was shown in it.
    clicks = np.bincount(
        log.ad[past], weights=log.clicked[past], minlength=features.attributes.shape[0]
    )
    return ranking.slate_metrics(
        drawn,
        np.asarray(features.catalogues[-1].ad),
        clicks.astype(np.int64),
        np.asarray(features.attributes[:, CATEGORY]),
    )


def test_slates(
    features: Features, labels: Labels, slots: int, params: EvaluateParams
) -> tuple[Slates, SlateCounts]:
    """Whole slates of the test week, drawn at random, and their counts.

    At most `params.requests`, and fewer of a large catalogue: `params.max_pairs` over its size.
    Where some slates have propensities and some have not, only those that have are taken.
    """
    # A policy that was switched on mid-week leaves slates of both kinds; those that tell their
    # propensities are a sample by time, the others can only be modelled.
    slates = logged_slates(features, labels, features.rows(TEST), slots)
    whole, logged = slates.row.size, int(slates.logged.sum())
    usable = np.flatnonzero(slates.logged) if logged else np.arange(whole)
    # Every slate is scored over the whole catalogue, so the cost is slates times ads, and that is
    # what is bounded.
    limit = min(params.requests, max(1, params.max_pairs // features.catalogues[-1].ad.size))
    if usable.size > limit:
        rng = np.random.default_rng([params.seed, _REQUESTS])
        usable = np.sort(rng.choice(usable, limit, replace=False))
    return slates.take(usable), SlateCounts(whole, logged, int(usable.size))


test_slates.__test__ = False  # type: ignore[attr-defined]


def suspected_leaks(
    models: Mapping[str, Metrics],
    estimates: Mapping[str, RoiEstimate],
    params: EvaluateParams,
) -> Leaks:
    """Results too good to be true, in words: of predictions and of ROI."""
    predictions = []
    for model, metrics in models.items():
        for label in ("click", "conversion"):
            name = f"test_full_{label}_auc"
            value = metrics.get(name)
            if value is not None and value > params.suspicious_auc:
                predictions.append(f"{model}: {name} {value:.4f} over {params.suspicious_auc:g}")
    # Only the estimator that decides can raise the alarm: the others err in other ways, and that
    # one of several is high is no rare thing.
    primary = estimates.get(PRIMARY)
    lift = None if primary is None else primary.lift.value
    suspicious = lift is not None and lift > params.suspicious_lift
    words = f"lift by {PRIMARY} {lift:.3f} over {params.suspicious_lift:g}" if suspicious else ""
    return Leaks(tuple(predictions), (words,) if suspicious else ())


def _models(
    features: Features,
    labels: Labels,
    rankers: Mapping[str, Ranker],
    params: EvaluateParams,
    progress: Progress,
) -> tuple[dict[str, Metrics], ranking.CalibrationCurve]:
    """Metrics of each model on the test week, and the click calibration of the first."""
    log, rows = features.impressions, features.rows(TEST)
    happened = ranking.happened(features, labels, rows, params.min_maturity)
    models: dict[str, Metrics] = {}
    curves = []
    for number, (name, ranker) in enumerate(rankers.items()):
        progress(0.4 * number / len(rankers), f"predictions of {name}")
        # Ordering is judged at position 1, or a model would be praised for knowing where an ad
        # stood; calibration at the position where it stood, where what happened happened.
        ranked = ranker.predict(features, rows)
        shown = ranker.predict(features, rows, logged_position=True)
        curves.append(
            ranking.calibration_curve(
                shown.click.astype(np.float64), happened["click"].label, params.calibration_bins
            )
        )
        models[name] = {}
        for label, score, calibrated in (
            ("click", ranked.click, shown.click),
            ("conversion", ranked.conversion, shown.conversion),
        ):
            models[name] |= _label(label, score, calibrated, happened[label], params)
    models["popularity"] = {}
    past = np.concatenate([features.rows(TRAIN), features.rows(VALIDATION)])
    for label, events in (("click", log.clicked), ("conversion", log.converted)):
        rate = ranking.popularity(
            log.ad[past], events[past], features.attributes.shape[0], params.popularity_strength
        )
        by_ad = rate[log.ad[rows]]
        models["popularity"] |= _label(label, by_ad, by_ad, happened[label], params)
    maturity = settle(labels, features, rows).maturity
    for found in models.values():
        found["test_full_conversion_maturity"] = maturity
    return models, curves[0]


def _label(
    name: str,
    score: Any,
    calibrated: Any,
    happened: ranking.Happened,
    params: EvaluateParams,
) -> dict[str, float | None]:
    return ranking.label_metrics(
        name,
        score.astype(np.float64),
        calibrated.astype(np.float64),
        happened,
        confidence=params.confidence,
        bins=params.calibration_bins,
        rng=np.random.default_rng([params.seed, _RANKING]),
    )
