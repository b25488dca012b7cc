"""Splits by global time only: what a model is tested on happened after all that it saw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, Week

TRAIN, VALIDATION, TEST, RUN_UP = 0, 1, 2, 3
"""RUN_UP comes first of all in time: its rows count in features, but no model learns from them."""


class Boundaries(NamedTuple):
    """First microseconds of the splits after RUN_UP."""

    train: int
    validation: int
    test: int


def boundaries(weeks: Sequence[Week], validation_days: int, run_up_days: int) -> Boundaries:
    """Where the splits of a window of weeks, oldest first, begin.

    TEST is the last week (in a window of one week: its last `validation_days`), VALIDATION the
    `validation_days` before it. RUN_UP is the first `run_up_days`, which have no past to count in;
    a window that would not have a week left to learn from spares none. A label that became known
    from TEST on must not train: the caller leaves out conversions with a known_time of TEST.
    """
    length, run_up = validation_days * MICROS_PER_DAY, run_up_days * MICROS_PER_DAY
    first, test = weeks[0].start, weeks[-1].start if len(weeks) > 1 else weeks[-1].end - length
    validation = test - length
    spared = run_up if validation - first >= run_up + 7 * MICROS_PER_DAY else 0
    return Boundaries(first + spared, validation, test)


def split(time: NDArray[np.int64], starts: Boundaries) -> NDArray[np.uint8]:
    """RUN_UP, TRAIN, VALIDATION or TEST of each row by its event_time, (n,) micros."""
    # Right: what happens at a boundary's own microsecond is of the later split.
    place = np.searchsorted(starts, time, side="right")
    return np.array([RUN_UP, TRAIN, VALIDATION, TEST], np.uint8)[place]
