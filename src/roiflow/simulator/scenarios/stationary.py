"""Nothing changes: one week is like any other."""

from roiflow.simulator.scenarios.effects import Scenario


class Stationary(Scenario):
    """The world that the other scenarios change."""
