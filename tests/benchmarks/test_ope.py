"""Off-policy intervals against a loop that redraws rows; equal answers first, then the ratio."""

import resource
import statistics as middle
import time
from collections.abc import Callable

import numpy as np

from roiflow.evaluation import statistics
from roiflow.evaluation.estimators.chances import Chances
from roiflow.evaluation.estimators.ips import ips
from roiflow.evaluation.estimators.snips import snips
from roiflow.evaluation.roi import estimate_roi
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import Expectation, TargetOnLog
from roiflow.evaluation.terms import ESTIMATORS, logged_terms, target_terms
from roiflow.features.table import Floats, Longs
from roiflow.params import load_params
from tests.worlds import ROOT

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


MANY, POSITIONS, PEOPLE, MANY_RESAMPLES = 1_000_000, 10, 100_000, 2_000
CORE_SECONDS, BYTES = 10.0, 3 << 30


def _large_log(slates: int) -> tuple[Slates, TargetOnLog, Chances]:
    """A log, a policy on it and the chances of what filled it: numbers as they come, not a world.

    One matrix of chances serves several fields: what is measured is reading them.
    """
    rng, shape = np.random.default_rng(0), (slates, POSITIONS)
    looks = np.broadcast_to((1.0 + np.arange(POSITIONS)) ** -0.7, shape)
    chance, other, money = (rng.random(shape, np.float32).astype(np.float64) for _ in range(3))
    ones = np.ones(shape)
    slates_ = Slates(
        row=np.arange(slates),
        user=rng.integers(0, PEOPLE, slates).astype(np.int32),
        ad=np.zeros(shape, np.int32),
        position=np.tile(np.arange(1, POSITIONS + 1, dtype=np.int32), (slates, 1)),
        present=np.ones(shape, bool),
        clicked=chance < 0.05,
        revenue=money,
        cost=other,
        propensity=0.5 + 0.5 * other,
        expected=chance,
        known=ones,
        canary=np.zeros(slates, bool),
    )
    chances = Chances(0.5 + chance, 0.5 + chance, 0.5 + chance, 0.5 + chance)
    model = Expectation(chance, other, chance, other)
    target = TargetOnLog(
        row=slates_.row,
        propensity=0.5 + 0.5 * chance,
        looks=looks,
        due=ones,
        chances=chances,
        support=np.ones(slates),
        ads=np.full(slates, 20),
        drawn=slates_.ad,
        revenue=model,
        cost=model,
        charge=other,
        click=chance,
    )
    logged = Chances(0.5 + other, 0.5 + other, 0.5 + other, 0.5 + other)
    return slates_, target, logged


def test_a_million_slates_by_every_estimator() -> None:
    """10 positions, 2,000 resamples of users; 10 core-seconds, and 3 GiB with the log itself."""
    limits = load_params(ROOT / "params.yaml").evaluate
    slates, target, logged = _large_log(MANY)
    found: list[object] = []

    def work() -> None:
        terms = target_terms(slates, target, logged, limits)
        found.append(
            estimate_roi(
                np.unique(slates.user),
                logged_terms(slates),
                terms,
                slates=MANY,
                resamples=MANY_RESAMPLES,
                confidence=0.95,
                limits=limits,
                cost_weight=1.0,
                rng=np.random.default_rng(1),
            )
        )

    seconds = _seconds(work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    estimators = len(ESTIMATORS)
    print(
        f"{MANY:,} slates of {POSITIONS}, {estimators} estimators, {MANY_RESAMPLES:,} resamples: "
        f"{seconds:.1f} core-seconds, {peak / 2**30:.2f} GiB"
    )
    assert found
    assert seconds < CORE_SECONDS
    assert peak < BYTES
