"""Why served features differ from recomputed ones: known faults, each tried as a hypothesis.

A hypothesis says what serving was given if its fault had happened. It is tried on slates that
differ, and on some that do not, which it must leave alone; one that explains nearly all is named.
"""

import numpy as np

from roiflow.artefacts.parity import Fault
from roiflow.features.table import Longs
from roiflow.parity.fault_case import (
    BACK_FILL,
    DROPPED_HOUR,
    ENOUGH,
    STATISTICS,
    TIME_ZONE,
    UNEXPLAINED,
    VOCABULARY,
    Case,
    Explanation,
)
from roiflow.parity.fault_clock import time_zone
from roiflow.parity.fault_rows import back_fill, missing_hour
from roiflow.parity.fault_values import statistics, vocabulary
from roiflow.parity.findings import Sampled
from roiflow.parity.replay import Content, Replayed

TRIED = 200
"""Slates that differ, and as many that do not, on which a hypothesis is tried."""

HYPOTHESES = {
    BACK_FILL: back_fill,
    TIME_ZONE: time_zone,
    STATISTICS: statistics,
    VOCABULARY: vocabulary,
    DROPPED_HOUR: missing_hour,
}
"""In the order in which they are tried; the last one takes longest."""


def explain(replayed: Replayed, different: Sampled, former: Content) -> Fault:
    """The fault that explains what differs, or `unexplained`, with what was tried.

    `former` is what an earlier pull held of the weeks before the served one.
    """
    rows, others = replayed.differing, np.flatnonzero(replayed.final & replayed.same)
    if not rows.size:
        return Fault(UNEXPLAINED, 0.0, "", {})
    case = Case(replayed, different, former, _some(rows), _some(others))
    tried: dict[str, float] = {}
    best = Explanation(UNEXPLAINED, 0.0, "")
    for name, hypothesis in HYPOTHESES.items():
        found = max(hypothesis(case), key=lambda one: one.explains, default=best)
        tried[name] = round(found.explains, 4)
        if found.explains >= ENOUGH:
            best = found
            break
    return Fault(best.name, best.explains, best.size, tried)


def _some(rows: Longs) -> Longs:
    if not rows.size:
        return rows
    return rows[np.unique(np.linspace(0, rows.size - 1, TRIED).astype(np.int64))]
