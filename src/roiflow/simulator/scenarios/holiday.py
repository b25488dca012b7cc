"""The shock week is a shopping holiday: more visits, and they buy more readily."""

import numpy as np

from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

TRAFFIC = (1.1, 1.2, 1.3, 1.6, 2.0, 1.8, 1.6)
CONVERSION = (0.1, 0.1, 0.2, 0.3, 0.5, 0.4, 0.3)
"""Log odds, by weekday like TRAFFIC, Monday first."""


class Holiday(Scenario):
    """It passes: the week after is as the week before."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """More in the shock week."""
        if week != shock_week(params):
            return Effects()
        return Effects(traffic=np.array(TRAFFIC), conversion=np.array(CONVERSION))
