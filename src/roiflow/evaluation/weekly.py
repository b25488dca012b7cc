"""The evaluation of one week: prediction metrics of every model, ROI of the new policy.

Everything is measured on the test week, which no model has seen; position factors come from the
validation days. The direct model is the ranker itself, trained on earlier weeks, so it needs no
cross-fitting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from roiflow.artefacts.evaluation import (
    Leaks,
    Metrics,
    Report,
    RoiEstimate,
    Rows,
    SlateCounts,
)
from roiflow.data.split import TEST, TRAIN, VALIDATION
from roiflow.evaluation import ranking, roi
from roiflow.evaluation.gate import PRIMARY
from roiflow.evaluation.slates import (
    Slates,
    logged_slates,
    position_factors,
    target_on_log,
)
from roiflow.features.table import AD_ATTRIBUTES, Features, Flags, Floats, Longs
from roiflow.params import EvaluateParams
from roiflow.policy.candidate_sets import CandidateSets, Engine, Selector, score_requests
from roiflow.policy.network import SlatePolicy
from roiflow.policy.plackett_luce import sample
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.value import CostShares

DRAWS = 32
"""Slates drawn from the policy for each request, for its share of each position."""

POPULARITY_STRENGTH = 20.0
CATEGORY = AD_ATTRIBUTES.index("category")

_RANKING, _REQUESTS, _DRAWS, _RESAMPLES, _SHOWN = range(5)

Progress = Callable[[float, str], None]


def silent(_fraction: float, _text: str) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Evaluation:
    """What the gate, the registry and the weekly report read."""

    report: Report
    calibration: ranking.CalibrationCurve


def evaluate_week(
    features: Features,
    engine: Engine,
    selector: Selector,
    ranker: Ranker,
    baselines: Mapping[str, Ranker],
    policy: SlatePolicy,
    shares: CostShares,
    params: EvaluateParams,
    *,
    progress: Progress = silent,
) -> Evaluation:
    """Raises ContractError where the test week holds no whole slate."""
    log = features.impressions
    rows = features.rows(TEST)
    slates, chosen = test_slates(features, policy.slate_size, params)
    models, curve = _models(features, rows, {ranker.name: ranker, **baselines}, params, progress)
    progress(0.5, "candidates of the test week's slates")
    sets = score_requests(
        features, engine, selector, ranker, shares, rows=slates.row, k=policy.top_k
    )
    logits = policy.logits(sets)
    factors = validation_factors(features, ranker)
    progress(0.8, "off-policy evaluation")
    estimates = policy_roi(features, slates, {"": (sets, logits, shares, factors)}, params)[""]
    shown = _shown_ads(sets, logits, policy.slate_size, params.seed)
    train = np.concatenate([features.rows(TRAIN), features.rows(VALIDATION)])
    report = Report(
        week=features.catalogues[-1].week,
        ranker=ranker.name,
        impressions=Rows(*(int(features.rows(split).size) for split in (TRAIN, VALIDATION, TEST))),
        slates=chosen,
        propensities_logged=bool(slates.logged.all()),
        models=models,
        position_factors=tuple(factors[1:].tolist()),
        roi=estimates,
        policy=ranking.slate_metrics(
            shown,
            np.asarray(features.catalogues[-1].ad),
            np.bincount(
                log.ad[train], weights=log.clicked[train], minlength=features.attributes.shape[0]
            ).astype(np.int64),
            np.asarray(features.attributes[:, CATEGORY]),
        ),
        suspected_leak=suspected_leaks(models, estimates, params),
        suspicious_lift=params.suspicious_lift,
    )
    progress(1.0, "done")
    return Evaluation(report, curve)


def test_slates(
    features: Features, slots: int, params: EvaluateParams
) -> tuple[Slates, SlateCounts]:
    """Whole slates of the test week, drawn at random, and their counts.

    At most `params.requests`, and fewer of a large catalogue: `params.max_pairs` over its size.
    Where some slates have propensities and some have not, only those that have are taken.
    """
    slates = logged_slates(features, features.rows(TEST), slots)
    whole, logged = slates.row.size, int(slates.logged.sum())
    usable = np.flatnonzero(slates.logged) if logged else np.arange(whole)
    limit = min(params.requests, max(1, params.max_pairs // features.catalogues[-1].ad.size))
    if usable.size > limit:
        rng = np.random.default_rng([params.seed, _REQUESTS])
        usable = np.sort(rng.choice(usable, limit, replace=False))
    return slates.take(usable), SlateCounts(whole, logged, int(usable.size))


test_slates.__test__ = False  # type: ignore[attr-defined]


def validation_factors(features: Features, ranker: Ranker) -> Floats:
    """Position factors of a ranker, from the validation days."""
    rows = features.rows(VALIDATION)
    log = features.impressions
    predicted = ranker.predict(features, rows).click.astype(np.float64)
    return position_factors(log.position[rows], log.clicked[rows], predicted)


Target = tuple[CandidateSets, Floats, CostShares, Floats]
"""A policy on the slates: candidate sets, logits (B, K), cost shares, position factors."""


def policy_roi(
    features: Features,
    slates: Slates,
    targets: Mapping[str, Target],
    params: EvaluateParams,
) -> dict[str, dict[str, RoiEstimate]]:
    """ROI of each target by each estimator, lift over the logging policy, users resampled."""
    return {
        name: roi.estimate_roi(
            slates.user,
            roi.logged_terms(slates),
            terms,
            resamples=params.resamples,
            confidence=params.confidence,
            limits=params,
            rng=np.random.default_rng([params.seed, _RESAMPLES]),
        )
        for name, terms in policy_terms(features, slates, targets, params.seed).items()
    }


def policy_terms(
    features: Features, slates: Slates, targets: Mapping[str, Target], seed: int
) -> dict[str, dict[str, roi.Terms]]:
    """Terms of each target by each estimator, on the same slates and the same random draws."""
    in_test = np.zeros(features.attributes.shape[0], dtype=bool)
    in_test[features.impressions.ad[features.rows(TEST)]] = True
    return {
        name: roi.target_terms(
            slates,
            target_on_log(
                slates,
                sets,
                logits,
                shares,
                factors=factors,
                shown=in_test,
                draws=DRAWS,
                rng=np.random.default_rng([seed, _DRAWS]),
            ),
        )
        for name, (sets, logits, shares, factors) in targets.items()
    }


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
    primary = estimates.get(PRIMARY)
    lift = None if primary is None else primary.lift.value
    suspicious = lift is not None and lift > params.suspicious_lift
    words = f"lift by {PRIMARY} {lift:.3f} over {params.suspicious_lift:g}" if suspicious else ""
    return Leaks(tuple(predictions), (words,) if suspicious else ())


def _models(
    features: Features,
    rows: Longs,
    rankers: Mapping[str, Ranker],
    params: EvaluateParams,
    progress: Progress,
) -> tuple[dict[str, Metrics], ranking.CalibrationCurve]:
    """Metrics by model, and the click calibration of the first."""
    log = features.impressions
    user, labels = log.user[rows], {"click": log.clicked[rows], "conversion": log.converted[rows]}
    models: dict[str, Metrics] = {}
    curves = []
    for number, (name, ranker) in enumerate(rankers.items()):
        progress(0.4 * number / len(rankers), f"predictions of {name}")
        ranked = ranker.predict(features, rows)
        shown = ranker.predict(features, rows, logged_position=True)
        curves.append(ranking.calibration_curve(shown.click.astype(np.float64), labels["click"]))
        models[name] = {}
        for label, score, calibrated in (
            ("click", ranked.click, shown.click),
            ("conversion", ranked.conversion, shown.conversion),
        ):
            models[name] |= _label(label, score, calibrated, labels[label], user, params)
    models["popularity"] = {}
    past = np.concatenate([features.rows(TRAIN), features.rows(VALIDATION)])
    for label, events in (("click", log.clicked), ("conversion", log.converted)):
        rate = ranking.popularity(
            log.ad[past], events[past], features.attributes.shape[0], POPULARITY_STRENGTH
        )
        by_ad = rate[log.ad[rows]]
        models["popularity"] |= _label(label, by_ad, by_ad, labels[label], user, params)
    return models, curves[0]


def _label(
    name: str,
    score: Any,
    calibrated: Any,
    label: Flags,
    user: Any,
    params: EvaluateParams,
) -> dict[str, float | None]:
    return ranking.label_metrics(
        name,
        score.astype(np.float64),
        calibrated.astype(np.float64),
        label,
        user,
        confidence=params.confidence,
        rng=np.random.default_rng([params.seed, _RANKING]),
    )


def _shown_ads(sets: CandidateSets, logits: Floats, slots: int, seed: int) -> Any:
    """One slate (B, slots) of each request, drawn from the policy."""
    choices, _ = sample(logits, slots, np.random.default_rng([seed, _SHOWN]))
    ads = np.take_along_axis(sets.ad, np.maximum(choices, 0), axis=1)
    return np.where(choices >= 0, ads, -1)
