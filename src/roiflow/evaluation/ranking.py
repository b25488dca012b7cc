"""How well predictions order and match what happened, and what a policy's slates look like.

The protocol is part of a metric's name: `test_full_click_auc` is on every impression of the test
week, none sampled; `test_full_click_ndcg_at_5` orders each user's logged impressions of that week.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from roiflow.evaluation.statistics import cluster_sums
from roiflow.features.table import Features, Flags, Floats, Ints, Longs
from roiflow.labels.model import Labels
from roiflow.ranking.metrics import log_loss

CUTOFF = 5


@dataclass(frozen=True)
class Interval:
    """A metric and its interval over users; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Happened:
    """One outcome of n rows, as far as it is known."""

    user: NDArray[np.integer]  # (n,)
    label: Flags  # (n,) whether it is known
    known: Floats  # (n,) P(it is known | it happens)
    floor: float
    """Rows where less can be known say nothing of order: each would count many times."""

    @property
    def weight(self) -> Floats:
        """(n,) so that the known positives stand for all of them; 0 under the floor."""
        told = self.known >= self.floor
        return np.where(told, np.where(self.label, 1 / np.where(told, self.known, 1.0), 1.0), 0.0)


def happened(features: Features, labels: Labels, rows: Longs, floor: float) -> dict[str, Happened]:
    """Clicks and conversions of impressions `rows` (n,), as known, by label."""
    log, every = features.impressions, np.ones(rows.size)
    known = labels.matured(features, rows).astype(np.float64)
    return {
        "click": Happened(log.user[rows], log.clicked[rows], every, floor),
        "conversion": Happened(log.user[rows], log.converted[rows], known, floor),
    }


def _placements(score: Floats, hit: Floats, miss: Floats, label: Flags) -> Floats:
    """Share of the other class that each row is on the right side of, ties one half; (n,).

    Hits and misses are weights of the rows, 0 in the other class.
    """
    # Through groups of equal scores, not through ranks: calibrated scores tie often, and a tie
    # counts one half.
    _, group = np.unique(score, return_inverse=True)
    hits, misses = np.bincount(group, weights=hit), np.bincount(group, weights=miss)
    misses_below = np.cumsum(misses) - misses
    hits_above = hits.sum() - np.cumsum(hits)
    return np.where(
        label,
        (misses_below + 0.5 * misses)[group] / misses.sum(),
        (hits_above + 0.5 * hits)[group] / hits.sum(),
    )


def auc_influence(score: Floats, label: Flags, weight: Floats) -> tuple[float, Floats]:
    """AUC, and what each row (n,) adds to it beyond its mean; sums to 0 (DeLong et al., 1988).

    Rows count with their weights (n,). NaN and nothing where a class is absent.
    """
    hit, miss = np.where(label, weight, 0.0), np.where(label, 0.0, weight)
    if not (hit.any() and miss.any()):
        return float("nan"), np.zeros(label.size)
    placed = _placements(score, hit, miss, label)
    value = float(np.sum(hit * placed) / hit.sum())
    # DeLong's two components in one column: a hit's share among the hits, a miss's among the
    # misses.
    of_class = np.where(label, hit.sum(), miss.sum())
    return value, weight * (placed - value) / of_class


def auc_interval(score: Floats, happened: Happened, confidence: float) -> Interval:
    """AUC with a normal interval whose variance is over users (Obuchowski, 1997)."""
    value, influence = auc_influence(score, happened.label, happened.weight)
    if np.isnan(value):
        return Interval(None, None, None)
    # A user's impressions are alike; their influences are added up before they are squared, or the
    # interval would be that of as many independent rows.
    by_user = cluster_sums(happened.user, influence[:, None])[:, 0]
    clusters = by_user.size
    if clusters < 2:
        return Interval(value, None, None)
    error = float(np.sqrt(clusters / (clusters - 1) * np.sum(by_user**2)))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def gauc(score: Floats, happened: Happened) -> float:
    """AUC within each user, weighted by impressions (Zhou et al., 2018).

    Over users with both classes; NaN where there is none.
    """
    # All users in one pass over groups of equal score within a user. `before` counts misses from
    # the top of the array on, so those of the users before are taken off; ties count one half.
    _, index = np.unique(happened.user, return_inverse=True)
    order = np.lexsort((score, index))
    index, label, score = index[order], happened.label[order], score[order]
    weight = happened.weight[order]
    new_group = np.r_[True, (index[1:] != index[:-1]) | (score[1:] != score[:-1])]
    group = np.cumsum(new_group) - 1
    hits = np.bincount(group, weights=np.where(label, weight, 0.0))
    misses = np.bincount(group, weights=np.where(label, 0.0, weight))
    owner = index[new_group]
    users = owner[-1] + 1
    total_hits = np.bincount(owner, weights=hits, minlength=users)
    total_misses = np.bincount(owner, weights=misses, minlength=users)
    before = np.cumsum(misses) - misses
    of_others = np.cumsum(total_misses) - total_misses
    # For each group, its hits against the user's misses with a lower score and half of those with
    # the same.
    wins = np.bincount(
        owner, weights=hits * (before - of_others[owner] + 0.5 * misses), minlength=users
    )
    pairs = total_hits * total_misses
    both = pairs > 0
    if not both.any():
        return float("nan")
    shown = (total_hits + total_misses)[both]
    return float(np.sum(shown * wins[both] / pairs[both]) / np.sum(shown))


