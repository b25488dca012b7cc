"""Off-policy intervals against a loop that redraws rows; equal answers first, then the ratio."""

import statistics as middle
import time
from collections.abc import Callable

import numpy as np

from roiflow.evaluation import statistics
from roiflow.evaluation.estimators.ips import ips
from roiflow.evaluation.estimators.snips import snips
from roiflow.features.table import Floats, Longs

SLATES, USERS, RESAMPLES, ROUNDS = 60_000, 3_000, 200, 5
RATIO = 10.0


def _log() -> tuple[Floats, Floats, Longs]:
    rng = np.random.default_rng(0)
    weight = rng.lognormal(-0.5, 1.0, size=SLATES)
    reward = (rng.random(SLATES) < 0.05) * rng.exponential(1e6, size=SLATES)
    return reward, weight, rng.integers(0, USERS, size=SLATES)


def _four(reward: Floats, weight: Floats) -> Floats:
    """Columns whose sums give IPS and SNIPS of reward, and the means of both."""
    return np.column_stack([weight * reward, weight, reward, np.ones(reward.size)])


def _statistics(totals: Floats) -> Floats:
    return np.stack(
        [
            totals[..., 0] / totals[..., 3],
            totals[..., 0] / totals[..., 1],
            totals[..., 1] / totals[..., 3],
            totals[..., 2] / totals[..., 3],
        ],
        axis=-1,
    )


def _ours(reward: Floats, weight: Floats, user: Longs, resamples: int) -> Floats:
    sums = statistics.cluster_sums(user, _four(reward, weight))
    return _statistics(statistics.resampled_totals(sums, resamples, np.random.default_rng(1)))


def _loop(reward: Floats, weight: Floats, user: Longs, resamples: int) -> Floats:
    """Draw users, gather their rows, estimate: one resample and one estimator at a time."""
    order = np.argsort(user, kind="stable")
    rows_of = np.split(order, np.flatnonzero(np.diff(user[order])) + 1)
    found = np.empty((resamples, 4))
    for number in range(4):
        rng = np.random.default_rng(1)
        for resample in range(resamples):
            drawn = rng.integers(0, len(rows_of), size=len(rows_of), dtype=np.int32)
            rows = np.concatenate([rows_of[each] for each in drawn])
            r, w = reward[rows], weight[rows]
            found[resample, number] = (
                ips(r, w),
                snips(r, w),
                float(w.mean()),
                float(r.mean()),
            )[number]
    return found


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def test_bootstrap_against_a_loop() -> None:
    reward, weight, user = _log()
    few = 12
    np.testing.assert_allclose(
        _ours(reward, weight, user, few), _loop(reward, weight, user, few), rtol=1e-9
    )
    ratios = []
    for _ in range(ROUNDS):
        loop = _seconds(lambda: _loop(reward, weight, user, few)) / few
        ours = _seconds(lambda: _ours(reward, weight, user, RESAMPLES)) / RESAMPLES
        ratios.append(loop / ours)
    print(f"cluster bootstrap: {middle.median(ratios):.0f} times the loop, per resample")
    assert middle.median(ratios) > RATIO
