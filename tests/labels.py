"""Labels whose exposure is planted: one curve of delays for all categories."""

from collections.abc import Sequence

import numpy as np

from roiflow.labels.delays import Curves
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.labels.worth import Delays

CATEGORIES = 200


def planted_labels(theta: Sequence[float], by_age: Sequence[float]) -> Labels:
    """P(looked at) by position, and P(known) by age in hours, whose last value is 1."""
    curve = np.array([*by_age, 1.0])[None]
    sales = Curves(np.zeros((CATEGORIES, 1), np.int32), curve)
    each = np.zeros(CATEGORIES)
    delays = Delays(0, -1, sales, sales, each, each, each, 0)
    return Labels(Examination(np.array(theta)), (delays,), 0.5)
