"""All advertisers cut their daily budgets at once."""

from roiflow.data.weeks import Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario, shock_week

FACTOR = 0.3


class BudgetCut(Scenario):
    """Ads run out of budget earlier in the day; a world without budgets does not change."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Less from the shock week on."""
        return Effects(budget=FACTOR if week >= shock_week(params) else 1.0)
