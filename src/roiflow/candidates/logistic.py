"""Logistic regression on normalised numbers and one-hot codes; scoring needs numpy alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from roiflow.candidates.design import MAX_POSITION, Design, Rows
from roiflow.features.table import Flags, Floats, Ints, Singles, Statistics
from roiflow.params import LogisticParams

CLIP = 5.0
FILE = "logistic.json"


@dataclass(frozen=True)
class Weights:
    """One outcome's coefficients."""

    intercept: float
    numbers: tuple[float, ...]  # (F,)
    codes: tuple[tuple[float, ...], ...]  # by code column, by value
    position: tuple[float, ...]  # (MAX_POSITION + 1,), index 1 is 0

    def logit(self, numbers: Floats, codes: Ints, position: Ints) -> Floats:
        """(n, F) normalised, (n, C), (n,) -> (n,)."""
        total: Floats = self.intercept + np.asarray(numbers @ np.array(self.numbers), np.float64)
        for column, table in enumerate(self.codes):
            total += np.array(table)[codes[:, column]]
        return total + np.array(self.position)[position]


@dataclass(frozen=True)
class Logistic:
    """P(click) and P(click and conversion)."""

    centre: tuple[float, ...]  # (F,)
    scale: tuple[float, ...]  # (F,)
    click: Weights
    conversion: Weights

    def probabilities(self, rows: Rows) -> tuple[Singles, Singles]:
        """Rows (n,) -> click (n,), conversion (n,)."""
        scaled = normalise(rows.numbers, np.array(self.centre), np.array(self.scale))
        return (
            sigmoid(self.click.logit(scaled, rows.codes, rows.position)),
            sigmoid(self.conversion.logit(scaled, rows.codes, rows.position)),
        )

    def save(self, folder: Path) -> None:
        """Write logistic.json."""
        content = {
            "centre": self.centre,
            "scale": self.scale,
            "click": vars(self.click),
            "conversion": vars(self.conversion),
        }
        (folder / FILE).write_text(json.dumps(content) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Logistic":
        """Read logistic.json."""
        content = json.loads((folder / FILE).read_text())
        return cls(
            tuple(content["centre"]),
            tuple(content["scale"]),
            Weights(**content["click"]),
            Weights(**content["conversion"]),
        )


def sigmoid(logit: Floats) -> Singles:
    """1 / (1 + exp(-logit)), without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logit))).astype(np.float32)


def normalise(numbers: Singles, centre: Floats | Singles, scale: Floats | Singles) -> Floats:
    """(n, F) -> (n, F) within [-CLIP, CLIP]."""
    return np.clip((numbers - centre) / scale, -CLIP, CLIP)


def fit(
    design: Design,
    statistics: Statistics,
    *,
    rows: Rows,
    clicked: Flags,
    converted: Flags,
    params: LogisticParams,
) -> Logistic:
    """L2-regularised maximum likelihood (L-BFGS); an outcome without both classes is constant."""
    from scipy import sparse

    n, codes = rows.position.size, rows.codes
    blocks = [
        sparse.csr_array(
            (np.ones(n), (np.arange(n), codes[:, column])), shape=(n, design.code_sizes[column])
        )
        for column in range(codes.shape[1])
    ]
    places = sparse.csr_array(
        (np.ones(n), (np.arange(n), rows.position)), shape=(n, MAX_POSITION + 1)
    )
    centre, scale = statistics.scaling(params.normalisation)
    scaled = normalise(rows.numbers, centre, scale)
    matrix = sparse.hstack([sparse.csr_array(scaled), *blocks, places], format="csr")
    edges = np.cumsum([scaled.shape[1], *design.code_sizes, MAX_POSITION + 1])

    def outcome(label: Flags) -> Weights:
        from sklearn.linear_model import LogisticRegression

        if not 0 < label.sum() < label.size:
            rate = (float(label.sum()) + 0.5) / (label.size + 1)
            intercept, weight = float(np.log(rate / (1 - rate))), np.zeros(matrix.shape[1])
        else:
            model = LogisticRegression(C=1 / params.l2, max_iter=params.max_iterations, tol=1e-3)
            model.fit(matrix, label)
            intercept, weight = float(model.intercept_[0]), model.coef_[0]
        first, *tables, place = np.split(weight, edges[:-1])
        return Weights(
            intercept + float(place[1]),
            tuple(first.tolist()),
            tuple(tuple(table.tolist()) for table in tables),
            tuple((place - place[1]).tolist()),
        )

    return Logistic(
        tuple(centre.tolist()),
        tuple(scale.tolist()),
        outcome(clicked),
        outcome(converted),
    )
