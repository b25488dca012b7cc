"""The online store's content at one moment, in files: written with the features, loaded in bulk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features import item_rows, layout
from roiflow.features.engine import Engine
from roiflow.features.layout import NewRows
from roiflow.features.online import AS_OF_KEY, LAYOUT_KEY, STORED_HISTORIES, FeatureStore
from roiflow.features.rows import Rows
from roiflow.features.table import Features
from roiflow.features.updates import impression_heads
from roiflow.features.vocabulary import Vocabulary

SNAPSHOT = "snapshot.json"

_CHUNK = 10_000


_PAIRS = pa.schema([pa.field("key", pa.string(), False), pa.field("value", pa.binary(), False)])
_ZSTD: dict[str, Any] = {"compression": "zstd", "use_dictionary": False}


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


def write_snapshot(
    folder: Path,
    *,
    features: Features,
    engine: Engine,
    vocabulary: Vocabulary,
    as_of: int,
) -> None:
    """The store's content at `as_of`, beside its impressions: users, hours and days."""
    with pq.ParquetWriter(folder / "users.parquet", _PAIRS, **_ZSTD) as writer:
        for pairs in _users(features, engine, vocabulary, as_of):
            writer.write_table(pairs)
    for name, values in zip(("hours", "days"), _item_values(engine, as_of), strict=True):
        pq.write_table(_pairs(list(values), list(values.values())), folder / f"{name}.parquet")
    (folder / SNAPSHOT).write_text(json.dumps({"layout": layout.LAYOUT, "as_of": as_of}) + "\n")


def _users(
    features: Features, engine: Engine, vocabulary: Vocabulary, as_of: int
) -> Iterator[pa.Table]:
    plan, log, events, ids = engine.plan, engine.user_log, features.events, vocabulary.ids("user")
    for start in range(1, len(ids) + 1, _CHUNK):
        end = min(start + _CHUNK, len(ids) + 1)
        behaved = slice(events.offsets[start], events.offsets[end])
        counted = slice(log.offsets[start], log.offsets[end])
        new = NewRows(
            events.offsets[start : end + 1] - events.offsets[start],
            events.ad[behaved],
            events.category[behaved],
            events.action[behaved],
            events.event_time[behaved],
            log.offsets[start : end + 1] - log.offsets[start],
            (log.known_time[counted] // MICROS_PER_HOUR).astype(np.int32),
            log.ad[counted],
            log.category[counted],
            log.kind[counted],
        )
        values = layout.merge(
            [None] * (end - start),
            np.arange(start, end, dtype=np.int32),
            np.ascontiguousarray(features.profile[start:end]),
            new,
            capacity=STORED_HISTORIES * plan.history_length,
            now=as_of // MICROS_PER_HOUR,
            max_days=plan.max_days,
        )
        names = ids[start - 1 : end - 1]
        yield _pairs(pc.binary_join_element_wise("user:", names, ""), values)


def _item_values(engine: Engine, as_of: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Values by hour and by day; hours only as far back as windows of at most a day reach."""
    items, now = engine.item_log, as_of // MICROS_PER_HOUR
    first = np.searchsorted(items.hour, 24 * (now // 24 - engine.plan.max_days))
    hours, days = item_rows.by_hour_and_day(items.hour[first:], items.rows[first:])
    recent = {key for key, _, _ in item_rows.periods(now, 0)} | {f"hour:{now}"}
    return (
        {key: item_rows.write(rows) for key, rows in hours.items() if key in recent},
        {key: item_rows.write(rows) for key, rows in days.items()},
    )


def _pairs(keys: Any, values: list[bytes]) -> pa.Table:
    return pa.table([pa.array(keys, pa.string()), pa.array(values, pa.binary())], schema=_PAIRS)


def load_snapshot(store: FeatureStore, folder: Path) -> bool:
    """Load what `write_snapshot` wrote, unless the store is as new already; True if it loaded.

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
    as_of = store.values.get([AS_OF_KEY])[0]
    if as_of is not None and int(as_of) >= content["as_of"]:
        return False

    def chunks() -> Iterator[tuple[dict[str, bytes], int]]:
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
        yield {LAYOUT_KEY: store.layout, AS_OF_KEY: str(content["as_of"]).encode()}, 0

    store.load(chunks())
    return True


def _read_pairs(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_CHUNK)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None
