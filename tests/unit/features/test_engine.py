import numpy as np

from roiflow.features import kernels
from roiflow.features.engine import UserLog

AD = np.array([1, 1, 2, 2, 3], np.int32)
KIND = np.array(
    [kernels.IMPRESSION, kernels.BEHAVIOUR, kernels.CLICK, kernels.IMPRESSION, kernels.IMPRESSION],
    np.uint8,
)
LOG = UserLog(np.array([0, 5]), np.arange(5), AD, np.array([9, 8, 7, 6, 5], np.int32), KIND)


def test_what_was_shown_has_the_category_that_was_known_then_and_behaviours_their_own() -> None:
    """Ads 1 and 2 are of categories 4 and 0; ad 3 has no row. The fourth row is left alone."""
    attributes = np.zeros((3, 5), np.int32)
    attributes[1, kernels.CATEGORY] = 4
    found = LOG.categorised(attributes, np.array([True, True, True, False, True]))
    assert found.category.tolist() == [4, 8, 0, 6, 0]
    assert LOG.category.tolist() == [9, 8, 7, 6, 5]
