"""Two metrics of predicted probabilities, exact and fast."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from roiflow.features.table import Floats


def auc(score: ArrayLike, label: ArrayLike) -> float:
    """P(score of a positive > score of a negative), ties counted as one half; exact.

    `score` and `label` are (n,). By ranks (Mann and Whitney, 1947) in O(n log n). NaN where one of
    the two classes is absent.
    """
    scores = np.asarray(score)
    positive = np.asarray(label).astype(bool)
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    # By groups of equal scores: a positive beats the negatives of all lower groups and half of its
    # own. The sums are of whole and half numbers and so exact.
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    hits = np.bincount(group, weights=positive, minlength=size.size)
    below = np.concatenate([[0.0], np.cumsum(size - hits)[:-1]])
    return float(np.sum(hits * (below + 0.5 * (size - hits))) / (positives * negatives))


def log_loss(probability: ArrayLike, label: ArrayLike) -> float:
    """Mean of -log P(label), in nats; probabilities are clipped to [1e-7, 1 - 1e-7]."""
    p: Floats = np.clip(np.asarray(probability, np.float64), 1e-7, 1 - 1e-7)
    hit: NDArray[np.bool_] = np.asarray(label).astype(bool)
    return float(-np.mean(np.where(hit, np.log(p), np.log1p(-p))))
