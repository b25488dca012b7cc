"""What was served in a week and from which features: the slates that parity is checked on.

The simulator keeps them as <lake>/simulator/served_features/week=YYYY-Www/part-0.parquet; the
stream has them among its events.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.data import event_lake, lake
from roiflow.data.events import (
    ADS,
    AS_OF,
    FEATURES,
    P_CLICK,
    P_CONVERSION,
    RECALIBRATION,
    SHOWN,
    SLATE,
    VECTOR,
    of_kind,
)
from roiflow.data.schemas import TIME
from roiflow.data.weeks import Week

TABLE = "served_features"

SERVED = pa.schema(
    [
        pa.field(c.REQUEST, pa.string(), False),
        pa.field(c.USER, pa.string(), False),
        pa.field(c.EVENT_TIME, TIME, False),
        pa.field(c.PLACEMENT, pa.string(), False),
        pa.field(c.DEVICE, pa.string(), False),
        pa.field(c.POLICY_VERSION, pa.string(), False),
        pa.field(ADS, pa.list_(pa.string()), False),
        (P_CLICK, pa.list_(pa.float64())),
        (P_CONVERSION, pa.list_(pa.float64())),
        (AS_OF, pa.int64()),
        (FEATURES, pa.string()),
        (VECTOR, pa.binary()),
        (RECALIBRATION, pa.string()),
    ]
)
"""One row a slate; features are null where it was made without online features,
`recalibration` where its predictions are the package's own. Lists have a place for every slot."""


def path_of(root: Path, source: str, week: Week) -> Path:
    """The file of one week; `root` is the lake."""
    return lake.partition(root / source, TABLE, week)


def write(root: Path, source: str, week: Week, slates: pa.Table) -> None:
    """Atomically, in the place of what is there."""
    lake.write_parquet(path_of(root, source, week), slates.cast(SERVED))


def read(root: Path, source: str, week: Week) -> pa.Table | None:
    """Slates whose request was in the week, in order of time; None where none was kept.

    Raises SourceError, naming the file, where one is not as it was written.
    """
    if source == event_lake.SOURCE:
        # Parts are by known_time and the question is of event_time: what was asked late in the week
        # may be known in the next.
        parts = [part for part in event_lake.parts(root) if part.week in (week, week.plus(1))]
        slates = pa.concat_tables(
            [SERVED.empty_table(), *(_of_events(part.read()) for part in parts)]
        )
    elif path_of(root, source, week).exists():
        slates = lake.read_parquet(path_of(root, source, week), SERVED.names).cast(SERVED)
    else:
        return None
    time = slates[c.EVENT_TIME].cast(pa.int64())
    inside = pc.and_(pc.greater_equal(time, week.start), pc.less(time, week.end))
    found = slates.filter(inside).sort_by([(c.EVENT_TIME, "ascending"), (c.REQUEST, "ascending")])
    return found.combine_chunks() if found.num_rows else None


def _of_events(events: pa.Table) -> pa.Table:
    slates = of_kind(events, SLATE).combine_chunks()
    shown = pa.concat_arrays(slates[ADS].chunks or [pa.array([], pa.list_(SHOWN))])
    ads = shown.flatten()
    # A field of the ads becomes a list of its own.
    columns = {
        column: pa.ListArray.from_arrays(shown.offsets, ads.field(name))
        for column, name in ((ADS, c.AD), (P_CLICK, P_CLICK), (P_CONVERSION, P_CONVERSION))
    }
    rows = slates.drop_columns([ADS])
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    return rows.select(SERVED.names).cast(SERVED)
