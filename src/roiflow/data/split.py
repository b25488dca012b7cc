"""Splits by global time only: what a model is tested on happened after all that it saw."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, Week

TRAIN, VALIDATION, TEST = 0, 1, 2


def boundaries(weeks: Sequence[Week], validation_days: int) -> tuple[int, int]:
    """First microsecond of VALIDATION and of TEST in a window of weeks, oldest first.

    TEST is the last week (in a window of one week: its last `validation_days`), VALIDATION the
    `validation_days` before it. A label that became known from TEST on must not train: the caller
    leaves out conversions with a known_time of TEST.
    """
    length = validation_days * MICROS_PER_DAY
    test = weeks[-1].start if len(weeks) > 1 else weeks[-1].end - length
    return test - length, test


def split(time: NDArray[np.int64], validation: int, test: int) -> NDArray[np.uint8]:
    """TRAIN, VALIDATION or TEST of each row by its event_time, (n,) micros."""
    # Right: what happens at a boundary's own microsecond is of the later split.
    return np.searchsorted([validation, test], time, side="right").astype(np.uint8)
