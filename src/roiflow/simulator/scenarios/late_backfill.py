"""A day of the shock week reaches the platform only in the week after it."""

from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

DAY, LATE = 5, 3
"""The Saturday's events are known three days after the week's end."""


class LateBackfill(Scenario):
    """The events happen as ever; the platform learns of them late, and of each once."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """An outage of a day in the shock week."""
        if week != shock_week(params):
            return Effects()
        start = week.start + DAY * MICROS_PER_DAY
        return Effects(outage=(start, start + MICROS_PER_DAY, week.end + LATE * MICROS_PER_DAY))
