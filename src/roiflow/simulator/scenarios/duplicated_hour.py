"""One hour of the shock week's log was sent twice: every row of it, ids and all."""

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Scenario, shock_week

FROM = 2 * MICROS_PER_DAY + 10 * MICROS_PER_HOUR
"""Wednesday 10:00 UTC, from the week's start."""


class DuplicatedHour(Scenario):
    """Each copy follows its original."""

    def arrive(self, params: SimulatorParams, week: Week, tables: Tables) -> Tables:
        """Events that happened in the hour are there twice."""
        if week != shock_week(params):
            return tables
        start = week.start + FROM
        names = ("impressions", "behaviours", "conversions")
        return tables | {name: _twice(tables[name], start) for name in names}


def _twice(rows: pa.Table, start: int) -> pa.Table:
    time = rows[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    inside = (time >= start) & (time < start + MICROS_PER_HOUR)
    # Copies lie beside their originals, so the rows stay in the order of their table.
    return rows.take(pa.array(np.repeat(np.arange(rows.num_rows), 1 + inside))).combine_chunks()
