"""Events as rows: what the journal keeps and the lake holds."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.events import ADS, EVENT, EVENTS, KIND, SHOWN
from roiflow.data.schemas import TIME
from roiflow.stream.events import (
    Behaviour,
    Change,
    Click,
    Conversion,
    Event,
    Shown,
    Slate,
    event_id,
)

TYPES: Mapping[str, type[Event]] = {
    "slate": Slate,
    "click": Click,
    "conversion": Conversion,
    "behaviour": Behaviour,
    "catalogue": Change,
}


def table(events: Iterable[Event]) -> pa.Table:
    """Events that all have a `known_time` -> rows of EVENTS, kind after kind."""
    of: dict[type[Event], list[Event]] = {kind: [] for kind in TYPES.values()}
    for event in events:
        of[type(event)].append(event)
    # Column by column and kind by kind: of rows as dictionaries Arrow would look up every key.
    parts = [_rows(name, of[type_]) for name, type_ in TYPES.items() if of[type_]]
    return pa.concat_tables([EVENTS.empty_table(), *parts]).combine_chunks()


def _rows(kind: str, events: Sequence[Event]) -> pa.Table:
    columns = _columns(events) | {EVENT: [event_id(event) for event in events]}
    size = len(events)
    arrays = [
        pa.repeat(kind, size)
        if field.name == KIND
        else _array(field, columns.get(field.name), size)
        for field in EVENTS
    ]
    return pa.Table.from_arrays(arrays, schema=EVENTS)


def _columns(structs: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Structs of one type as a column for each field."""
    names = structs[0].__struct_fields__
    return dict(zip(names, zip(*map(msgspec.structs.astuple, structs), strict=True), strict=True))


def _array(field: pa.Field, values: Sequence[Any] | None, size: int) -> pa.Array:
    if values is None:
        return pa.nulls(size, field.type)
    if field.name == ADS:
        return _ads(values)
    if field.type == TIME:
        return pa.array(values, pa.int64()).cast(TIME)
    return pa.array(values, field.type)


def _ads(slates: Sequence[Sequence[Shown]]) -> pa.Array:
    ads = list(chain.from_iterable(slates))
    columns = _columns(ads) if ads else {field.name: [] for field in SHOWN}
    offsets = np.concatenate([[0], np.cumsum([len(slate) for slate in slates])]).astype(np.int32)
    arrays = [pa.array(columns[field.name], field.type) for field in SHOWN]
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays(arrays, SHOWN.names)
    )


def stamped(rows: pa.Table, stamp: int) -> pa.Table:
    """The rows as known at `stamp`; what would have happened later happened then."""
    size = rows.num_rows
    known = np.full(size, stamp, np.int64)
    event = np.minimum(rows[c.EVENT_TIME].cast(pa.int64()).to_numpy(), stamp)
    for name, values in ((c.EVENT_TIME, event), (c.KNOWN_TIME, known)):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, EVENTS.field(name), pa.array(values).cast(TIME))
    return rows
