"""How well packages foresaw the clicks on what they showed in a week.

A package was trained on what others showed; its first day is the one in which it is recalibrated on
its own users, and is not held against it.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data import served_features
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.evaluation.served_clicks import click_ece
from roiflow.features.table import Flags
from roiflow.labels.model import Labels
from roiflow.loop.result import ServedClicks
from roiflow.simulator.served import shown

DAYS = 7


def served_clicks(
    lake: Path, source: str, week: Week, labels: Labels, bins: int
) -> ServedClicks | None:
    """Of all packages that served the week; None where none did."""
    slates, rows = served_features.read(lake, source, week), shown(lake / source, week)
    if slates is None or rows is None:
        return None
    time = slates[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    day = (time - week.start) // MICROS_PER_DAY

    def error(some: Flags) -> float | None:
        return click_ece(slates.filter(pa.array(some)), rows, labels, bins)

    before = served_features.read(lake, source, week.plus(-1))
    old = set() if before is None else set(before[c.POLICY_VERSION].unique().to_pylist())
    by_day = [error(day == one) for one in range(DAYS)]
    return ServedClicks(
        error(~first_days(slates, old)),
        tuple(float("nan") if one is None else one for one in by_day),
    )


def first_days(slates: pa.Table, before: set[str]) -> Flags:
    """Which slates (n,) are of the first day of a package that did not serve before."""
    time = slates[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    version = np.array(slates[c.POLICY_VERSION].to_pylist(), np.str_)
    found = np.zeros(time.size, bool)
    for name in set(version.tolist()) - before:
        own = version == name
        found |= own & (time < time[own].min() + MICROS_PER_DAY)
    return found
