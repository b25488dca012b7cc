"""Gradient-boosted trees (XGBoost, histogram method) on numbers and codes.

The library's own logistic loss knows no exposure, so slopes and information of ours are handed to
it; what it saves is a logistic model all the same, since both start and end in logits.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.candidates.design import CHUNK_ROWS, Design, Rows
from roiflow.candidates.forest import OBJECTIVE, Booster, Forest
from roiflow.features.table import Features, Flags, Floats, Longs, Singles
from roiflow.params import BoostingParams, XgboostParams
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import likelihood, rate

FILES = ("click.json", "conversion.json")


@dataclass(frozen=True)
class Trees:
    """P(click) and P(conversion | click): a booster each, scored as one forest."""

    boosters: tuple[Booster, Booster]
    forest: Forest

    @classmethod
    def of(cls, *boosters: Booster) -> "Trees":
        """In the order of FILES."""
        click, conversion = boosters
        return cls((click, conversion), Forest.of(boosters))

    def logits(self, rows: Rows) -> tuple[Singles, Singles]:
        """Rows (n,) -> click (n,), conversion given a click (n,)."""
        click, conversion = self.forest.margins(rows)
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
    """Rows (n,) -> (n, F + C), as the library takes them."""
    return np.concatenate([rows.numbers, rows.codes], axis=1, dtype=np.float32)


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
        log = Source(features, design, params.max_bin, pages)
        # In a function of its own, whose end closes the pages before their folder goes.
        return Trees.of(*_boost(log, train, held_out, params, seed))


@dataclass(frozen=True)
class Source:
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
                    read = log.design.impressions(log.features, here)
                    input_data(data=matrix(read))
                self._next += here.size
                return bool(here.size)

        kind = xgboost.ExtMemQuantileDMatrix if self.pages else xgboost.QuantileDMatrix
        return kind(Chunks(), ref=like, max_bin=self.max_bin, nthread=1)


def _boost(
    log: Source, train: Examples, held_out: Examples, params: XgboostParams, seed: int
) -> Iterator[Booster]:
    """One booster an outcome, in the order of FILES."""
    # Clicks from all impressions by how much each was looked at, conversions from the clicked ones
    # by how ripe each is.
    yield Learner(log, params.click, params, seed).fit(
        FILES[0], *(Outcome(of.rows, of.examined, of.clicked) for of in (train, held_out))
    )
    yield Learner(log, params.conversion, params, seed).fit(
        FILES[1],
        *(Outcome(of.rows, of.matured, of.converted) for of in (train.clicks, held_out.clicks)),
    )


@dataclass(frozen=True)
class Outcome:
    """What one booster learns from, n."""

    rows: Longs
    exposure: Singles
    observed: Flags


@dataclass(frozen=True)
class Learner:
    """Boosts one outcome."""

    log: Source
    trees: BoostingParams
    params: XgboostParams
    seed: int

    def fit(self, name: str, train: Outcome, held_out: Outcome) -> Booster:
        """Cut to its best iteration; without both classes, no tree but the rate."""
        import xgboost

        # A logistic model without a row to learn from cannot be made: one row stands for none.
        rows = train.rows if train.rows.size else np.zeros(1, np.int64)
        learnt, evals = self.log.matrix(f"{name}-train", rows), []
        rounds = self.params.rounds if 0 < train.observed.sum() < train.observed.size else 0
        if held_out.observed.any() and rounds:
            checked = self.log.matrix(f"{name}-held-out", held_out.rows, learnt)
            evals = [(checked, "validation")]

        def pull(margin: Singles, _: Any) -> tuple[Floats, Floats]:
            _, slope, information = likelihood(margin, train.exposure, train.observed)
            return slope, information

        def loss(margin: Singles, _: Any) -> tuple[str, float]:
            total, _, _ = likelihood(margin, held_out.exposure, held_out.observed)
            return "loss", total / held_out.rows.size

        booster = xgboost.train(
            {
                "objective": OBJECTIVE,
                "disable_default_eval_metric": True,
                "base_score": rate(train.exposure, train.observed),
                "tree_method": "hist",
                "max_depth": self.trees.max_depth,
                "max_bin": self.params.max_bin,
                "learning_rate": self.trees.learning_rate,
                "min_child_weight": self.trees.min_child_weight,
                "lambda": self.trees.l2,
                "seed": self.seed,
                "nthread": 1,
            },
            learnt,
            num_boost_round=rounds,
            obj=pull,
            custom_metric=loss if evals else None,
            evals=evals,
            early_stopping_rounds=self.params.early_stopping_rounds if evals else None,
            verbose_eval=False,
        )
        best = booster[: booster.best_iteration + 1] if evals else booster
        # What is used here is what a reader of the files will use, bit by bit.
        return Booster.parse(bytes(best.save_raw("json")), Path(name))
