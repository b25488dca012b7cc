"""The ad world as a source: served weeks lie in the lake, all other weeks are the logging policy's.

A week's rows that become known after it (its last hour, delayed conversions, returns) reach the
next weeks whichever policy serves those. For a logged week they are drawn again from the seed; for
a served week they lie beside it (served.py).
"""

from collections.abc import Sequence
from pathlib import Path

from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week, span
from roiflow.errors import UnknownWeek
from roiflow.params import SimulatorParams
from roiflow.simulator import served
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.run import (
    DELAYED,
    Progress,
    SlateChooser,
    WeekRun,
    between,
    nothing,
    ordered,
    run_week,
)
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.world import World

ENDLESS = 260
"""Weeks that are listed of a world without an end."""


class SimulatorSource:
    """Weeks of the ad world."""

    name = "simulator"

    def __init__(self, params: SimulatorParams, lake: Path) -> None:
        """`lake` holds every source's weeks; ours are in its folder `simulator`.

        Raises ParamsError, naming key and value, on an impossible world.
        """
        self.world = World(params)
        self.lake, self._lake = lake, lake / self.name
        self._latest: tuple[Week, WeekRun] | None = None
        self._left: dict[Week, Tables] = {}

    def pull(self, week: Week, as_of: int) -> Tables:
        """Rows known in `week` and before `as_of`. Raises UnknownWeek outside the world's weeks.

        They are what reaches the platform: a scenario may have spoilt the log on its way.
        """
        self._require(week)
        if self.served(week):
            tables = served.read_week(self._lake, week, (*DELAYED, "ads", "users"))
        else:
            # A logged week is made without what earlier weeks left, so that it can be kept
            # whichever policy served those.
            carried, own = self.carried(week), self._logged(week).tables
            tables = own | {name: ordered(name, [carried[name], own[name]]) for name in DELAYED}
        params = self.world.params
        # First what is known in the week, then the scenario's fault, and `as_of` last: the fault is
        # the same whenever it is asked for.
        known = {name: between(tables[name], week.start, week.end) for name in DELAYED}
        arrived = SCENARIOS[params.scenario].arrive(params, week, tables | known)
        # Ads that come in the week are known when they come; all others, and users, at its start.
        timed = (*DELAYED, "ads")
        return arrived | {name: between(arrived[name], week.start, as_of) for name in timed}

    def weeks(self) -> list[Week]:
        """See Source.weeks: every week that the world can play, five years of an endless one."""
        first, last = self.world.first_week, self.world.population.last_week
        return span(first, last or first.plus(ENDLESS - 1))

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state."""
        return served.state(self.world.params, self._lake, weeks)

    def served(self, week: Week) -> bool:
        """Whether a policy other than the logging policy served the week."""
        return served.is_served(self._lake, week)

    def serve_week(
        self, week: Week, chooser: SlateChooser, progress: Progress | None = None
    ) -> Tables:
        """Let `chooser` serve a week and keep it in the lake; serving it again replaces it.

        Weeks are served in order: a later week keeps what it carried over when it was served.
        Raises UnknownWeek outside the world's weeks.
        """
        self._require(week)
        run = run_week(self.world, week, chooser, self.carried(week), progress=progress)
        served.write_week(self._lake, week, run.tables, run.pending)
        return run.tables

    def carried(self, week: Week) -> Tables:
        """What the weeks before left to become known in this one or later."""
        waiting, before = [nothing()], week
        for _ in range(served.REACH):
            before = before.plus(-1)
            if before < self.world.first_week:
                break
            if self.served(before):
                # What a served week left holds also what it was handed by the weeks before, so here
                # it ends.
                waiting.append(served.read_pending(self._lake, before, list(DELAYED)))
                break
            waiting.append(self._pending(before))
        return {
            name: between(ordered(name, [part[name] for part in waiting]), week.start, None)
            for name in DELAYED
        }

    def _require(self, week: Week) -> None:
        first, last = self.world.first_week, self.world.population.last_week
        if week < first or (last is not None and week > last):
            until = "on" if last is None else f"to {last}"
            raise UnknownWeek(f"week {week}: the simulator holds weeks from {first} {until}")

    def _logged(self, week: Week) -> WeekRun:
        """The logging policy's own events of a week."""
        if self._latest is None or self._latest[0] != week:
            self._latest = None  # its tables go before the next week's are made
            run = run_week(self.world, week, logging_policy(self.world), nothing())
            self._latest = week, run
            # A pulled week needs what is left of the weeks before it and little else: whole weeks
            # are large, and to draw them again costs as much as the first time.
            self._left = dict(list(self._left.items())[-served.REACH :]) | {week: run.pending}
        return self._latest[1]

    def _pending(self, week: Week) -> Tables:
        """What a logged week left; of the weeks before a pulled one nothing else is kept."""
        return self._left[week] if week in self._left else self._logged(week).pending
