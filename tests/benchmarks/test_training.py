"""Impressions a CPU-second of training: users encoded once against one padded row each."""

import time

import numpy as np
import pytest
import torch

from roiflow.data.split import TRAIN
from roiflow.features.table import Features, Longs
from roiflow.params import RankerParams
from roiflow.ranking import packing
from roiflow.ranking.examples import Examples
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.torch_ranker import one_thread, tensors
from roiflow.ranking.train import Targets, loss, start
from tests.conftest import Record
from tests.unit.ranking.worlds import EXAMINATION, PARAMS, build, labels_of

ROUNDS = 5
REFERENCE = PARAMS.model_copy(update={"dim": 32, "layers": 2, "batch_tokens": 6400, "bins": 8})


def impressions_per_cpu_second(
    features: Features, rows: Longs, params: RankerParams, cap: int
) -> float:
    """One pass of training steps over `rows`; the packing is counted."""
    log = Examples.of(features, labels_of(features))
    ranker = start(RosaRanker, features, log, EXAMINATION, params)
    ranker.net.train()
    optimiser = torch.optim.AdamW(ranker.net.parameters())
    begin = time.process_time()
    segments = packing.cut(features, rows, ranker.reach(ranker.shape), cap)
    rng = np.random.default_rng(0)
    for batch in packing.batches(
        features, segments, ranker.shape.index_sizes, params.batch_tokens, rng
    ):
        targets = Targets.of(log, batch.row)
        objective, _ = loss(ranker.net(*tensors(batch)), targets, params)
        optimiser.zero_grad()
        objective.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return rows.size / (time.process_time() - begin)


@pytest.mark.parametrize(("per_user", "least"), [(30, 4.0), (3, 1.0)])
def test_shared_encoding_against_padded_rows(
    per_user: int, least: float, full: bool, record: Record
) -> None:
    users = (2000 if full else 200) * 30 // per_user
    world = build(users=users, per_user=per_user, behaviours=60, history_length=50)
    features = world.features
    rows = features.rows(TRAIN)
    few = rows[features.impressions.user[rows] <= users // 8]
    with one_thread():
        ratios, shared = [], []
        for _ in range(ROUNDS):
            fast = impressions_per_cpu_second(features, rows, REFERENCE, 512)
            slow = impressions_per_cpu_second(features, few, REFERENCE, 1)
            ratios.append(fast / slow)
            shared.append(fast)
    trained_on = rows.size / np.unique(features.impressions.user[rows]).size
    record(
        f"ROSA training, {trained_on:.1f} impressions a user, d 32, 2 layers, H 50",
        f"{np.median(shared):,.0f} impressions per CPU-s, "
        f"{np.median(ratios):.1f} x the padded layout",
    )
    assert np.median(ratios) > least
