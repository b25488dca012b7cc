"""The ad world as a source: served weeks lie in the lake, all other weeks are the logging policy's.

A week's rows that become known after it (its last hour, delayed conversions, returns) reach the
next weeks whichever policy serves those. For a logged week they are drawn again from the seed; for
a served week they lie beside it, in <lake>/simulator/pending/<table>/week=YYYY-Www/part-0.parquet.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.sources import fingerprint
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week, span
from roiflow.errors import SourceError, UnknownWeek
from roiflow.files import write_file
from roiflow.params import SimulatorParams
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

MARKER = "impressions"
"""The table that is written last: a served week exists once its impressions do."""
ENDLESS = 260
"""Weeks that are listed of a world without an end."""
REACH = 2
"""A week's rows become known in the week itself or in one of so many after it."""


def partition(lake: Path, table: str, week: Week) -> Path:
    """One table's file of one week."""
    return lake / table / f"week={week}" / "part-0.parquet"


def write_week(lake: Path, week: Week, run: WeekRun) -> None:
    """Keep a served week in the simulator's folder; a half written one counts as not served."""
    partition(lake, MARKER, week).unlink(missing_ok=True)
    for name, table in run.pending.items():
        _write(table, partition(lake / "pending", name, week))
    for name in sorted(run.tables, key=lambda name: name == MARKER):
        _write(run.tables[name], partition(lake, name, week))


def shown(folder: Path, week: Week) -> pa.Table | None:
    """Every impression of a served week, known in it or later; None where none served it.

    `folder` is the simulator's in the lake.
    """
    paths = [partition(root, MARKER, week) for root in (folder, folder / "pending")]
    if not paths[0].exists():
        return None
    return pa.concat_tables([_own(_read(path), week) for path in paths])


def _own(rows: pa.Table, week: Week) -> pa.Table:
    """The impressions that were shown in the week, not only known in it."""
    times = rows[c.EVENT_TIME].cast(pa.int64())
    return rows.filter(pc.and_(pc.greater_equal(times, week.start), pc.less(times, week.end)))


def _write(table: pa.Table, path: Path) -> None:
    with write_file(path) as aside:
        pq.write_table(table, aside, compression="zstd", use_dictionary=False)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path}: {error}") from None


class SimulatorSource:
    """Weeks of the ad world."""

    name = "simulator"

    def __init__(self, params: SimulatorParams, lake: Path) -> None:
        """`lake` holds every source's weeks; ours are in its folder `simulator`.

        Raises ParamsError, naming key and value, on an impossible world.
        """
        self.world = World(params)
        self.lake, self._lake = lake, lake / self.name
        self._runs: dict[Week, WeekRun] = {}

    def pull(self, week: Week, as_of: int) -> Tables:
        """Rows known in `week` and before `as_of`. Raises UnknownWeek outside the world's weeks.

        They are what reaches the platform: a scenario may have spoilt the log on its way.
        """
        self._require(week)
        if self.served(week):
            names = (*DELAYED, "ads", "users")
            tables = {name: _read(partition(self._lake, name, week)) for name in names}
        else:
            carried, own = self.carried(week), self._logged(week).tables
            tables = own | {name: ordered(name, [carried[name], own[name]]) for name in DELAYED}
        params = self.world.params
        known = {name: between(tables[name], week.start, week.end) for name in DELAYED}
        arrived = SCENARIOS[params.scenario].arrive(params, week, tables | known)
        return arrived | {name: between(arrived[name], week.start, as_of) for name in DELAYED}

    def weeks(self) -> list[Week]:
        """See Source.weeks: every week that the world can play, five years of an endless one."""
        first, last = self.world.first_week, self.world.population.last_week
        return span(first, last or first.plus(ENDLESS - 1))

    def state(self, weeks: Sequence[Week]) -> str:
        """See Source.state: the served weeks and the panel; all else follows from params.yaml."""
        served = fingerprint.of_partitions(self._lake, weeks, REACH)
        if self.world.params.world != "panel":
            return served
        journey = CompleteJourney.installed(self.world.params.panel.history_weeks)
        return f"{served} {journey.state(weeks)}"

    def served(self, week: Week) -> bool:
        """Whether a policy other than the logging policy served the week."""
        return partition(self._lake, MARKER, week).exists()

    def serve_week(
        self, week: Week, chooser: SlateChooser, progress: Progress | None = None
    ) -> Tables:
        """Let `chooser` serve a week and keep it in the lake; serving it again replaces it.

        Weeks are served in order: a later week keeps what it carried over when it was served.
        Raises UnknownWeek outside the world's weeks.
        """
        self._require(week)
        run = run_week(self.world, week, chooser, self.carried(week), progress=progress)
        write_week(self._lake, week, run)
        return run.tables

    def carried(self, week: Week) -> Tables:
        """What the weeks before left to become known in this one or later."""
        waiting, before = [nothing()], week
        for _ in range(REACH):
            before = before.plus(-1)
            if before < self.world.first_week:
                break
            if self.served(before):
                pending = self._lake / "pending"
                waiting.append({name: _read(partition(pending, name, before)) for name in DELAYED})
                break
            waiting.append(self._logged(before).pending)
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
        if week not in self._runs:
            run = run_week(self.world, week, logging_policy(self.world), nothing())
            self._runs = dict(list(self._runs.items())[-REACH:]) | {week: run}
        return self._runs[week]
