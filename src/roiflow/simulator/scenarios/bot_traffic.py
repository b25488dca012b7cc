"""Bots come in: they visit often, click nearly everything and buy nothing."""

from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

SHARE = 0.02
"""Of the users."""


class BotTraffic(Scenario):
    """A few of the users turn out to be bots."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Bots from the shock week on."""
        return Effects(bots=SHARE if week >= shock_week(params) else 0.0)
