"""All prices rise at once and demand falls; bids stay as they were."""

import math

import numpy as np

from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

FACTOR = 1.5
ELASTICITY = -1.5
"""Of the odds of a conversion to the price."""


class PriceShock(Scenario):
    """A conversion brings more and comes less often."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Dearer from the shock week on."""
        if week < shock_week(params):
            return Effects()
        return Effects(price=FACTOR, conversion=np.full(7, ELASTICITY * math.log(FACTOR)))
