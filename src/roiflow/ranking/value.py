"""Expected value of showing an ad: expected revenue minus lambda times expected cost.

The cost model is the same for every source: what an advertiser pays is a share of the bid at the
impression, at the click, at the conversion. The three shares are fitted to the training log.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import PackageError
from roiflow.features.table import Features, Floats, Longs
from roiflow.ranking.protocol import Predictions

FILE = "cost_shares.json"

CHUNK_ROWS = 1 << 20
"""Impressions whose costs are looked at together: 60 MB."""


@dataclass(frozen=True)
class CostShares:
    """Shares of the bid that are paid; all non-negative, without unit."""

    impression: float
    click: float
    conversion: float


def load_cost_shares(folder: Path) -> CostShares:
    """What the train_ranker stage wrote beside the ranker; raises PackageError, naming the file."""
    path = folder / FILE
    try:
        return CostShares(**json.loads(path.read_text()))
    except OSError as error:
        raise PackageError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError) as error:
        raise PackageError(f"{path}: not cost shares: {error}") from None


def fit_cost_shares(features: Features, rows: Longs) -> CostShares:
    """Non-negative least squares of cost on bid x (1, clicked, converted)."""
    from scipy.optimize import nnls

    log = features.impressions
    gram, moment = np.zeros((3, 3)), np.zeros(3)
    # The sums of squares are all that least squares needs, so the log passes by in pieces.
    for start in range(0, rows.size, CHUNK_ROWS):
        some = rows[start : start + CHUNK_ROWS]
        bid = log.bid[some].astype(np.float64)
        paid = np.column_stack([np.ones(some.size), log.clicked[some], log.converted[some]])
        design = bid[:, None] * paid
        gram += design.T @ design
        moment += design.T @ log.cost[some].astype(np.float64)
    # In units of each column, since clicks and conversions are rare, and by a triangle: with the
    # factor L of the sums of squares, |L' x - L^-1 m|^2 is what least squares makes small but for a
    # constant, in three rows instead of the log's. The 1e-12 holds where a column is empty.
    scale = np.sqrt(np.diag(gram))
    if not np.any(moment > 0):
        return CostShares(0.0, 0.0, 0.0)
    safe = np.where(scale > 0, scale, 1.0)
    factor = np.linalg.cholesky(gram / np.outer(safe, safe) + 1e-12 * np.eye(3))
    solution, _ = nnls(factor.T, np.linalg.solve(factor, moment / safe))
    return CostShares(*(float(share) for share in solution / safe))


def expected_cost(predictions: Predictions, bid: NDArray[np.int64], shares: CostShares) -> Floats:
    """Micros, in the shape of `bid`."""
    rate = (
        shares.impression
        + shares.click * predictions.click.astype(np.float64)
        + shares.conversion * predictions.conversion.astype(np.float64)
    )
    return rate * bid


def expected_revenue(predictions: Predictions) -> Floats:
    """pCTCVR x E[revenue | conversion], micros."""
    return predictions.conversion.astype(np.float64) * predictions.revenue
