"""Logistic regression on normalised numbers and one-hot codes; scoring needs numpy alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from roiflow.candidates.design import Design, Rows
from roiflow.compiled import compiled
from roiflow.features.table import Features, Flags, Floats, Ints, Longs, Normalisation, Singles
from roiflow.params import LogisticParams
from roiflow.ranking.examples import Examples
from roiflow.ranking.likelihood import logit_of, rate, terms

# Of normalised numbers: one outlier must not outweigh all else. Saved models are fitted with it,
# so it is no parameter.
CLIP = 5.0
FILE = "logistic.json"


@dataclass(frozen=True)
class Weights:
    """One outcome's coefficients."""

    intercept: float
    numbers: tuple[float, ...]  # (F,)
    codes: tuple[tuple[float, ...], ...]  # by code column, by value

    def logit(self, numbers: Floats, codes: Ints) -> Floats:
        """(n, F) normalised, (n, C) -> (n,)."""
        total: Floats = self.intercept + np.asarray(numbers @ np.array(self.numbers), np.float64)
        for column, table in enumerate(self.codes):
            total += np.array(table)[codes[:, column]]
        return total


@dataclass(frozen=True)
class Logistic:
    """P(click), and P(conversion | click)."""

    centre: tuple[float, ...]  # (F,)
    scale: tuple[float, ...]  # (F,)
    click: Weights
    conversion: Weights

    def logits(self, rows: Rows) -> tuple[Floats, Floats]:
        """Rows (n,) -> click (n,), conversion given a click (n,)."""
        scaled = normalise(rows.numbers, np.array(self.centre), np.array(self.scale))
        return self.click.logit(scaled, rows.codes), self.conversion.logit(scaled, rows.codes)

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


def normalise(numbers: Singles, centre: Floats | Singles, scale: Floats | Singles) -> Floats:
    """(n, F) -> (n, F) within [-CLIP, CLIP]."""
    return np.clip((numbers - centre) / scale, -CLIP, CLIP)


class Log(NamedTuple):
    """Where the rows to learn from lie; compiled code picks from it, and nothing is copied."""

    dense: Singles  # (n, F)
    context: Ints  # (n, 4)
    user: Ints  # (n,)
    ad: Ints  # (n,)
    profile: Ints  # (users, P)
    attributes: Ints  # (ads, 5)


class Layout(NamedTuple):
    """Numbers' normalisation, and where each code's coefficients lie after those of the numbers."""

    centre: Floats  # (F,)
    scale: Floats  # (F,)
    attribute_columns: Longs
    profile_columns: Longs
    sizes: Longs  # (C,)
    starts: Longs  # (C + 1,) of the codes' tables, and of the intercept


def source(features: Features) -> Log:
    """The logged impressions with their side tables."""
    log = features.impressions
    return Log(log.dense, log.context, log.user, log.ad, features.profile, features.attributes)


def layout(features: Features, design: Design, normalisation: Normalisation) -> Layout:
    """Numbers first, then each code's table and the intercept."""
    centre, scale = features.statistics.scaling(normalisation)
    return Layout(
        centre.astype(np.float64),
        scale.astype(np.float64),
        np.array(design.attribute_columns, np.int64),
        np.array(design.profile_columns, np.int64),
        np.array(design.code_sizes, np.int64),
        np.cumsum([centre.size, *design.code_sizes]),
    )


@compiled(nogil=True, error_model="numpy")
def _slots(log: Any, layout: Any, row: int, slots: Longs) -> None:
    """Coefficients that an impression's codes take, (C,)."""
    at = 0
    for column in range(log.context.shape[1]):
        slots[at] = log.context[row, column]
        at += 1
    for column in layout.attribute_columns:
        slots[at] = log.attributes[log.ad[row], column]
        at += 1
    for column in layout.profile_columns:
        slots[at] = log.profile[log.user[row], column]
        at += 1
    for code in range(at):  # one that is out of bounds is the unknown one
        slots[code] = layout.starts[code] + (slots[code] if slots[code] < layout.sizes[code] else 0)


@compiled(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def objective(
    log: Any, layout: Any, rows: Longs, exposure: Singles, observed: Flags, weight: Floats
) -> Any:
    """Sum of the losses (nats) of `rows` (n,) and its gradient by the weights (w,).

    One pass over the log as it lies on disk: neither the normalised numbers nor the one-hot codes
    are ever written down, a code adds to its own coefficient alone. The compiler may reorder the
    sums, without which they do not become vector code.
    """
    loss, gradient = 0.0, np.zeros(weight.size)
    width, last = layout.centre.size, weight.size - 1
    scaled, slots = np.empty(width), np.empty(layout.starts.size - 1, np.int64)
    for number in range(rows.size):
        row = rows[number]
        _slots(log, layout, row, slots)
        logit = weight[last]
        for column in range(width):
            value = (log.dense[row, column] - layout.centre[column]) / layout.scale[column]
            scaled[column] = min(max(value, -CLIP), CLIP)
            logit += scaled[column] * weight[column]
        for slot in slots:
            logit += weight[slot]
        term, error, _ = terms(logit, exposure[number], observed[number])
        loss += term
        for column in range(width):
            gradient[column] += error * scaled[column]
        for slot in slots:
            gradient[slot] += error
        gradient[last] += error
    return loss, gradient


def fit(features: Features, design: Design, train: Examples, params: LogisticParams) -> Logistic:
    """L2-regularised maximum likelihood (L-BFGS); an outcome without both classes is constant.

    Clicks are learnt from all impressions by how much each was looked at, conversions from the
    clicked ones by how ripe each is.
    """
    where, there = layout(features, design, params.normalisation), source(features)
    centre, scale = features.statistics.scaling(params.normalisation)

    def outcome(rows: Longs, exposure: Singles, observed: Flags, l2: float) -> Weights:
        weight = np.zeros(where.starts[-1] + 1)
        weight[-1] = logit_of(rate(exposure, observed))
        # Without both classes its maximum lies at infinity; the rate stands.
        if 0 < observed.sum() < observed.size:
            given = (rows, exposure, observed)
            weight = _minimise(there, where, given, weight, l2, params)
        first, *tables, intercept = np.split(weight, where.starts)
        return Weights(
            float(intercept[0]),
            tuple(first.tolist()),
            tuple(tuple(table.tolist()) for table in tables),
        )

    clicks = train.clicks
    return Logistic(
        tuple(centre.tolist()),
        tuple(scale.tolist()),
        outcome(train.rows, train.examined, train.clicked, params.click_l2),
        outcome(clicks.rows, clicks.matured, clicks.converted, params.conversion_l2),
    )


def _minimise(
    there: Log,
    where: Layout,
    given: tuple[Longs, Singles, Flags],
    start: Floats,
    l2: float,
    params: LogisticParams,
) -> Floats:
    """Weights (w,), the intercept last, which alone is not regularised.

    `given`: rows, how exposed each was, and whether the outcome was observed, (n,) each.
    """
    from scipy.optimize import minimize

    # Means, not sums: the tolerance then means the same for every length of the log.
    size = given[0].size
    strength = l2 / size

    def mean_loss(weight: Floats) -> tuple[float, Floats]:
        loss, gradient = objective(there, where, *given, weight)
        kept = np.append(weight[:-1], 0.0)
        penalty = 0.5 * strength * float(kept @ kept)
        return loss / size + penalty, gradient / size + strength * kept

    found = minimize(
        mean_loss,
        start,
        method="L-BFGS-B",
        jac=True,
        options={"maxiter": params.max_iterations, "maxls": 50, "gtol": params.tolerance},
    )
    weight: Floats = found.x
    return weight
