"""Weeks that a policy other than the logging policy served, in the simulator's folder of the lake.

A week's rows that become known after it (its last hour, delayed conversions, returns) lie beside
it, in pending/<table>/week=YYYY-Www/part-0.parquet. Nothing here needs a world, so that whoever
only looks at what was served loads none.
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
from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.files import write_file
from roiflow.params import SimulatorParams

MARKER = "impressions"
"""The table that is written last: a served week exists once its impressions do."""
REACH = 2
"""A week's rows become known in the week itself or in one of so many after it."""


def partition(folder: Path, table: str, week: Week) -> Path:
    """One table's file of one week."""
    return folder / table / f"week={week}" / "part-0.parquet"


def is_served(folder: Path, week: Week) -> bool:
    """Whether a policy other than the logging policy served the week."""
    return partition(folder, MARKER, week).exists()


def write_week(folder: Path, week: Week, tables: Tables, pending: Tables) -> None:
    """Keep a served week; a half written one counts as not served."""
    # The marker goes first and comes last, so a week that is half written over is not taken for
    # whole.
    partition(folder, MARKER, week).unlink(missing_ok=True)
    for name, table in pending.items():
        _write(table, partition(folder / "pending", name, week))
    for name in sorted(tables, key=lambda name: name == MARKER):
        _write(tables[name], partition(folder, name, week))


def read_week(folder: Path, week: Week, names: Sequence[str]) -> Tables:
    """Tables of a served week. Raises SourceError, naming the file."""
    return {name: _read(partition(folder, name, week)) for name in names}


def read_pending(folder: Path, week: Week, names: Sequence[str]) -> Tables:
    """What a served week left to become known later. Raises SourceError, naming the file."""
    return read_week(folder / "pending", week, names)


def shown(folder: Path, week: Week) -> pa.Table | None:
    """Every impression of a served week, known in it or later; None where none served it."""
    if not is_served(folder, week):
        return None
    # The week's file also holds late rows of the weeks before, and its own late rows lie in
    # pending: times tell them apart.
    known = [_read(partition(root, MARKER, week)) for root in (folder, folder / "pending")]
    return pa.concat_tables([_own(rows, week) for rows in known])


def state(params: SimulatorParams, folder: Path, weeks: Sequence[Week]) -> str:
    """See Source.state: the served weeks and the panel; all else follows from params.yaml."""
    served = fingerprint.of_partitions(folder, weeks, REACH)
    if params.world != "panel":
        return served
    return f"{served} {CompleteJourney.installed(params.panel.history_weeks).state(weeks)}"


def _own(rows: pa.Table, week: Week) -> pa.Table:
    """The impressions that were shown in the week, not only known in it."""
    times = rows[c.EVENT_TIME].cast(pa.int64())
    return rows.filter(pc.and_(pc.greater_equal(times, week.start), pc.less(times, week.end)))


def _write(table: pa.Table, path: Path) -> None:
    with write_file(path) as aside:
        pq.write_table(table, aside, compression="zstd", use_dictionary=False)


def _read(path: Path) -> pa.Table:
    try:
        # Without partitioning pyarrow would add a column out of the folder's name.
        return pq.read_table(path, partitioning=None)
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{path}: {error}") from None
