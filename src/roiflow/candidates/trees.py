"""Gradient-boosted trees (XGBoost, histogram method) on numbers and codes.

The library's own logistic loss knows no exposure, so slopes and information of ours are handed to
it; what it saves is a logistic model all the same, since both start and end in logits.
"""

import tempfile
from collections.abc import Callable, Iterator
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

Rounds = tuple[int, int]
"""Trees of each outcome, in the order of FILES."""


@dataclass(frozen=True)
class Trees:
    """P(click) and P(conversion | click): a booster each, scored as one forest."""

    boosters: tuple[Booster, Booster]
    forest: Forest

    @property
    def rounds(self) -> "Rounds":
        """In the order of FILES."""
        click, conversion = self.boosters
        return len(click.trees), len(conversion.trees)

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
    stop: Examples | Rounds,
    params: XgboostParams,
    seed: int,
) -> Trees:
    """Boost on `train`, stop early on what is held out or after so many rounds; one thread."""
    with tempfile.TemporaryDirectory(prefix="roiflow-pages-") as scratch:
        pages = Path(scratch) if train.rows.size > params.rows_in_memory else None
        log = Source(features, design, params.max_bin, pages)
        # In a function of its own, whose end closes the pages before their folder goes.
        return Trees.of(*_boost(log, train, stop, params, seed))


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
    log: Source, train: Examples, stop: Examples | Rounds, params: XgboostParams, seed: int
) -> Iterator[Booster]:
    """One booster an outcome, in the order of FILES."""
    clicks, conversions = _outcomes(train)
    until, then = stop if isinstance(stop, tuple) else _outcomes(stop)
    yield Learner(log, params.click, params, seed).fit(FILES[0], clicks, until)
    yield Learner(log, params.conversion, params, seed).fit(FILES[1], conversions, then)


@dataclass(frozen=True)
class Outcome:
    """What one booster learns from, n."""

    rows: Longs
    exposure: Singles
    observed: Flags


def _outcomes(examples: Examples) -> tuple[Outcome, Outcome]:
    """In the order of FILES.

    Clicks come from all impressions by how much each was looked at, conversions from the clicked
    ones by how ripe each is.
    """
    clicks = examples.clicks
    return (
        Outcome(examples.rows, examples.examined, examples.clicked),
        Outcome(clicks.rows, clicks.matured, clicks.converted),
    )


@dataclass(frozen=True)
class Learner:
    """Boosts one outcome."""

    log: Source
    trees: BoostingParams
    params: XgboostParams
    seed: int

    def fit(self, name: str, train: Outcome, stop: Outcome | int) -> Booster:
        """Cut to its best iteration on what is held out, or after so many rounds.

        Without both classes, no tree but the rate.
        """
        import xgboost

        # A logistic model without a row to learn from cannot be made: one row stands for none.
        rows = train.rows if train.rows.size else np.zeros(1, np.int64)
        learnt = self.log.matrix(f"{name}-train", rows)
        rounds = stop if isinstance(stop, int) else self.params.rounds
        if not 0 < train.observed.sum() < train.observed.size:
            rounds = 0
        checked: dict[str, Any] = {}
        if isinstance(stop, Outcome) and stop.observed.any() and rounds:
            held_out = self.log.matrix(f"{name}-held-out", stop.rows, learnt)
            checked = {
                "custom_metric": _loss_on(stop),
                "evals": [(held_out, "validation")],
                "early_stopping_rounds": self.params.early_stopping_rounds,
            }

        def pull(margin: Singles, _: Any) -> tuple[Floats, Floats]:
            _, slope, information = likelihood(margin, train.exposure, train.observed)
            return slope, information

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
            verbose_eval=False,
            **checked,
        )
        best = booster[: booster.best_iteration + 1] if checked else booster
        # What is used here is what a reader of the files will use, bit by bit.
        return Booster.parse(bytes(best.save_raw("json")), Path(name))


def _loss_on(held_out: Outcome) -> Callable[[Singles, Any], tuple[str, float]]:
    """Mean loss in nats, as the library asks for it."""

    def loss(margin: Singles, _: Any) -> tuple[str, float]:
        total, _, _ = likelihood(margin, held_out.exposure, held_out.observed)
        return "loss", total / held_out.rows.size

    return loss
