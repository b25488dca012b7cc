"""The shock week's events are stamped in another time zone, but said to be UTC."""

import pyarrow as pa

from roiflow import columns as c
from roiflow.data.schemas import TIME
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Scenario, shock_week

EARLY = 8 * MICROS_PER_HOUR


class TimeZoneShift(Scenario):
    """When rows become known is the platform's own clock and stays right."""

    def arrive(self, params: SimulatorParams, week: Week, tables: Tables) -> Tables:
        """Event times of the shock week's log are 8 hours early."""
        if week != shock_week(params):
            return tables
        names = ("impressions", "behaviours", "conversions")
        return tables | {name: _earlier(tables[name]) for name in names}


def _earlier(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index(c.EVENT_TIME)
    time = rows[c.EVENT_TIME].cast(pa.int64()).to_numpy() - EARLY
    # The field is kept, and with it type and nullability: the log breaks its meaning, not its
    # schema.
    return rows.set_column(place, rows.schema.field(place), pa.array(time).view(TIME))
