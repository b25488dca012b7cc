"""The online store's content at one moment, in files: written with the features, loaded in bulk."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features import item_rows, layout
from roiflow.features.engine import Engine
from roiflow.features.layout import NewRows
from roiflow.features.online import AS_OF_KEY, LAYOUT_KEY, STORED_HISTORIES, FeatureStore
from roiflow.features.table import Features
from roiflow.features.updates import Shown
from roiflow.features.vocabulary import Vocabulary

SNAPSHOT = "snapshot.json"

_CHUNK = 10_000


def write_snapshot(
    folder: Path,
    *,
    features: Features,
    engine: Engine,
    vocabulary: Vocabulary,
    recent: pa.Table,
    as_of: int,
) -> None:
    """The store's content at `as_of`: users, hours, days and impressions.

    `recent` has the columns impression_id, user_id, known_time (int64), ad and placement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_pairs(folder / "users.parquet", *_users(features, engine, vocabulary, as_of))
    hours, days = _item_values(engine, as_of)
    _write_pairs(folder / "hours.parquet", list(hours), list(hours.values()))
    _write_pairs(folder / "days.parquet", list(days), list(days.values()))
    shown = Shown(
        recent[c.USER].to_pylist(),
        np.asarray(recent["known_time"]),
        np.asarray(recent["ad"]),
        np.asarray(recent["placement"]),
    )
    ids = recent[c.IMPRESSION].to_pylist()
    _write_pairs(
        folder / "impressions.parquet", [f"impression:{name}" for name in ids], shown.values()
    )
    (folder / SNAPSHOT).write_text(json.dumps({"layout": layout.LAYOUT, "as_of": as_of}) + "\n")


def _users(
    features: Features, engine: Engine, vocabulary: Vocabulary, as_of: int
) -> tuple[list[str], list[bytes]]:
    plan, log, events = engine.plan, engine.user_log, features.events
    ids: list[str] = vocabulary.ids("user").to_pylist()
    keys, values = [], []
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
        keys += [f"user:{name}" for name in ids[start - 1 : end - 1]]
        values += layout.merge(
            [None] * (end - start),
            np.arange(start, end, dtype=np.int32),
            np.ascontiguousarray(features.profile[start:end]),
            new,
            capacity=STORED_HISTORIES * plan.history_length,
            now=as_of // MICROS_PER_HOUR,
            max_days=plan.max_days,
        )
    return keys, values


def _item_values(engine: Engine, as_of: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Values by hour and by day; hours only as far back as windows of at most a day reach."""
    items, now = engine.item_log, as_of // MICROS_PER_HOUR
    rows = slice(np.searchsorted(items.hour, 24 * (now // 24 - engine.plan.max_days)), None)
    hours, days = item_rows.by_hour_and_day(
        items.hour[rows].astype(np.int64) * MICROS_PER_HOUR,
        items.ad[rows],
        items.placement[rows],
        items.kind[rows],
        items.revenue[rows],
    )
    recent = {key for key, _, _ in item_rows.periods(now, 0)} | {f"hour:{now}"}
    return (
        {key: item_rows.write(rows) for key, rows in hours.items() if key in recent},
        {key: item_rows.write(rows) for key, rows in days.items()},
    )


def _write_pairs(path: Path, keys: list[str], values: list[bytes]) -> None:
    table = pa.table({"key": pa.array(keys, pa.string()), "value": pa.array(values, pa.binary())})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


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
