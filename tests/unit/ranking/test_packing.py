import numpy as np
import pytest

from roiflow.data.split import TRAIN
from roiflow.ranking import packing
from roiflow.ranking.serving_form import Sizes
from tests.unit.ranking.worlds import build

WORLD = build(users=25, per_user=20, behaviours=90, history_length=8)
FEATURES = WORLD.features
SIZES = Sizes.of(FEATURES.sizes, FEATURES.profile_names)


@pytest.mark.parametrize("cap", [1, 7, 512])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_impression_is_there_once_and_sees_its_own_window(cap: int, shuffled: bool) -> None:
    rows = FEATURES.rows(TRAIN)
    segments = packing.cut(FEATURES, rows, reach=7, cap=cap)
    rng = np.random.default_rng(0) if shuffled else None
    log, events = FEATURES.impressions, FEATURES.events
    found: list[int] = []
    for batch in packing.batches(FEATURES, segments, SIZES, 600, rng):
        for r, i in zip(*np.nonzero(batch.row >= 0), strict=True):
            row = batch.row[r, i]
            seen = slice(log.history_start[row], log.history_end[row])
            window = batch.window[r, i]
            assert batch.action[r][window].tolist() == events.action[seen].tolist()
            assert batch.ad[r][window].tolist() == events.ad[seen].tolist()
            hours = (log.event_time[row] - events.event_time[seen]) / 3.6e9
            np.testing.assert_allclose(batch.elapsed[r, i][window], hours, atol=1 / 1024)
            assert batch.candidate[r, i] == log.ad[row]
            assert batch.user[r] == log.user[row]
            found.append(row)
    assert sorted(found) == rows.tolist()


def test_segments_are_cut_at_the_cap_and_at_the_chunk() -> None:
    segments = packing.cut(FEATURES, FEATURES.rows(TRAIN), reach=7, cap=5)
    assert segments.count.max() == 5
    assert (segments.end - segments.start).max() <= packing.CHUNK + 2 * 7


def test_batches_hold_no_more_than_the_tokens_allowed() -> None:
    segments = packing.cut(FEATURES, FEATURES.rows(TRAIN), reach=7, cap=20)
    for chosen in packing.schedule(segments, 400, np.random.default_rng(0)):
        length = (segments.end - segments.start)[chosen].max()
        assert chosen.size == 1 or chosen.size * (length + segments.count[chosen].max()) <= 400
