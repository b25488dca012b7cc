"""Gradient-boosted trees (XGBoost, histogram method) on numbers, codes and position."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.candidates.design import CHUNK_ROWS, Design, Examples, Rows
from roiflow.candidates.forest import Booster, Forest
from roiflow.features.table import Features, Longs, Singles
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
    features: Features,
    design: Design,
    train: Examples,
    held_out: Examples,
    params: XgboostParams,
    seed: int,
) -> Trees:
    """Boost on `train`, stop early on `held_out`; one thread."""
    with tempfile.TemporaryDirectory(prefix="roiflow-pages-") as scratch:
        pages = Path(scratch) if train.rows.size > params.rows_in_memory else None
        log = _Log(features, design, params.max_bin, pages)
        # In a function of its own, whose end closes the pages before their folder goes.
        return Trees.of(*_boost(log, train, held_out, params, seed))


@dataclass(frozen=True)
class _Log:
    """Gives the library what it learns from.

    It is given CHUNK_ROWS impressions at a time and keeps a byte of each feature, the number of its
    quantile, so that no matrix of all impressions is ever made. With a folder for `pages` those
    bytes lie in files that it reads one by one: the same trees to the bit for a fifth more CPU.
    """

    features: Features
    design: Design
    max_bin: int
    pages: Path | None

    def matrix(self, name: str, rows: Longs, like: Any = None) -> Any:
        """Quantiles of the impressions `rows` (n,), between the bounds of those of `like`."""
        import xgboost

        log, prefix = self, str(self.pages / name) if self.pages else None

        class Chunks(xgboost.DataIter):
            def __init__(self) -> None:
                self._next = 0
                super().__init__(cache_prefix=prefix)

            def reset(self) -> None:
                self._next = 0

            def next(self, input_data: Any) -> bool:
                here = rows[self._next : self._next + CHUNK_ROWS]
                if here.size:
                    read = log.design.impressions(log.features, here, logged_position=True)
                    input_data(data=matrix(read))
                self._next += here.size
                return bool(here.size)

        kind = xgboost.ExtMemQuantileDMatrix if self.pages else xgboost.QuantileDMatrix
        return kind(Chunks(), ref=like, max_bin=self.max_bin, nthread=1)


def _boost(
    log: _Log, train: Examples, held_out: Examples, params: XgboostParams, seed: int
) -> Iterator[Booster]:
    """One booster an outcome, in the order of FILES, cut to its best iteration."""
    import xgboost

    # Both outcomes learn from the same matrices; only the labels change between them.
    learnt, evals = log.matrix("train", train.rows), []
    if held_out.rows.size:
        evals = [(log.matrix("held_out", held_out.rows, learnt), "validation")]
    for name, label, held_out_label in (
        (FILES[0], train.clicked, held_out.clicked),
        (FILES[1], train.converted, held_out.converted),
    ):
        learnt.set_label(label)
        for checked, _ in evals:
            checked.set_label(held_out_label)
        booster = xgboost.train(
            {
                "objective": "binary:logistic",
                "eval_metric": "logloss",
                "tree_method": "hist",
                "max_depth": params.max_depth,
                "max_bin": params.max_bin,
                "learning_rate": params.learning_rate,
                "min_child_weight": params.min_child_weight,
                "seed": seed,
                "nthread": 1,
            },
            learnt,
            num_boost_round=params.rounds,
            evals=evals,
            early_stopping_rounds=params.early_stopping_rounds if evals else None,
            verbose_eval=False,
        )
        best = booster[: booster.best_iteration + 1] if evals else booster
        # What is used here is what a reader of the files will use, bit by bit.
        yield Booster.parse(bytes(best.save_raw("json")), Path(name))