@dataclass(frozen=True)
class CalibrationCurve:
    """Bins of equal count, ascending in prediction."""

    predicted: Floats  # (bins,) mean prediction
    observed: Floats  # (bins,) share of positives
    count: Longs  # (bins,)


def calibration_curve(predicted: Floats, label: Flags, bins: int) -> CalibrationCurve:
    """Predictions (n,) against labels (n,) in at most `bins` bins of equal count."""
    order = np.argsort(predicted, kind="stable")
    # Fewer rows than bins give equal edges; once each, no bin is empty.
    edges = np.unique(np.linspace(0, predicted.size, bins + 1).astype(np.int64))
    starts, count = edges[:-1], np.diff(edges)
    return CalibrationCurve(
        predicted=np.add.reduceat(predicted[order].astype(np.float64), starts) / count,
        observed=np.add.reduceat(label[order].astype(np.float64), starts) / count,
        count=count,
    )


def ece(curve: CalibrationCurve) -> float:
    """Expected calibration error: mean over rows of |predicted - observed| of the row's bin.

    Naeini, Cooper & Hauskrecht (2015), on bins of equal count.
    """
    gap = np.abs(curve.predicted - curve.observed)
    return float(np.sum(curve.count * gap) / np.sum(curve.count))


def pcoc(predicted: Floats, label: Flags) -> float | None:
    """Predicted positives over observed positives; None where there is none."""
    observed = float(label.sum())
    return float(predicted.sum(dtype=np.float64)) / observed if observed else None


def top_metrics(
    score: Floats,
    label: Flags,
    user: NDArray[np.integer],
    rng: np.random.Generator,
    cutoff: int = CUTOFF,
) -> dict[str, float]:
    """NDCG, precision, recall and F1 at `cutoff`, means over users with a positive.

    Each user's rows are ordered by score, ties at random (Jarvelin & Kekalainen, 2002).
    """
    _, index = np.unique(user, return_inverse=True)
    # Ties at random: by row they would follow the logged position, and repeat what was shown.
    order = np.lexsort((rng.random(score.size), -score, index))
    index, label = index[order], label[order]
    first = np.flatnonzero(np.r_[True, index[1:] != index[:-1]])
    rank = np.arange(index.size) - first[index]
    positives = np.bincount(index, weights=label)
    keep = positives > 0
    if not keep.any():
        return {}
    top = label & (rank < cutoff)
    hits = np.bincount(index, weights=top)[keep]
    dcg = np.bincount(index, weights=top / np.log2(rank + 2.0))[keep]
    # The best that a user with so many positives can have: all of them on top.
    ideal = np.cumsum(1 / np.log2(np.arange(cutoff) + 2.0))
    reachable = np.minimum(positives[keep], cutoff).astype(np.int64)
    precision, recall = hits / cutoff, hits / positives[keep]
    # Their harmonic mean, written so that no hit at all is 0 and not 0 / 0.
    f1 = 2 * hits / (cutoff + positives[keep])
    return {
        f"ndcg_at_{cutoff}": float(np.mean(dcg / ideal[reachable - 1])),
        f"precision_at_{cutoff}": float(np.mean(precision)),
        f"recall_at_{cutoff}": float(np.mean(recall)),
        f"f1_at_{cutoff}": float(np.mean(f1)),
    }


def label_metrics(
    name: str,
    score: Floats,
    calibrated: Floats,
    happened: Happened,
    *,
    confidence: float,
    bins: int,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """Every metric of one label (`click`, `conversion`) on the test week, by full name.

    `score` (n,) is the prediction at position 1; `calibrated` (n,) at the position it was logged.
    What is known is compared with what a right prediction lets be known by now; where positives are
    compared with each other, each known one stands for those that are not known yet.
    """
    interval = auc_interval(score, happened, confidence)
    label, by_now = happened.label, calibrated * happened.known
    curve = calibration_curve(by_now, label, bins)
    values: dict[str, float | None] = {
        "auc": interval.value,
        "auc_low": interval.low,
        "auc_high": interval.high,
        "gauc": _defined(gauc(score, happened)),
        "log_loss": log_loss(by_now, label),
        "ece": ece(curve),
        "pcoc": pcoc(by_now, label),
        **top_metrics(score, label, happened.user, rng),
    }
    return {f"test_full_{name}_{metric}": value for metric, value in values.items()}


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value


def slate_metrics(
    ads: Ints, catalogue: Ints, training_clicks: Longs, category: Ints
) -> dict[str, float]:
    """Of recommended slates `ads` (B, S), -1 where empty.

    Average recommendation popularity in training clicks (Yin et al., 2012), share of the catalogue
    shown, and share of pairs in a slate of different category (Ziegler et al., 2005).
    `training_clicks` and `category` are by ad.
    """
    present = ads >= 0
    shown = ads[present]
    left, right = np.triu_indices(ads.shape[1], 1)
    paired = present[:, left] & present[:, right]
    differ = category[ads[:, left]] != category[ads[:, right]]
    found = {
        "test_policy_arp": float(training_clicks[shown].mean()),
        "test_policy_coverage": float(np.isin(catalogue, shown).mean()),
    }
    if paired.any():
        found["test_policy_diversity"] = float(differ[paired].mean())
    return found


def popularity(ad: Ints, clicked: Flags, ads: int, strength: float) -> Floats:
    """Smoothed click rate of each ad (ads,) in the rows given; the baseline without a user."""
    rate = float(clicked.mean()) if clicked.size else 0.0
    clicks = np.bincount(ad, weights=clicked, minlength=ads)
    shown = np.bincount(ad, minlength=ads)
    return (clicks + strength * rate) / (shown + strength)
