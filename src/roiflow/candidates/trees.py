"""Gradient-boosted trees (XGBoost, histogram method) on numbers, codes and position."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiflow.candidates.design import Rows
from roiflow.candidates.forest import Booster, Forest
from roiflow.features.table import Flags, Singles
from roiflow.params import XgboostParams

FILES = ("click.json", "conversion.json")


@dataclass(frozen=True)
class Trees:
    """P(click) and P(click and conversion): a booster each, scored as one forest."""

    boosters: tuple[Booster, Booster]
    forest: Forest

    @classmethod
    def of(cls, *boosters: Booster) -> "Trees":
        """In the order of FILES."""
        click, conversion = boosters
        return cls((click, conversion), Forest.of(boosters))

    def probabilities(self, rows: Rows) -> tuple[Singles, Singles]:
        """Rows (n,) -> click (n,), conversion (n,)."""
        click, conversion = self.forest.probabilities(rows)
        return click, conversion

    def save(self, folder: Path) -> None:
        """Write one JSON file for each, cut to its best iteration."""
        for name, booster in zip(FILES, self.boosters, strict=True):
            (folder / name).write_bytes(booster.content)

    @classmethod
    def load(cls, folder: Path) -> "Trees":
        """Read what `save` wrote, as compiled trees; raises PackageError, naming the file."""
        return cls.of(*(Booster.load(folder / name) for name in FILES))


def matrix(rows: Rows) -> Singles:
    """Rows (n,) -> (n, F + C + 1), as the library takes them."""
    parts = [rows.numbers, rows.codes, rows.position[:, None]]
    return np.concatenate(parts, axis=1, dtype=np.float32)


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

    def outcome(label: Flags, name: str) -> Booster:
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
        return Booster.parse(bytes(best.save_raw("json")), Path(name))

    return Trees.of(outcome(clicked, FILES[0]), outcome(converted, FILES[1]))
