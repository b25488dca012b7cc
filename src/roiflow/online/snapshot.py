"""The online store's content at one moment, in files: written with the features, loaded in bulk."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.catalogue.catalogue import Catalogue, upserts
from roiflow.catalogue.eligibility import Pacing
from roiflow.data.schemas import ADS
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features.engine import ItemLog, UserLog
from roiflow.features.plan import Plan
from roiflow.features.rows import Rows, Window
from roiflow.features.table import Events, Ints
from roiflow.features.vocabulary import Vocabulary
from roiflow.online import item_rows, layout
from roiflow.online.layout import NewRows
from roiflow.online.shelf import Shelf
from roiflow.online.store import (
    AS_OF_KEY,
    STORED_HISTORIES,
    FeatureStore,
    as_kept,
)
from roiflow.online.updates import impression_heads

SNAPSHOT, CATALOGUE, ADS_KNOWN = "snapshot.json", "catalogue.parquet", "ads.parquet"

_CHUNK = 10_000


_PAIRS = pa.schema([pa.field("key", pa.string(), False), pa.field("value", pa.binary(), False)])
_ZSTD: dict[str, str | bool] = {"compression": "zstd", "use_dictionary": False}


class OpenImpressions:
    """impressions.parquet: those to which a conversion may still come, written as they are read."""

    def __init__(self, folder: Path, since: int) -> None:
        """Impressions known at or after `since` (microseconds) are kept."""
        self._folder, self._since = folder, since

    def __enter__(self) -> "OpenImpressions":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._folder / "impressions.parquet", _PAIRS, **_ZSTD)
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def put(self, rows: Rows, ids: pa.Table) -> None:
        """Impressions (n,) with their `impression_id` and `user_id`."""
        late = np.flatnonzero(rows.known_time >= self._since)
        if late.size:
            heads = impression_heads(rows.known_time[late], rows.ad[late], rows.placement[late])
            named = ids.take(late)
            keys = pc.binary_join_element_wise("impression:", named[c.IMPRESSION], "")
            values = pc.binary_join_element_wise(heads, named[c.USER].cast(pa.binary()), b"")
            self._writer.write_table(pa.table([keys, values], schema=_PAIRS))


class UserValues:
    """users.parquet, written range by range."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> "UserValues":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._folder / "users.parquet", _PAIRS, **_ZSTD)
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def put(self, pairs: pa.Table) -> None:
        """What `user_values` gave."""
        self._writer.write_table(pairs)


