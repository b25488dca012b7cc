"""A week of the ad world, served by whoever chooses the slates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.compiled import compiled
from roiflow.data.schemas import BEHAVIOURS, CONVERSIONS, IMPRESSIONS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError, PropensityError
from roiflow.simulator.noise import Floats, Longs, Stream, generator
from roiflow.simulator.population import Ads, Flags, Ints, WorldRequests
from roiflow.simulator.tables import By, Shown, WorldTables, joined
from roiflow.simulator.world import World

Progress = Callable[[float, str], None]
"""Told the done fraction and what is being done."""

DELAYED = {"impressions": IMPRESSIONS, "behaviours": BEHAVIOURS, "conversions": CONVERSIONS}
"""Tables whose rows may become known after their week."""

OTHER_HISTORY = 1 << 40
"""Added to the requests' numbers, which address all draws, to draw again."""


class SlateChooser(Protocol):
    """What fills slates: the logging policy, the oracle, a served model."""

    policy_version: str
    """What it is called."""
    learns: bool
    """Whether it wants to observe what becomes known."""

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Ads (B, S), eligible rows of the catalogue (A,), and propensities (B, S).

        A propensity is of an ad given those above it.
        """
        ...

    def by(self, requests: WorldRequests) -> By:
        """Who fills their slates (B,), as the log has it."""
        ...

    def observe(self, tables: Tables) -> None:
        """Impressions, behaviours, conversions and ads that have just become known."""
        ...


@dataclass(frozen=True)
class WeekRun:
    """What a served week left behind."""

    tables: Tables  # rows that became known in the week, and its two snapshots
    pending: Tables  # impressions, behaviours and conversions that later weeks get to know


def run_week(
    world: World,
    week: Week,
    chooser: SlateChooser,
    carried: Tables,
    *,
    progress: Progress | None = None,
    chunk_hours: int | None = None,
) -> WeekRun:
    """Let `chooser` fill the week's slates; `carried` is what earlier weeks left pending.

    A chooser that learns observes what has become known before each chunk, each row once, with the
    ads of the week's catalogue at its start and those that come in it when they do. Raises
    PropensityError or ContractError, naming the request, where its answer is not a slate.
    """
    tables = WorldTables(world, week)
    log = _Log(carried, tables.behaviours())
    shown: list[Shown] = []
    ads, told = tables.ads(), week.start

    def before(at: int) -> None:
        if chooser.learns:
            # Only a learner's log must be up to date within the week: the others' is written once,
            # at the end.
            for one in shown:
                log.add(**tables.of(one))
            shown.clear()
            nonlocal told
            come = between(ads, told, at + 1)
            told = at + 1
            chooser.observe(log.news(at) | {"ads": come})
        if progress:
            done = (at - week.start) / (week.end - week.start)
            progress(done, f"{week} by {chooser.policy_version}")

    shown.extend(serve(world, week, chooser, before, chunk_hours=chunk_hours))
    log.add(**tables.of(joined(shown)))
    if progress:
        progress(1.0, f"{week} by {chooser.policy_version}")
    return log.close(week, {"ads": ads, "users": tables.users()})


def serve(
    world: World,
    week: Week,
    chooser: SlateChooser,
    before: Callable[[int], None] | None = None,
    *,
    chunk_hours: int | None = None,
    draw: int = 0,
) -> Iterator[Shown]:
    """Slates of a week and what came of them, chunk by chunk; another `draw`, another history.

    A chunk is an hour where there are budgets, else known_lag_hours for a chooser that learns and a
    day for one that does not, and ends where an ad comes or goes. `before` is called at the start
    of each. Raises ContractError where fewer ads than a slate has places can be shown.
    """
    pacer = world.pacer(week)
    if pacer.hourly:
        step = MICROS_PER_HOUR
    else:
        hours = chunk_hours or (world.params.known_lag_hours if chooser.learns else 24)
        step = hours * MICROS_PER_HOUR
    requests = world.requests(week)
    requests = replace(requests, number=requests.number + draw * OTHER_HISTORY)
    starts = np.union1d(np.arange(week.start, week.end, step), _changes(world.ads(week), week))
    first = np.searchsorted(requests.event_time, np.append(starts, week.end))
    rng: np.random.Generator | None = None
    for chunk, start in enumerate(starts.tolist()):
        if before:
            before(start)
        part = requests.take(slice(first[chunk], first[chunk + 1]))
        # What does not learn draws from one generator all week, so that its slates do not depend on
        # the length of chunks.
        if chooser.learns or rng is None:
            rng = generator(world.params.seed, Stream.CHOOSER, start // MICROS_PER_HOUR, draw)
        eligible = pacer.eligible(start)
        if part.number.size and eligible.sum() < world.slate_size:
            raise ContractError(
                f"week {week}, hour {(start - week.start) // MICROS_PER_HOUR}: {eligible.sum()} of "
                f"{eligible.size} ads can be shown, fewer than the {world.slate_size} places of a "
                "slate: the others have ended or spent their budget"
            )
        slates, propensity = chooser.choose(part, eligible, rng)
        # Before anything happens: a wrong slate would be charged for, and a wrong propensity be
        # logged.
        _check(world, week, part, slates, propensity, eligible)
        outcome = world.happen(week, part, slates)
        pacer.record(slates.ravel(), outcome.cost.ravel())
        yield Shown(part, slates, propensity, outcome, chooser.by(part))


def _changes(ads: Ads, week: Week) -> Longs:
    """Full hours of a week from which on other ads may be shown than before."""
    times = np.concatenate([ads.first, ads.last])
    inside = times[(times > week.start) & (times < week.end)]
    return -(-inside // MICROS_PER_HOUR) * MICROS_PER_HOUR


def _check(
    world: World,
    week: Week,
    requests: WorldRequests,
    slates: Ints,
    propensity: Floats,
    eligible: Flags,
) -> None:
    shape = (requests.number.size, world.slate_size)
    if slates.shape != shape or propensity.shape != shape:
        raise ContractError(
            f"week {week}: slates {slates.shape} with propensities {propensity.shape}, "
            f"expected {shape}"
        )
    row, fault = _first_fault(slates, propensity, eligible)
    if fault == NOT_A_SLATE:
        raise ContractError(
            f"week {week}, request {requests.number[row]}: ads {slates[row].tolist()} are not "
            f"{shape[1]} different rows of a catalogue of {eligible.size}"
        )
    if fault == NOT_ELIGIBLE:
        raise ContractError(
            f"week {week}, request {requests.number[row]}: ads {slates[row].tolist()} hold one "
            "that has ended or spent its budget"
        )
    if fault == NO_PROPENSITY:
        raise PropensityError(
            f"week {week}, request {requests.number[row]}: {propensity[row].tolist()} outside "
            "(0, 1]"
        )


NOT_A_SLATE, NOT_ELIGIBLE, NO_PROPENSITY = 1, 2, 3


@compiled(nogil=True)
def _first_fault(slates: Ints, propensity: Floats, eligible: Flags) -> tuple[int, int]:
    """The first row that is no slate, and what is wrong with it; (-1, 0) where all are right."""
    for row in range(slates.shape[0]):
        for slot in range(slates.shape[1]):
            ad = slates[row, slot]
            if ad < 0 or ad >= eligible.size:
                return row, NOT_A_SLATE
            for above in slates[row, :slot]:
                if above == ad:
                    return row, NOT_A_SLATE
            if not eligible[ad]:
                return row, NOT_ELIGIBLE
            if not 0.0 < propensity[row, slot] <= 1.0:
                return row, NO_PROPENSITY
    return -1, 0


def nothing() -> Tables:
    """The delayed tables without a row."""
    return {name: schema.empty_table() for name, schema in DELAYED.items()}


class _Log:
    """Events of a running week: those that wait to become known, and those that are known."""

    def __init__(self, carried: Tables, behaviours: pa.Table) -> None:
        self._waiting = {name: carried[name] for name in DELAYED}
        self._known: dict[str, list[pa.Table]] = {name: [] for name in DELAYED}
        self.add(behaviours=behaviours)

    def add(self, **tables: pa.Table) -> None:
        """Events that have happened."""
        for name, table in tables.items():
            self._waiting[name] = pa.concat_tables([self._waiting[name], table])

    def news(self, until: int) -> Tables:
        """Rows that became known up to and including `until` and were no news before."""
        fresh = {name: between(table, 0, until + 1) for name, table in self._waiting.items()}
        for name, table in fresh.items():
            self._known[name].append(table)
            # Most hours bring no news of most tables, and to filter copies what waits.
            if table.num_rows:
                self._waiting[name] = between(self._waiting[name], until + 1, None)
        return fresh

    def close(self, week: Week, snapshots: Tables) -> WeekRun:
        """The week's partition, and what waits for the next ones."""
        self.news(week.end - 1)
        known = {name: ordered(name, parts) for name, parts in self._known.items()}
        waiting = {name: ordered(name, [table]) for name, table in self._waiting.items()}
        return WeekRun(known | snapshots, waiting)


def between(table: pa.Table, start: int, end: int | None) -> pa.Table:
    """Rows that became known in [start, end), or from `start` on."""
    known = pc.cast(table[c.KNOWN_TIME], pa.int64())
    inside = pc.greater_equal(known, start)
    if end is not None:
        inside = pc.and_(inside, pc.less(known, end))
    return table.filter(inside).combine_chunks()


ORDER = {
    "impressions": (c.EVENT_TIME, c.IMPRESSION),
    "behaviours": (c.KNOWN_TIME, c.EVENT_TIME),
    "conversions": (c.KNOWN_TIME, c.EVENT_TIME, c.IMPRESSION),
}
"""What a partition's rows are sorted by; rows that are alike in it keep their order."""


def ordered(name: str, parts: list[pa.Table]) -> pa.Table:
    """One table of the parts, in the order of its kind."""
    table = pa.concat_tables(parts).combine_chunks()
    by = [(column, "ascending") for column in ORDER[name]]
    return table.sort_by(by).combine_chunks()
