"""Interests turn a little every week, so that a model ages."""

from roiflow.data.weeks import MICROS_PER_WEEK, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.scenarios.effects import Effects, Scenario


class SlowDrift(Scenario):
    """`synthetic.interest_drift` radians a week; a real panel's interests drift by themselves."""

    def effects(self, params: SimulatorParams, week: Week) -> Effects:
        """Turned in proportion to the weeks since the first."""
        if params.world != "synthetic":
            return Effects()
        weeks = (week.start - Week.parse(params.first_week).start) // MICROS_PER_WEEK
        return Effects(turn=params.synthetic.interest_drift * weeks)
