"""The served-event log: what was shown with which probability, and what came of it.

An append-only folder of segments of JSON lines. A segment is `<name>.jsonl.open` while it grows
and `<name>.jsonl` once it is complete and on disk. Lines leave the buffer whole, in one write. A
killed process therefore loses at most what it had not flushed, and a reader that stops at the last
line end never sees half a record.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import json as arrow_json

from roiflow import columns as c
from roiflow.data import schemas
from roiflow.errors import ContractError, ServiceError

OPEN, SEALED = ".jsonl.open", ".jsonl"


class Opened(msgspec.Struct, tag="opened", tag_field="kind"):
    """First line of a segment: who serves."""

    policy_version: str
    impression_share: float
    click_share: float
    conversion_share: float


class Shown(msgspec.Struct):
    """One ad of a slate; its place in the list is its position."""

    ad_id: str
    bid_micros: int
    propensity: float
    p_click: float
    expected_value_micros: float


class Slate(msgspec.Struct, tag="slate", tag_field="kind"):
    """A served slate. Times are microseconds since the epoch, UTC."""

    request_id: str
    user_id: str
    event_time: int
    known_time: int
    placement: str
    device: str
    arm: str
    degraded: bool
    ads: list[Shown]


class Feedback(msgspec.Struct, tag="feedback", tag_field="kind"):
    """A click or conversion that was reported for an impression."""

    impression_id: str
    event: Literal["click", "conversion"]
    event_time: int
    known_time: int
    revenue_micros: int = 0


Record = Opened | Slate | Feedback


def impression_id(request: str, position: int) -> str:
    """Id of the ad at a 1-based position of a slate."""
    return f"{request}:{position}"


class EventLog:
    """Appends records to the folder's current segment. One process, one thread."""

    def __init__(
        self,
        folder: Path,
        opened: Opened,
        *,
        buffer_bytes: int = 1 << 16,
        segment_bytes: int = 1 << 26,
        flush_seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises ServiceError where the folder cannot be written."""
        self._folder, self._opened, self._clock = folder, opened, clock
        self._buffer_bytes, self._segment_bytes = buffer_bytes, segment_bytes
        self._flush_seconds = flush_seconds
        self._encoder = msgspec.json.Encoder()
        self._sequence = 0
        self._prefix = f"{time.time_ns():020d}-{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise ServiceError(f"{folder}: {error.strerror}; no event log, no serving") from None

    def _open(self) -> None:
        self._path = self._folder / f"{self._prefix}-{self._sequence:06d}{OPEN}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(self._path, flags, 0o644)
        self._size, self._flushed = 0, self._clock()
        self._buffer = bytearray(self._encoder.encode(self._opened) + b"\n")
        self.flush()

    def append(self, record: Record) -> None:
        """Buffer a record; flush where the buffer is full or old.

        Raises ServiceError where the log cannot be written; the record is not taken then.
        """
        line = self._encoder.encode(record) + b"\n"
        self._buffer += line
        full = len(self._buffer) >= self._buffer_bytes
        if full or self._clock() - self._flushed >= self._flush_seconds:
            try:
                self.flush()
            except ServiceError:
                if len(self._buffer) >= len(line):
                    del self._buffer[-len(line) :]
                raise

    def flush(self) -> None:
        """Hand the buffer to the system: it survives the end of this process."""
        try:
            while self._buffer:
                written = os.write(self._file, self._buffer)
                self._size += written
                del self._buffer[:written]
            self._flushed = self._clock()
            if self._size >= self._segment_bytes:
                self._seal()
                self._sequence += 1
                self._open()
        except OSError as error:
            raise ServiceError(f"{self._path}: cannot be written: {error.strerror}") from None

    def _seal(self) -> None:
        os.fsync(self._file)
        os.close(self._file)
        self._path.rename(self._path.with_name(self._path.name.removesuffix(".open")))

    def close(self) -> None:
        """Flush and seal the segment."""
        self.flush()
        self._seal()


_JSON = pa.schema(
    [
        ("kind", pa.string()),
        ("policy_version", pa.string()),
        ("impression_share", pa.float64()),
        ("click_share", pa.float64()),
        ("conversion_share", pa.float64()),
        (c.REQUEST, pa.string()),
        (c.USER, pa.string()),
        (c.EVENT_TIME, pa.int64()),
        (c.KNOWN_TIME, pa.int64()),
        (c.PLACEMENT, pa.string()),
        (c.DEVICE, pa.string()),
        (c.ARM, pa.string()),
        ("degraded", pa.bool_()),
        (
            "ads",
            pa.list_(
                pa.struct(
                    [
                        (c.AD, pa.string()),
                        (c.BID, pa.int64()),
                        (c.PROPENSITY, pa.float64()),
                        ("p_click", pa.float64()),
                        ("expected_value_micros", pa.float64()),
                    ]
                )
            ),
        ),
        (c.IMPRESSION, pa.string()),
        ("event", pa.string()),
        (c.REVENUE, pa.int64()),
    ]
)


def segments(folder: Path) -> list[Path]:
    """Every segment, oldest first; those still open are read up to their last whole line."""
    return sorted([*folder.rglob(f"*{SEALED}"), *folder.rglob(f"*{OPEN}")], key=lambda p: p.name)


def _content(path: Path) -> bytes:
    with suppress(FileNotFoundError):  # sealed between the listing and here
        return path.read_bytes()
    return path.with_name(path.name.removesuffix(".open")).read_bytes()


def _records(path: Path) -> pa.Table:
    content = _content(path)
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return _JSON.empty_table()
    options = arrow_json.ParseOptions(explicit_schema=_JSON, unexpected_field_behavior="error")
    blocks = arrow_json.ReadOptions(block_size=max(1 << 20, min(len(whole), 1 << 26)))
    try:
        return arrow_json.read_json(pa.BufferReader(whole), blocks, options)
    except pa.ArrowInvalid as error:
        raise ContractError(f"{path}: not a served-event segment: {error}") from None


def _impressions(table: pa.Table) -> pa.Table:
    """The slates of one segment, a row per shown ad, with the segment's version and shares."""
    opened = table.filter(pc.equal(table["kind"], "opened")).slice(0, 1)
    slates = table.filter(pc.equal(table["kind"], "slate")).combine_chunks()
    sizes = pc.list_value_length(slates["ads"])
    parents = pc.list_parent_indices(slates["ads"]).combine_chunks()
    ads = pc.list_flatten(slates["ads"]).combine_chunks()
    first = pc.subtract(pc.cumulative_sum(sizes), sizes).take(parents)
    position = pc.add(pc.subtract(pa.array(range(len(ads)), pa.int64()), first), 1)
    rows = slates.drop_columns(["ads"]).take(parents)
    request = rows[c.REQUEST]
    columns = {
        name: rows[name]
        for name in (c.EVENT_TIME, c.KNOWN_TIME, c.REQUEST, c.USER, c.PLACEMENT, c.DEVICE, c.ARM)
    } | {name: pc.struct_field(ads, name) for name in (c.AD, c.BID, c.PROPENSITY)}
    columns[c.IMPRESSION] = pc.binary_join_element_wise(request, position.cast(pa.string()), ":")
    columns[c.POSITION] = position
    columns[c.SLATE_SIZE] = sizes.take(parents)
    columns["degraded"] = rows["degraded"]
    for name in ("policy_version", "impression_share", "click_share", "conversion_share"):
        columns[name] = pa.repeat(opened[name][0], len(ads))
    return pa.table(columns)


def _each(folder: Path) -> Iterator[pa.Table]:
    for path in segments(folder):
        table = _records(path)
        if len(table):
            yield table


def read(folder: Path, start: int, end: int) -> dict[str, pa.Table]:
    """Impressions and conversions of the contract with start <= known_time < end, microseconds.

    Clicks known before `end` set `clicked`. Cost is what the package's cost shares make of the
    bid and of what came of the impression. Raises ContractError naming the segment that cannot
    be read.
    """
    impressions, feedback = [], []
    for table in _each(folder):
        impressions.append(_impressions(table))
        feedback.append(table.filter(pc.equal(table["kind"], "feedback")))
    if not impressions:
        return {
            "impressions": schemas.IMPRESSIONS.empty_table(),
            "conversions": schemas.CONVERSIONS.empty_table(),
        }
    events = pa.concat_tables(feedback)
    events = events.filter(pc.less(events[c.KNOWN_TIME], end))
    shown = _between(pa.concat_tables(impressions), start, end)
    clicks = events.filter(pc.equal(events["event"], "click"))
    bought = events.filter(pc.equal(events["event"], "conversion"))
    clicked = pc.is_in(shown[c.IMPRESSION], value_set=clicks[c.IMPRESSION])
    converted = pc.is_in(shown[c.IMPRESSION], value_set=bought[c.IMPRESSION])
    rate = pc.add(
        shown["impression_share"],
        pc.add(
            pc.multiply(shown["click_share"], clicked.cast(pa.float64())),
            pc.multiply(shown["conversion_share"], converted.cast(pa.float64())),
        ),
    )
    cost = pc.round(pc.multiply(shown[c.BID].cast(pa.float64()), rate))
    shown = shown.append_column(c.CLICKED, clicked).append_column(c.COST, cost)
    return {
        "impressions": _conform(shown, schemas.IMPRESSIONS),
        "conversions": _conform(_between(bought, start, end), schemas.CONVERSIONS),
    }


def _between(table: pa.Table, start: int, end: int) -> pa.Table:
    known = table[c.KNOWN_TIME]
    return table.filter(pc.and_(pc.greater_equal(known, start), pc.less(known, end)))


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.select(schema.names).cast(schema).sort_by([(schema.names[1], "ascending")])
