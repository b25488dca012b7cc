"""A tiny world's week, evaluated with its pre-selection models as rankers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiflow.candidates import selector as candidates
from roiflow.candidates.selector import Selector
from roiflow.evaluation.replay import Replayed
from roiflow.evaluation.target import TargetOnLog
from roiflow.evaluation.weekly import Evaluation, evaluate_week
from roiflow.features.engine import Engine, open_engine
from roiflow.features.folder import read
from roiflow.features.table import Features, Floats
from roiflow.labels.fit import fit
from roiflow.labels.model import Labels
from roiflow.params import EvaluateParams, load_params
from roiflow.policy.candidate_sets import CandidateSets, stack
from roiflow.registry import read_digest
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from tests.records import agreement, leave
from tests.unit.serving.packages import ROOT, TinyWorld

PARAMS = load_params(ROOT / "params.yaml")
EVALUATE: EvaluateParams = PARAMS.evaluate.model_copy(
    update={"requests": 300, "resamples": 200, "min_effective_sample_size": 20.0}
)


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, and the result."""

    features: Features
    labels: Labels
    engine: Engine
    models: Models
    logistic: Selector
    xgboost: Selector
    result: Evaluation

    def again(self, features: Features, params: EvaluateParams = EVALUATE) -> Evaluation:
        """The same evaluation on other features or parameters."""
        rankers = {"logistic": self.logistic, "xgboost": self.xgboost}
        return evaluate_week(features, self.labels, self.engine, self.models, rankers, params)


def evaluated_week(
    world: TinyWorld, package: Package, params: EvaluateParams = EVALUATE
) -> Evaluated:
    """Fit both selectors, evaluate them and the package."""
    features, engine, models = read(world.features), open_engine(world.features), Models(package)
    labels = fit(features, PARAMS.fit_labels).labels
    logistic, xgboost = (
        candidates.fit(features, labels, PARAMS.train_candidates, kind) for kind in candidates.KINDS
    )
    rankers = {"logistic": logistic, "xgboost": xgboost}
    result = evaluate_week(features, labels, engine, models, rankers, params)
    return Evaluated(features, labels, engine, models, logistic, xgboost, result)


def whole(parts: Iterable[Replayed]) -> tuple[CandidateSets, Floats]:
    """Candidate sets (B, K) and logits (B, K) in the order that was asked for."""
    found = list(parts)
    back = np.argsort(np.concatenate([part.at for part in found]))
    return (
        stack([part.sets for part in found]).take(back),
        np.concatenate([part.logits for part in found])[back],
    )


def run_folder(folder: Path, world: TinyWorld, evaluation: Evaluation, package: Path) -> Path:
    """A run folder that holds features, package and evaluation."""
    shipped = read_digest(package)
    leave(folder, evaluation.report, agreement(judged=evaluation.report.package, shipped=shipped))
    evaluation.target.write(folder / TargetOnLog.place)
    (folder / "data/features").symlink_to(world.features)
    labels = fit(read(world.features), PARAMS.fit_labels).labels
    labels.write(folder / Labels.place)
    (folder / "data/package").symlink_to(package)
    return folder