def user_values(
    plan: Plan,
    first: int,
    profile: Ints,
    ids: pa.StringArray,
    events: Events,
    log: UserLog,
    as_of: int,
) -> pa.Table:
    """Keys and values of users `first` and on, of whom events and log are the rows.

    `profile` (users, attributes) is theirs; `ids` leaves out user 0, who has no name.
    """
    users = profile.shape[0]
    new = NewRows(
        events.offsets,
        events.ad,
        events.category,
        events.action,
        events.event_time,
        log.offsets,
        (log.known_time // MICROS_PER_DAY).astype(np.int32),
        log.ad,
        log.category,
        log.kind,
    )
    values = layout.merge(
        [None] * users,
        np.arange(first, first + users, dtype=np.int32),
        np.ascontiguousarray(profile),
        new,
        capacity=STORED_HISTORIES * plan.history_length,
        today=as_of // MICROS_PER_DAY,
        max_days=plan.max_days,
    )
    keys = pc.binary_join_element_wise("user:", ids, "")
    return _pairs(keys, values[users - len(ids) :])


def write_catalogue(
    folder: Path, window: Window, vocabulary: Vocabulary, traffic: Sequence[float]
) -> None:
    """The window's newest `ads`, and the traffic (24,) by which budgets are paced; none: not.

    And the vocabulary's ads, in whose indices the counters are: a package may be older.
    """
    snapshots = (window.read("ads", week) for week in reversed(window.weeks))
    ads = next((table for table in snapshots if table.num_rows), ADS.empty_table())
    about = {"traffic": json.dumps(list(traffic))}
    pq.write_table(upserts(ads).replace_schema_metadata(about), folder / CATALOGUE, **_ZSTD)
    pq.write_table(pa.table({c.AD: vocabulary.ids("ad")}), folder / ADS_KNOWN, **_ZSTD)


def first_shelf(folder: Path, plan: Plan, vocabulary: Vocabulary) -> Shelf:
    """A snapshot's catalogue for a package. Raises ContractError, naming the file."""
    changes, ads = _read_table(folder / CATALOGUE), _read_table(folder / ADS_KNOWN)
    traffic = json.loads((changes.schema.metadata or {}).get(b"traffic", b"[]"))
    catalogue = Catalogue.of_sound(changes.replace_schema_metadata())
    # Vocabularies only grow: what a newer one has beyond the package's are rows of the counters.
    newer = ads[c.AD].to_pylist()[vocabulary.size("ad") - 1 :]
    bare = Shelf.bare(plan, vocabulary)
    return bare.of(catalogue, Pacing.of(np.array(traffic, np.float64)), newer)


def _read_table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None


def write_item_values(folder: Path, plan: Plan, log: ItemLog, as_of: int) -> None:
    """Hours and days; and last, what makes the folder a snapshot."""
    for name, values in zip(("hours", "days"), _item_values(plan, log, as_of), strict=True):
        pairs = _pairs(list(values), list(values.values()))
        pq.write_table(pairs, folder / f"{name}.parquet", **_ZSTD)
    (folder / SNAPSHOT).write_text(json.dumps({"layout": layout.LAYOUT, "as_of": as_of}) + "\n")


def _item_values(
    plan: Plan, items: ItemLog, as_of: int
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Values by hour and by day; hours of the day that is not over only."""
    now = as_of // MICROS_PER_HOUR
    first = np.searchsorted(items.hour, 24 * (now // 24 - plan.max_days))
    hours, days = item_rows.by_hour_and_day(items.hour[first:], items.rows[first:])
    recent = {key for key, _, _ in item_rows.periods(now, 0)} | {f"hour:{now}"}
    return (
        {key: item_rows.write(rows) for key, rows in hours.items() if key in recent},
        {key: item_rows.write(rows) for key, rows in days.items()},
    )


def _pairs(keys: Any, values: list[bytes]) -> pa.Table:
    return pa.table([pa.array(keys, pa.string()), pa.array(values, pa.binary())], schema=_PAIRS)


def load_snapshot(store: FeatureStore, folder: Path) -> bool:
    """Load what a build wrote, unless the store is as new already; True if it loaded.

    Raises ContractError, naming the file, where the snapshot cannot be read, and ServiceError
    where the store holds another layout or cannot be reached.
    """
    path = folder / SNAPSHOT
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None
    if content["layout"] != layout.LAYOUT:
        raise ContractError(f"{path}: layout {content['layout']}, this code reads {layout.LAYOUT}")
    # A store that serves is as new by the stream, or newer: to load the snapshot over it would take
    # events back, until the consumer had given them again.
    as_of = store.values.get([AS_OF_KEY])[0]
    if as_of is not None and int(as_of) >= content["as_of"]:
        return False

    def chunks() -> Iterator[tuple[Mapping[str, bytes], int]]:
        for name, seconds in (
            ("impressions", store.impression_seconds),
            ("hours", store.hour_seconds),
            ("days", store.day_seconds),
            ("users", store.user_seconds),
        ):
            for batch in _read_pairs(folder / f"{name}.parquet"):
                yield (
                    dict(zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)),
                    seconds,
                )
        yield as_kept(first_shelf(folder, *store.shelf.package)), 0

    store.load(chunks(), int(content["as_of"]))
    return True


def _read_pairs(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_CHUNK)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None
