"""Splits by global time only: what the model is tested on became known after all it saw."""

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ParamsError

TRAIN, VALIDATION, TEST = 0, 1, 2


def split(
    known_time: NDArray[np.int64], test_week: Week, validation_days: int
) -> NDArray[np.uint8]:
    """TRAIN, VALIDATION or TEST of each row, (n,), by when it became known (micros).

    TEST is what became known in the test week, VALIDATION what did in the `validation_days` days
    before it. By known_time, not event_time: a label that arrived in the test week must not train.

    Raises ParamsError where no row would train.
    """
    first = test_week.start - validation_days * MICROS_PER_DAY
    parts = np.searchsorted([first, test_week.start], known_time, side="right").astype(np.uint8)
    if not (parts == TRAIN).any():
        raise ParamsError(
            f"build_features.validation_days: {validation_days} days before {test_week} leave no "
            "earlier row to train on"
        )
    return parts
