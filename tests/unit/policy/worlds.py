"""Candidate sets whose best slates are known."""

import numpy as np

from roiflow.params import PolicyParams
from roiflow.policy.candidate_sets import CandidateSets

PARAMS = PolicyParams(
    seed=7,
    slate_size=2,
    cost_weight=1.0,
    requests=200,
    held_out_every=5,
    measured_samples=8,
    iterations=30,
    batch_slates=512,
    samples_per_request=4,
    ppo_epochs=4,
    clip=0.2,
    kl_weight=0.02,
    entropy_weight=0.0,
    learning_rate=0.01,
    hidden=8,
    selector_share=0.0,
    temperature=1.0,
    residual_bound=3.0,
    checkpoint_every=2,
)


def candidate_sets(
    click: np.ndarray[tuple[int, int], np.dtype[np.float64]], *, absent: bool = False
) -> CandidateSets:
    """Value is proportional to `click` (B, K): revenue 10 units, conversion 1 in 10, cost 0.

    With `absent`, the last candidate of each second request is not there.
    """
    requests, candidates = click.shape
    ad = np.tile(np.arange(candidates, dtype=np.int32), (requests, 1))
    if absent:
        ad[::2, -1] = -1
    present = ad >= 0
    zero = np.zeros(click.shape)
    return CandidateSets(
        request=np.arange(requests),
        user=np.zeros(requests, np.int32),
        ad=ad,
        click=np.where(present, click, 0),
        conversion=np.where(present, click / 10, 0),
        revenue=np.where(present, 1e7, 0),
        expected_cost=zero,
        bid=zero.astype(np.int64),
        price=zero.astype(np.int64),
    )


def planted(requests: int = 200, candidates: int = 4, seed: int = 0) -> CandidateSets:
    """Random click rates."""
    return candidate_sets(np.random.default_rng(seed).uniform(0.01, 0.3, (requests, candidates)))
