"""A week of the ad world, served by whoever chooses the slates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data.schemas import BEHAVIOURS, CONVERSIONS, IMPRESSIONS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError, PropensityError
from roiflow.simulator.noise import Floats, Stream, generator
from roiflow.simulator.population import Ints
from roiflow.simulator.tables import (
    ad_table,
    behaviour_table,
    conversion_table,
    impression_table,
    user_table,
)
from roiflow.simulator.world import World, WorldRequests

Progress = Callable[[float, str], None]
"""Told the done fraction and what is being done."""

DELAYED = {"impressions": IMPRESSIONS, "behaviours": BEHAVIOURS, "conversions": CONVERSIONS}
"""Tables whose rows may become known after their week."""


class SlateChooser(Protocol):
    """What fills slates: the logging policy, the oracle, a served model."""

    policy_version: str
    arm: str

    def choose(self, requests: WorldRequests, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Ads (B, S), rows of the catalogue, and propensities (B, S), each given the ads above."""
        ...

    def observe(self, tables: Tables) -> None:
        """Impressions, behaviours and conversions that have just become known."""
        ...


@dataclass(frozen=True)
class WeekRun:
    """What a served week left behind."""

    tables: Tables  # rows that became known in the week, and its two snapshots
    pending: Tables  # impressions, behaviours and conversions that the next week gets to know


def run_week(
    world: World,
    week: Week,
    chooser: SlateChooser,
    carried: Tables,
    *,
    progress: Progress | None = None,
    chunk_hours: int | None = None,
) -> WeekRun:
    """Let `chooser` fill the week's slates, in chunks of known_lag_hours unless told otherwise.

    `carried` is what the week before left pending. Before each chunk the chooser observes what has
    become known, each row once. Raises PropensityError or ContractError, naming the request, where
    the chooser's answer is not a slate.
    """
    step = (chunk_hours or world.params.known_lag_hours) * MICROS_PER_HOUR
    requests = world.requests(week)
    starts = np.arange(week.start, week.end, step)
    first = np.searchsorted(requests.event_time, np.append(starts, week.end))
    log = _Log(carried, behaviour_table(world, week))
    for chunk, start in enumerate(starts.tolist()):
        chooser.observe(log.news(start))
        part = requests.take(slice(first[chunk], first[chunk + 1]))
        rng = generator(world.params.seed, Stream.CHOOSER, start // MICROS_PER_HOUR)
        slates, propensity = chooser.choose(part, rng)
        _check(world, week, part, slates, propensity)
        outcome = world.happen(week, part, slates)
        log.add(
            impressions=impression_table(
                world,
                week,
                part,
                slates,
                outcome,
                propensity=propensity,
                policy_version=chooser.policy_version,
                arm=chooser.arm,
            ),
            conversions=conversion_table(world, week, part, outcome),
        )
        if progress:
            progress((chunk + 1) / starts.size, f"{week} by {chooser.policy_version}")
    return log.close(week, {"ads": ad_table(world, week), "users": user_table(world, week)})


def _check(
    world: World, week: Week, requests: WorldRequests, slates: Ints, propensity: Floats
) -> None:
    shape = (requests.number.size, world.params.slate_size)
    if slates.shape != shape or propensity.shape != shape:
        raise ContractError(
            f"week {week}: slates {slates.shape} with propensities {propensity.shape}, "
            f"expected {shape}"
        )
    ordered = np.sort(slates, axis=1)
    wrong = (ordered[:, 0] < 0) | (ordered[:, -1] >= world.ads.ids.size)
    wrong |= (np.diff(ordered, axis=1) == 0).any(axis=1)
    for row in np.flatnonzero(wrong)[:1]:
        raise ContractError(
            f"week {week}, request {requests.number[row]}: ads {slates[row].tolist()} are not "
            f"{shape[1]} different rows of a catalogue of {world.ads.ids.size}"
        )
    outside = ~((propensity > 0) & (propensity <= 1)).all(axis=1)
    for row in np.flatnonzero(outside)[:1]:
        raise PropensityError(
            f"week {week}, request {requests.number[row]}: {propensity[row].tolist()} outside "
            "(0, 1]"
        )


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
            if table.num_rows:
                self._waiting[name] = between(self._waiting[name], until + 1, None)
        return fresh

    def close(self, week: Week, snapshots: Tables) -> WeekRun:
        """The week's partition, and what waits for the next one."""
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


def ordered(name: str, parts: list[pa.Table]) -> pa.Table:
    """One table of the parts; impressions and behaviours come in time order, conversions do not."""
    table = pa.concat_tables(parts).combine_chunks()
    if name != "conversions":
        return table
    by = [(c.KNOWN_TIME, "ascending"), (c.EVENT_TIME, "ascending"), (c.IMPRESSION, "ascending")]
    return table.sort_by(by).combine_chunks()
