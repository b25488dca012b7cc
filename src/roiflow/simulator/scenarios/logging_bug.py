"""The log of the shock week says propensity 1 for everything that was shown."""

import pyarrow as pa

from roiflow import columns as c
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Scenario, shock_week


class LoggingBug(Scenario):
    """The slates were drawn as ever; only what is written of them is wrong."""

    def arrive(self, params: SimulatorParams, week: Week, tables: Tables) -> Tables:
        """Every propensity of the shock week's log is 1."""
        if week != shock_week(params):
            return tables
        rows = tables["impressions"]
        place = rows.schema.get_field_index(c.PROPENSITY)
        ones = pa.repeat(pa.scalar(1.0), rows.num_rows)
        return tables | {"impressions": rows.set_column(place, rows.schema.field(place), ones)}
