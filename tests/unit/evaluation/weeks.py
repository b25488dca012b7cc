"""A tiny world's week, evaluated with its pre-selection models as rankers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiflow.artefacts.evaluation import Report
from roiflow.candidates import selector as candidates
from roiflow.candidates.selector import Selector
from roiflow.data.split import VALIDATION
from roiflow.evaluation.weekly import Evaluation, evaluate_week
from roiflow.features.engine import Engine, open_engine
from roiflow.features.folder import read
from roiflow.features.table import Features
from roiflow.params import EvaluateParams, load_params
from roiflow.policy import network as policy_network
from roiflow.policy.candidate_sets import first_rows, score_requests
from roiflow.policy.network import SlatePolicy
from tests.records import leave
from tests.unit.serving.packages import ROOT, SHARES, SLATE, TOP_K, TinyWorld

PARAMS = load_params(ROOT / "params.yaml")
EVALUATE: EvaluateParams = PARAMS.evaluate.model_copy(
    update={"requests": 300, "resamples": 200, "min_effective_sample_size": 20.0}
)


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated, and the result."""

    features: Features
    engine: Engine
    logistic: Selector
    xgboost: Selector
    policy: SlatePolicy
    result: Evaluation

    def again(self, features: Features, params: EvaluateParams = EVALUATE) -> Evaluation:
        """The same evaluation on other features or parameters."""
        return evaluate_week(
            features,
            self.engine,
            self.logistic,
            self.logistic,
            {"xgboost": self.xgboost},
            self.policy,
            SHARES,
            params,
        )


def evaluated_week(world: TinyWorld, params: EvaluateParams = EVALUATE) -> Evaluated:
    """Fit both selectors, start a policy from the first, evaluate."""
    features, engine = read(world.features), open_engine(world.features)
    logistic, xgboost = (
        candidates.fit(features, PARAMS.train_candidates, kind) for kind in candidates.KINDS
    )
    rows = first_rows(features, features.rows(VALIDATION))
    training = score_requests(features, engine, logistic, logistic, SHARES, rows=rows, k=TOP_K)
    policy = policy_network.start(
        training,
        slate_size=SLATE,
        top_k=TOP_K,
        cost_weight=1.0,
        temperature=2.0,
        residual_bound=1.0,
        network=policy_network.Network.start(4, np.random.default_rng(1)),
    )
    result = evaluate_week(
        features, engine, logistic, logistic, {"xgboost": xgboost}, policy, SHARES, params
    )
    return Evaluated(features, engine, logistic, xgboost, policy, result)


def run_folder(folder: Path, world: TinyWorld, report: Report, package: Path) -> Path:
    """A run folder that holds features, package and report."""
    leave(folder, report)
    (folder / "data/features").symlink_to(world.features)
    (folder / "data/package").symlink_to(package)
    return folder
