"""Doubly robust: q(target) + w (r - q(logged))  (Dudik et al., 2011).

Unbiased where either the weights or the model are right; the better the model, the smaller what a
large weight is multiplied with. A model that has seen the rows makes r - q(logged) too small: such
rows are predicted by models of the other folds (cross-fitting; Narita, Yasui & Yata, 2020).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from roiflow.evaluation.estimators.weights import over_slate
from roiflow.features.table import Floats, Longs


def dr_terms(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> Floats:
    """q(target) + w (r - q(logged)), summed over a slate; (n,)."""
    return over_slate(target_reward + weight * (reward - logged_reward))


def dr(reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats) -> float:
    """Mean of the terms."""
    return float(np.mean(dr_terms(reward, weight, logged_reward, target_reward)))


def self_normalised_dr(
    reward: Floats, weight: Floats, logged_reward: Floats, target_reward: Floats
) -> float:
    """Mean of q(target) + sum(w (r - q(logged))) / sum(w) of rows (n,)  (Robins et al., 2007)."""
    correction = np.sum(weight * (reward - logged_reward)) / np.sum(weight)
    return float(np.mean(target_reward) + correction)


def cross_fitted(
    cluster: NDArray[np.integer],
    folds: int,
    fit_predict: Callable[[Longs, Longs], Floats],
    rng: np.random.Generator,
) -> Floats:
    """Predictions of every row by a model that saw none of its cluster.

    `fit_predict(train, test)` fits on rows `train` and predicts rows `test`, (test, ...).
    """
    names, number = np.unique(cluster, return_inverse=True)
    fold = (rng.permutation(names.size) % folds)[number]
    parts = [(np.flatnonzero(fold == k), np.flatnonzero(fold != k)) for k in range(folds)]
    found = [fit_predict(train, test) for test, train in parts]
    return np.concatenate(found)[np.argsort(np.concatenate([test for test, _ in parts]))]
