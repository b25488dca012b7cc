"""The biggest advertiser goes out of business: its ads end in the middle of the shock week."""

from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

BIGGEST = 0
AFTER = 3 * MICROS_PER_DAY
"""Thursday 00:00 UTC, from the week's start."""


class DeadAdvertiser(Scenario):
    """Its ads stay in the catalogue, and are never shown again."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Ended from the shock week on."""
        shock = shock_week(params)
        return Effects(stopped=(BIGGEST, shock.start + AFTER) if week >= shock else None)
