import numpy as np
import pytest
from numpy.testing import assert_allclose

from roiflow.offline import moments
from roiflow.offline.moments import Moments


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_parts_together_are_the_whole(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(moments, "_CHUNK", chunk)
    dense = np.random.default_rng(0).normal(1e4, 0.1, (300, 4)).astype(np.float32)
    total = Moments.none(4)
    for part in np.split(dense, [0, 1, 90]):
        total = total.joined(Moments.of(part))
    found = total.statistics()
    assert total.rows == 300
    assert_allclose(found.mean, dense.astype(np.float64).mean(axis=0), rtol=1e-7)
    assert_allclose(found.std, dense.astype(np.float64).std(axis=0), rtol=1e-6)
    assert_allclose(found.low, dense.min(axis=0))
    assert_allclose(found.span, np.ptp(dense, axis=0))


def test_a_constant_has_deviation_and_span_one() -> None:
    found = Moments.of(np.full((5, 1), 3.0, np.float32)).statistics()
    assert [one.item() for one in vars(found).values()] == [3.0, 1.0, 3.0, 1.0]
