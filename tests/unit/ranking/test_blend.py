"""The mean of two rankers' expectations."""

import numpy as np
import pytest

from roiflow.ranking.blend import mean
from roiflow.ranking.protocol import Predictions


def predictions(*values: list[float]) -> Predictions:
    return Predictions(*(np.array([each], np.float32) for each in values))


RANKER = predictions([0.10, 0.2, 0.0], [0.02, 0.0, 0.0], [10e6, 7e6, 5e6])
SELECTOR = predictions([0.30, 0.4, 0.0], [0.06, 0.0, 0.0], [20e6, 9e6, 0.0])


def test_means_by_hand() -> None:
    """A quarter of the selector; 0.75 x 0.02 x 10 + 0.25 x 0.06 x 20 = 0.45 of revenue a look."""
    found = mean(RANKER, SELECTOR, 0.25)
    np.testing.assert_allclose(found.click, [[0.15, 0.25, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(found.conversion, [[0.03, 0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(found.conversion * found.revenue, [[0.45e6, 0, 0]], rtol=1e-6)
    # Where nothing converts there is no mean of amounts: the ranker's stand.
    np.testing.assert_allclose(found.revenue, [[15e6, 7e6, 5e6]], rtol=1e-6)
    assert {each.dtype for each in vars(found).values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("share", "expected"), [(0.0, RANKER), (1.0, SELECTOR)])
def test_all_of_one_is_that_one(share: float, expected: Predictions) -> None:
    found = mean(RANKER, SELECTOR, share)
    np.testing.assert_allclose(found.click, expected.click)
    np.testing.assert_allclose(found.conversion, expected.conversion)
    np.testing.assert_allclose(
        found.conversion * found.revenue, expected.conversion * expected.revenue
    )
