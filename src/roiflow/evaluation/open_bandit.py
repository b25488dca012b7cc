"""The quick start of the Open Bandit Pipeline, computed anew from the Open Bandit Dataset.

Saito, Aihara, Matsutani & Narita, "Open Bandit Dataset and Pipeline" (2020): the value of
ZOZOTOWN's Bernoulli Thompson sampling policy, estimated from the log of its uniform random policy.
The published figures are known to six digits, so they check this package's estimators against
another team's. The random streams are numpy's legacy generator, as in the published run.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from roiflow.artefacts.evaluation import Estimate
from roiflow.errors import SourceError
from roiflow.evaluation.estimators.diagnostics import diagnose
from roiflow.evaluation.estimators.dm import dm_terms
from roiflow.evaluation.estimators.dr import dr_terms
from roiflow.evaluation.estimators.ips import ips_terms
from roiflow.evaluation.statistics import bootstrap_means, percentile_interval
from roiflow.features.table import Floats, Longs

POSITIONS = 3
USER_FEATURES = tuple(f"user_feature_{number}" for number in range(4))
ITEM_CATEGORIES = tuple(f"item_feature_{number}" for number in range(1, 4))

RANDOM_ALL_CODES: dict[str, tuple[int, ...]] = {
    "item_feature_1": (5, 1, 2, 10, 8, 0, 11, 7, 3, 9, 4, 6),
    "item_feature_2": (
        *(10, 12, 15, 1, 17, 18, 14, 11, 3, 5, 0),
        *(16, 6, 8, 19, 13, 20, 2, 4, 9, 7),
    ),
    "item_feature_3": (4, 1, 6, 5, 0, 2, 3),
}
"""Alphabetical rank of each category's hash, categories in order of first item.

