"""Pre-selection's scorer against the library that trained its trees; equal answers first."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xgboost

from roiflow.candidates.design import Rows
from roiflow.candidates.forest import Booster, Forest
from roiflow.candidates.trees import matrix
from roiflow.features.table import Flags, Singles
from tests.conftest import Record

ADS, NUMBERS, CODES, TREES, ROUNDS = 100, 49, 16, 62, 7
RATIO = 1.0


def draw(requests: int, seed: int) -> tuple[Rows, Flags]:
    """Rows of ADS ads a request and their label; a third of the features are the user's."""
    rng = np.random.default_rng(seed)
    numbers = rng.lognormal(size=(requests, ADS, NUMBERS)).astype(np.float32)
    numbers[:, :, : NUMBERS // 3] = numbers[:, :1, : NUMBERS // 3]
    codes = rng.integers(0, 30, size=(requests, ADS, CODES)).astype(np.int32)
    codes[:, :, : CODES // 2] = codes[:, :1, : CODES // 2]
    rows = Rows(numbers.reshape(-1, NUMBERS), codes.reshape(-1, CODES))
    logit = np.log(rows.numbers) @ rng.normal(size=NUMBERS) / 4 + (rows.codes % 5 == 0).sum(1) / 4
    return rows, rng.random(logit.size) < 1 / (1 + np.exp(2 - logit))


def margins_of(trained: xgboost.Booster, data: Singles) -> Singles:
    return np.asarray(trained.inplace_predict(data, predict_type="margin"))


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("requests", [50, 200])
def test_the_scorer_beats_the_library(tmp_path: Path, requests: int, record: Record) -> None:
    paths = [tmp_path / "click.json", tmp_path / "conversion.json"]
    boosters = []
    for seed, path in enumerate(paths):
        data, label = draw(200, seed)
        trained = xgboost.train(
            {"objective": "binary:logistic", "max_depth": 5, "nthread": 1},
            xgboost.DMatrix(matrix(data), label, nthread=1),
            num_boost_round=TREES,
        )
        trained.save_model(path)
        boosters.append(trained)
    forest = Forest.of([Booster.load(path) for path in paths])
    rows, _ = draw(requests, 7)
    flat = matrix(rows)

    def library() -> Singles:
        return np.stack([margins_of(trained, flat) for trained in boosters])

    np.testing.assert_allclose(forest.margins(rows), library(), rtol=0, atol=1e-6)
    pairs = []
    for _ in range(ROUNDS):
        ours, theirs = seconds(lambda: forest.margins(rows)), seconds(library)
        pairs.append((ours, theirs / ours))
    ours, ratio = np.median(pairs, axis=0)
    record(
        f"pre-selection, {requests * ADS:,} ads, two forests of {TREES} trees",
        f"{1e3 * ours:.2f} ms of CPU, {ratio:.1f} x inplace_predict",
    )
    assert ratio > RATIO
