"""Interests turn by a right angle at once: what was learned about them is worth nothing."""

import math

from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week


class ConceptDrift(Scenario):
    """The turning part of the interests after the shock is independent of that before."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Turned from the shock week on."""
        return Effects(turn=math.pi / 2 if week >= shock_week(params) else 0.0)