The dataset hashes an item's categories anew for each log, and the published reward model reads
their alphabetical ranks as numbers. These are the ranks in the item file of the random log, for
folders that hold only the item file of the Thompson sampling log.
"""


@dataclass(frozen=True)
class BanditLog:
    """n rounds of one item at one position each."""

    action: Longs  # (n,) item number
    position: Longs  # (n,) 0-based
    reward: Floats  # (n,) 1 where clicked
    propensity: Floats  # (n,)
    context: Floats  # (n, d) one-hot user features, first level of each left out
    items: Floats  # (A, 4) codes of the item categories and item_feature_0


def _one_hot(column: NDArray[np.str_]) -> Floats:
    levels, code = np.unique(column, return_inverse=True)
    # Without the first level, as pandas' get_dummies(drop_first=True) of the published run.
    return np.eye(levels.size)[code][:, 1:]


def _category_codes(column: NDArray[np.str_], ranks: tuple[int, ...]) -> Longs:
    _, first, code = np.unique(column, return_index=True, return_inverse=True)
    if first.size != len(ranks):
        raise SourceError(f"item categories: {first.size} levels, expected {len(ranks)}")
    rank_of_level = np.empty(first.size, dtype=np.int64)
    # `ranks` follow the order in which categories first appear by item, `code` the order of this
    # file's hashes: the first appearances take one to the other.
    rank_of_level[np.argsort(first)] = ranks
    return rank_of_level[code]


def read_random_all(folder: Path) -> BanditLog:
    """The random log of campaign "all" from `random_all.parquet` and `item_context_all.csv`.

    Raises SourceError, naming the file, where one is missing or has another form.
    """
    from pyarrow import ArrowInvalid, csv

    try:
        # Folds and resamples are drawn by row number, so the rows have to lie as they lay in the
        # published run.
        log = pq.read_table(folder / "random_all.parquet").sort_by("timestamp")
        items = csv.read_csv(folder / "item_context_all.csv").sort_by("item_id")
    except (OSError, ArrowInvalid) as error:
        raise SourceError(f"{folder}: {error}") from None
    categories = [
        _category_codes(items[name].to_numpy().astype(str), RANDOM_ALL_CODES[name])
        for name in ITEM_CATEGORIES
    ]
    return BanditLog(
        action=log["item_id"].to_numpy().astype(np.int64),
        position=log["position"].to_numpy().astype(np.int64) - 1,
        reward=log["click"].to_numpy().astype(np.float64),
        propensity=log["propensity_score"].to_numpy().astype(np.float64),
        context=np.hstack([_one_hot(log[name].to_numpy().astype(str)) for name in USER_FEATURES]),
        items=np.column_stack([*categories, items["item_feature_0"].to_numpy()]),
    )


def read_priors(path: Path, campaign: str) -> tuple[Floats, Floats]:
    """Beta parameters alpha (A,) and beta (A,) of a campaign.

    Raises SourceError, naming the file, where the file or the campaign is missing.
    """
    try:
        priors = yaml.safe_load(path.read_text())[campaign]
        return np.asarray(priors["alpha"], float), np.asarray(priors["beta"], float)
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SourceError(f"{path}: no priors of campaign {campaign!r}: {error}") from None


def thompson_probabilities(
    alpha: Floats, beta: Floats, positions: int, simulations: int, rng: np.random.RandomState
) -> Floats:
    """P(item a is the k-th best) (A, positions) under Beta(alpha, beta) draws (Thompson, 1933)."""
    counts = np.zeros((alpha.size, positions))
    # A million draws at a time, in one stream: other steps would give the same numbers.
    step = max(1, 1_000_000 // alpha.size)
    for start in range(0, simulations, step):
        draws = rng.beta(alpha, beta, size=(min(step, simulations - start), alpha.size))
        best = np.argsort(-draws, axis=1)[:, :positions]
        for position in range(positions):
            counts[:, position] += np.bincount(best[:, position], minlength=alpha.size)
    return counts / simulations


def cross_fitted_rewards(log: BanditLog, folds: int, seed: int) -> Floats:
    """q (n, A): click probability of every item at the round's position.

    Logistic regression on user and item features, one model per position, each round predicted by
    the models of the folds it is not in (Narita, Yasui & Yata, 2020).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    n, actions = log.action.size, log.items.shape[0]
    design = np.hstack([log.context, log.items[log.action]])
    q = np.empty((n, actions))
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(design):
        for position in range(POSITIONS):
            fit = train[log.position[train] == position]
            rounds = test[log.position[test] == position]
            model = LogisticRegression(max_iter=1000, random_state=seed)
            model.fit(design[fit], log.reward[fit])
            pairs = np.hstack(
                [
                    np.repeat(log.context[rounds], actions, axis=0),
                    np.tile(log.items, (rounds.size, 1)),
                ]
            )
            q[rounds] = model.predict_proba(pairs)[:, 1].reshape(rounds.size, actions)
    return q


def evaluate_thompson_sampling(
    log: BanditLog,
    alpha: Floats,
    beta: Floats,
    *,
    simulations: int = 100_000,
    folds: int = 3,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 12345,
) -> dict[str, Estimate]:
    """Clicks per impression of Bernoulli Thompson sampling by IPS, DM and DR, with intervals."""
    policy = thompson_probabilities(
        alpha, beta, POSITIONS, simulations, np.random.RandomState(seed)
    )
    at_position = policy[:, log.position].T  # (n, A)
    rounds = np.arange(log.action.size)
    weight = at_position[rounds, log.action] / log.propensity
    q = cross_fitted_rewards(log, folds, seed)
    expected = np.sum(at_position * q, axis=1)
    shown = np.isin(np.arange(alpha.size), log.action)
    found = diagnose(weight, support=float(at_position[:, shown].sum(axis=1).mean()))
    terms = {
        "ips": ips_terms(log.reward, weight),
        "dm": dm_terms(expected),
        "dr": dr_terms(log.reward, weight, q[rounds, log.action], expected),
    }
    estimates = {}
    for name, values in terms.items():
        # Seeded anew for each estimator, as in the published run: all of them see the same rounds.
        draws = bootstrap_means(values, resamples, np.random.RandomState(seed))
        low, high = percentile_interval(draws, confidence)
        estimates[name] = Estimate(
            name, float(values.mean()), low, high, "conclusive", "", name == "dm", found
        )
    return estimates
