"""Scenarios by name, each one small file over the same world."""

from roiflow.simulator.scenarios.bot_traffic import BotTraffic
from roiflow.simulator.scenarios.budget_cut import BudgetCut
from roiflow.simulator.scenarios.concept_drift import ConceptDrift
from roiflow.simulator.scenarios.dead_advertiser import DeadAdvertiser
from roiflow.simulator.scenarios.duplicated_hour import DuplicatedHour
from roiflow.simulator.scenarios.effects import Effects, Scenario
from roiflow.simulator.scenarios.holiday import Holiday
from roiflow.simulator.scenarios.late_backfill import LateBackfill
from roiflow.simulator.scenarios.logging_bug import LoggingBug
from roiflow.simulator.scenarios.price_shock import PriceShock
from roiflow.simulator.scenarios.slow_drift import SlowDrift
from roiflow.simulator.scenarios.stationary import Stationary
from roiflow.simulator.scenarios.time_zone_shift import TimeZoneShift

SCENARIOS: dict[str, Scenario] = {
    "stationary": Stationary(),
    "slow_drift": SlowDrift(),
    "concept_drift": ConceptDrift(),
    "price_shock": PriceShock(),
    "bot_traffic": BotTraffic(),
    "logging_bug": LoggingBug(),
    "duplicated_hour": DuplicatedHour(),
    "time_zone_shift": TimeZoneShift(),
    "late_backfill": LateBackfill(),
    "dead_advertiser": DeadAdvertiser(),
    "budget_cut": BudgetCut(),
    "holiday": Holiday(),
}

STEADY = {"stationary", "slow_drift"}
"""Those that know no shock week."""

__all__ = ["SCENARIOS", "STEADY", "Effects", "Scenario"]
