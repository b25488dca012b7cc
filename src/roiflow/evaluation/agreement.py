"""Whether a refit behaves as the model that was judged in its place: both asked the same requests.

What ships has trained on the test week, so that nothing measured there tells how good it is; it is
trusted as far as it would do what the judged one would.
"""

import numpy as np

from roiflow.artefacts.agreement import Agreement
from roiflow.evaluation.replay import replay
from roiflow.features.engine import Engine
from roiflow.features.table import Features, Floats, Ints, Longs
from roiflow.policy import plackett_luce
from roiflow.policy.candidate_sets import CandidateSets, columns_of, stack
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models


def agreement(
    judged: Package,
    shipped: Package,
    features: Features,
    engine: Engine,
    rows: Longs,
    threads: int = 1,
) -> Agreement:
    """Of the requests of impression `rows`, one of each slate (B,)."""
    one, other = (_asked(package, features, engine, rows, threads) for package in (judged, shipped))
    slots = judged.description.slate_size
    first, second = (_best(sets, logits, slots) for sets, logits in (one, other))
    return Agreement(
        judged=judged.digest,
        shipped=shipped.digest,
        requests=int(rows.size),
        overlap=overlap(first[0], second[0]),
        value_ratio=float(second[1].mean() / first[1].mean()) if first[1].any() else 0.0,
        propensity=shared_mass((one[0].ad, one[1]), (other[0].ad, other[1])),
    )


def _asked(
    package: Package, features: Features, engine: Engine, rows: Longs, threads: int
) -> tuple[CandidateSets, Floats]:
    """Candidates and logits (B, K), in the order of `rows`."""
    parts = list(replay(Models(package), features, engine, rows, threads))
    back = np.argsort(np.concatenate([part.at for part in parts]))
    logits = np.concatenate([part.logits for part in parts])
    return stack([part.sets for part in parts]).take(back), logits[back]


def _best(sets: CandidateSets, logits: Floats, slots: int) -> tuple[Ints, Floats]:
    """Ads of the likeliest slate (B, S), -1 in an empty slot, and what is expected of it (B,)."""
    choices, _ = plackett_luce.greedy(logits, slots)
    shown, at = choices >= 0, np.maximum(choices, 0)
    rows = np.arange(choices.shape[0])[:, None]
    return (
        np.where(shown, sets.ad[rows, at], -1).astype(np.int32),
        np.where(shown, sets.value(1.0)[rows, at], 0.0).sum(axis=1),
    )


def overlap(one: Ints, other: Ints) -> float:
    """Mean share of the ads of slates (B, S) that are in the other slates, in any order."""
    there = columns_of(other, one) >= 0
    return float(there.sum() / max(1, (one >= 0).sum()))


def shared_mass(one: tuple[Ints, Floats], other: tuple[Ints, Floats]) -> float:
    """Mean of sum_a min(p(a), q(a)) over the first slot; each is ads and logits (B, K)."""
    chances = [softmax(logits) for _, logits in (one, other)]
    place = columns_of(other[0], one[0])
    theirs = np.where(place >= 0, np.take_along_axis(chances[1], np.maximum(place, 0), axis=1), 0.0)
    return float(np.minimum(chances[0], theirs).sum(axis=1).mean())


def softmax(logits: Floats) -> Floats:
    """P(first slot) (B, K); 0 where a logit is -inf, and everywhere where all are."""
    top = np.max(logits, axis=1, keepdims=True, initial=-np.inf)
    mass = np.exp(logits - np.where(np.isfinite(top), top, 0.0))
    total = mass.sum(axis=1, keepdims=True)
    return np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)
