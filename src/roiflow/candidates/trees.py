"""Gradient-boosted trees (XGBoost, histogram method) on numbers, codes and position."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiflow.candidates.forest import Forest
from roiflow.features.table import Flags, Longs, Singles
from roiflow.params import XgboostParams

FILES = {"click": "click.json", "conversion": "conversion.json"}


@dataclass(frozen=True)
class Trees:
    """P(click) and P(click and conversion), one forest each."""

    click: Forest
    conversion: Forest

    def probabilities(
        self, numbers: Singles, codes: Longs, position: Longs | None
    ) -> tuple[Singles, Singles]:
        """(n, F) raw, (n, C), (n,) or None for position 1 -> click (n,), conversion (n,)."""
        if position is None:
            position = np.ones(codes.shape[0], np.int64)
        data = matrix(numbers, codes, position)
        return self.click.inplace_predict(data), self.conversion.inplace_predict(data)

    def save(self, folder: Path) -> None:
        """Write one JSON file for each, cut to its best iteration."""
        self.click.save_model(folder / FILES["click"])
        self.conversion.save_model(folder / FILES["conversion"])

    @classmethod
    def load(cls, folder: Path) -> "Trees":
        """Read what `save` wrote, as compiled trees; raises PackageError, naming the file."""
        forests = {what: Forest.load(folder / name) for what, name in FILES.items()}
        return cls(forests["click"], forests["conversion"])


def matrix(numbers: Singles, codes: Longs, position: Longs) -> Singles:
    """(n, F), (n, C), (n,) -> (n, F + C + 1)."""
    return np.concatenate([numbers, codes, position[:, None]], axis=1, dtype=np.float32)


def fit(
    *,
    data: Singles,
    clicked: Flags,
    converted: Flags,
    held_out: Flags,
    params: XgboostParams,
    seed: int,
) -> Trees:
    """Boost on the rows outside `held_out` (n,), stop early on those inside; one thread."""
    import xgboost

    def outcome(label: Flags, name: str) -> Forest:
        train = xgboost.QuantileDMatrix(data[~held_out], label[~held_out], nthread=1)
        valid = xgboost.QuantileDMatrix(data[held_out], label[held_out], ref=train, nthread=1)
        stops = bool(held_out.any())
        booster = xgboost.train(
            {
                "objective": "binary:logistic",
                "eval_metric": "logloss",
                "tree_method": "hist",
                "max_depth": params.max_depth,
                "learning_rate": params.learning_rate,
                "min_child_weight": params.min_child_weight,
                "seed": seed,
                "nthread": 1,
            },
            train,
            num_boost_round=params.rounds,
            evals=[(valid, "validation")] if stops else [],
            early_stopping_rounds=params.early_stopping_rounds if stops else None,
            verbose_eval=False,
        )
        best = booster[: booster.best_iteration + 1] if stops else booster
        # What is used here is what a reader of the files will use, bit by bit.
        return Forest.parse(bytes(best.save_raw("json")), Path(name))

    return Trees(outcome(clicked, FILES["click"]), outcome(converted, FILES["conversion"]))
