"""The quick start of the Open Bandit Pipeline, computed anew from the Open Bandit Dataset.

Saito, Aihara, Matsutani & Narita, "Open Bandit Dataset and Pipeline" (2020): the value of
ZOZOTOWN's Bernoulli Thompson sampling policy, estimated from the log of its uniform random policy.
The published figures are known to six digits, so they check this package's estimators against
another team's. The random streams are numpy's legacy generator, as in the published run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from pyarrow import ArrowInvalid

from roiflow.artefacts.evaluation import Estimate
from roiflow.errors import SourceError
from roiflow.evaluation.estimators.diagnostics import Limits, diagnose, doubts
from roiflow.evaluation.estimators.dm import dm, dm_terms
from roiflow.evaluation.estimators.dr import dr, dr_terms, self_normalised_dr
from roiflow.evaluation.estimators.ips import ips, ips_terms
from roiflow.evaluation.estimators.shrunk_dr import shrunk
from roiflow.evaluation.estimators.snips import snips
from roiflow.evaluation.estimators.sub_gaussian import sub_gaussian
from roiflow.evaluation.estimators.switch_dr import switched
from roiflow.evaluation.estimators.weights import clipped
from roiflow.evaluation.statistics import bootstrap_means, percentile_interval
from roiflow.features.table import Floats, Longs

POSITIONS = 3
Verdict = Literal["conclusive", "inconclusive"]
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
    from pyarrow import csv

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


@dataclass(frozen=True)
class Reading:
    """What estimators read of n rounds that one policy logged, of another policy."""

    reward: Floats  # (n,)
    weight: Floats  # (n,) of the item at its position
    kind_weight: Floats  # (n,) of all items of the item's first category
    logged: Floats  # (n,) q of the logged item
    expected: Floats  # (n,) mean of q under the other policy
    support: float


def read_thompson_sampling(
    log: BanditLog, policy: Floats, folds: int = 3, seed: int = 12345
) -> Reading:
    """Of `policy` (A, positions) on the uniform log."""
    at_position = policy[:, log.position].T  # (n, A)
    rounds = np.arange(log.action.size)
    q = cross_fitted_rewards(log, folds, seed)
    shown = np.isin(np.arange(policy.shape[0]), log.action)
    kind = log.items[:, 0]
    same = (kind[log.action][:, None] == kind).astype(np.float64)  # (n, A)
    # Of the uniform policy an item has the logged propensity, and a kind that of its items.
    uniform = log.propensity * same.sum(axis=1)
    return Reading(
        reward=log.reward,
        weight=at_position[rounds, log.action] / log.propensity,
        kind_weight=np.sum(at_position * same, axis=1) / uniform,
        logged=q[rounds, log.action],
        expected=np.sum(at_position * q, axis=1),
        support=float(at_position[:, shown].sum(axis=1).mean()),
    )


SWITCH, SHRINKAGE, SUB_GAUSSIAN = 5.0, 100.0, 0.1
"""What the estimators that have a parameter are shown with."""


def every_value(found: Reading) -> dict[str, float]:
    """Clicks per impression by every estimator of the pipeline."""
    reward, weight, q = found.reward, found.weight, found.logged
    shapes = {
        "dr": weight,
        "switch_dr": switched(weight, SWITCH),
        "shrunk_dr": shrunk(weight, SHRINKAGE),
        "sub_gaussian_dr": sub_gaussian(weight, SUB_GAUSSIAN),
        "clipped_dr": clipped(weight, SWITCH),
    }
    return {
        "ips": ips(reward, weight),
        "snips": snips(reward[:, None], weight[:, None]),
        "clipped_ips": ips(reward, clipped(weight, SWITCH)),
        "sub_gaussian_ips": ips(reward, sub_gaussian(weight, SUB_GAUSSIAN)),
        "mips": ips(reward, found.kind_weight),
        "self_normalised_mips": snips(reward[:, None], found.kind_weight[:, None]),
        "dm": dm(found.expected),
        "self_normalised_dr": self_normalised_dr(reward, weight, q, found.expected),
        **{name: dr(reward, shape, q, found.expected) for name, shape in shapes.items()},
    }


def evaluate_thompson_sampling(
    log: BanditLog,
    alpha: Floats,
    beta: Floats,
    limits: Limits,
    *,
    simulations: int = 100_000,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 12345,
) -> tuple[dict[str, Estimate], Reading]:
    """Clicks per impression of Bernoulli Thompson sampling by IPS, DM and DR, with intervals."""
    rng = np.random.RandomState(seed)
    policy = thompson_probabilities(alpha, beta, POSITIONS, simulations, rng)
    read = read_thompson_sampling(log, policy, seed=seed)
    terms = {
        "ips": ips_terms(read.reward, read.weight),
        "dm": dm_terms(read.expected),
        "dr": dr_terms(read.reward, read.weight, read.logged, read.expected),
    }
    estimates = {}
    for name, values in terms.items():
        # Seeded anew for each estimator, as in the published run: all of them see the same rounds.
        draws = bootstrap_means(values, resamples, np.random.RandomState(seed))
        interval = percentile_interval(draws, confidence)
        estimates[name] = _estimate(name, values, interval, read, limits)
    return estimates, read


def _estimate(
    name: str, values: Floats, interval: tuple[float, float], read: Reading, limits: Limits
) -> Estimate:
    found = diagnose(read.weight, read.support)
    faults = doubts(found, limits)
    verdict: Verdict = "inconclusive" if faults else "conclusive"
    value, (low, high), model = float(values.mean()), interval, name == "dm"
    return Estimate(name, value, low, high, verdict, "; ".join(faults), model, found)


def read_of_uniform(folder: Path, campaign: str) -> Reading:
    """The uniform policy on the Thompson sampling log of a campaign, without a model.

    Raises SourceError, naming the file, where it is missing or has another form.
    """
    path = folder / f"bts_{campaign}.parquet"
    try:
        log = pq.read_table(path, columns=["item_id", "click", "propensity_score"])
    except (OSError, ArrowInvalid) as error:
        raise SourceError(f"{path}: {error}") from None
    item = log["item_id"].to_numpy()
    items = int(item.max()) + 1
    weight = 1.0 / items / log["propensity_score"].to_numpy()
    nothing = np.zeros(item.size)
    reward = log["click"].to_numpy().astype(np.float64)
    support = np.unique(item).size / items
    return Reading(reward, weight, weight, nothing, nothing, support)


def ips_of(read: Reading, limits: Limits, confidence: float, resamples: int) -> Estimate:
    """IPS with what stands against it."""
    values = ips_terms(read.reward, read.weight)
    draws = bootstrap_means(values, resamples, np.random.default_rng(0))
    return _estimate("ips", values, percentile_interval(draws, confidence), read, limits)
