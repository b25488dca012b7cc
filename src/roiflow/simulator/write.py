"""Weeks of the logging policy as Parquet, in bulk: shard by shard of users, on every core.

A shard's weeks are a file of their own, week=YYYY-Www/part-N.parquet, in the order of their times,
so memory stands still however many users there are, and the bytes do not depend on the threads. A
week's rows lie in the partition in which they become known: what becomes known after the last week
is not written, and nothing is known of weeks before the first. Ads are in one file a week.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.files import write_file
from roiflow.params import SimulatorParams
from roiflow.simulator.policies import logging_policy
from roiflow.simulator.run import DELAYED, Progress, serve
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.tables import WorldTables, joined
from roiflow.simulator.world import World, parts

PLAIN = [c.KNOWN_TIME, c.REQUEST, c.IMPRESSION, c.PROPENSITY, c.REVENUE]
"""Columns of mostly different values: a dictionary of them would cost and save nothing."""


def write_weeks(
    params: SimulatorParams,
    folder: Path,
    weeks: list[Week],
    threads: int,
    progress: Progress | None = None,
) -> int:
    """Write tables/week=YYYY-Www/part-N.parquet below `folder`; the number of events.

    Files of earlier weeks are left alone, those of these weeks replaced. Raises UnknownWeek outside
    the world's weeks, ParamsError where there can be no such world.
    """
    worlds, whole = parts(params), World(params)
    for week in weeks:
        for table in SCHEMAS:
            # A run with other parameters may have had more parts, and those left over would be read
            # with the new ones.
            for stale in (folder / table / f"week={week}").glob("part-*.parquet"):
                stale.unlink()
        with _writer(folder / "ads" / f"week={week}" / "part-0.parquet") as write:
            write(WorldTables(whole, week, compact=True).ads())
    events, done = 0, 0
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[int]] = deque()
        queue = iter(enumerate(worlds))
        while True:
            # Few parts ahead, and taken in their order: progress is even and what is waiting stays
            # small.
            while len(waiting) <= threads and (following := next(queue, None)):
                waiting.append(pool.submit(_write_part, *following, folder, weeks))
            if not waiting:
                return events
            events += waiting.popleft().result()
            done += 1
            if progress:
                progress(done / len(worlds), f"users {done} of {len(worlds)} parts")


def _by_day(world: World, week: Week) -> list[slice]:
    """Rows of the week's behaviours by day."""
    starts = week.start + MICROS_PER_DAY * np.arange(8)
    bounds = np.searchsorted(world.behaviours(week).event_time, starts).tolist()
    return [slice(*pair) for pair in pairwise(bounds)]


def _write_part(number: int, make: Callable[[], World], folder: Path, weeks: list[Week]) -> int:
    """All weeks of one part of the users; the number of events."""
    world, events = make(), 0
    late = {name: schema.empty_table() for name, schema in DELAYED.items()}

    def place(name: str, week: Week) -> Path:
        return folder / name / f"week={week}" / f"part-{number}.parquet"

    for week in weeks:
        tables = WorldTables(world, week, compact=True)
        chooser = logging_policy(world)
        shown = joined(list(serve(world, week, chooser)))
        days = _by_day(world, week)
        until = [week.start + MICROS_PER_DAY * (day + 1) for day in range(7)]
        # Behaviours by day, so that no more than a day's table is in memory; a day is a row group.
        # What was shown is held as a whole already.
        pieces: dict[str, Iterable[tuple[pa.Table, int]]] = {
            "behaviours": zip(map(tables.behaviours, days), until, strict=True),
            "impressions": [(tables.impressions(shown), week.end)],
            "conversions": [(tables.conversions(shown), week.end)],
        }
        events += days[-1].stop + shown.slates.size + shown.outcome.converted.size
        for name, happened in pieces.items():
            with _writer(place(name, week)) as write:
                for piece, end in happened:
                    known, late[name] = _split(late[name], piece, end)
                    write(_arrived(world, week, name, known))
        with _writer(place("users", week)) as write:
            write(tables.users())
    return events


def _split(late: pa.Table, happened: pa.Table, end: int) -> tuple[pa.Table, pa.Table]:
    """Rows known before `end`, in the order in which they became known, and the others."""
    table = pa.concat_tables([late, happened], promote_options="permissive") if late else happened
    known = table[c.KNOWN_TIME].cast(pa.int64()).to_numpy()
    # Mostly in order already; stable, so that rows known together stay as they happened.
    if (np.diff(known) < 0).any():
        order = np.argsort(known, kind="stable")
        table, known = table.take(pa.array(order)), known[order]
    until = int(np.searchsorted(known, end))
    return table.slice(0, until), table.slice(until)


def _arrived(world: World, week: Week, name: str, rows: pa.Table) -> pa.Table:
    """The rows as they reach the platform."""
    params = world.params
    others = {other: schema.empty_table() for other, schema in DELAYED.items()}
    return SCENARIOS[params.scenario].arrive(params, week, others | {name: rows})[name]


@contextmanager
def _writer(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Write tables as row groups of one file, which is there once all are written."""
    with write_file(path) as aside, ExitStack() as stack:
        writers: list[pq.ParquetWriter] = []

        def write(table: pa.Table) -> None:
            if not writers:
                # Times in order are small as differences already, so they are not compressed again.
                # Statistics and Arrow's own schema are left out: they would come again with each
                # part's file.
                others = [*PLAIN, c.EVENT_TIME]
                named = [field.name for field in table.schema if field.name not in others]
                loose = dict.fromkeys(table.schema.names, "zstd") | {c.EVENT_TIME: "none"}
                writer = pq.ParquetWriter(
                    aside, table.schema, compression=loose, use_dictionary=named,
                    column_encoding={c.EVENT_TIME: "DELTA_BINARY_PACKED"},
                    store_schema=False, write_statistics=False,
                )  # fmt: skip
                writers.append(stack.enter_context(writer))
            writers[0].write_table(table)

        yield write
