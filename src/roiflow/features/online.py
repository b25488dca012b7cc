"""The same features online: user states and hourly item counters in a key-value store.

Everything is kept by three kinds of keys, so that one round trip reads all that a request needs:
`user:<user_id>` (layout.py), `hour:<hours since the epoch>` (what each ad and placement had in
that hour of known_time) and `impression:<impression_id>` (whose a later conversion is). `layout`
says what the values are.

What has been passed to `update` is known: pass events when they become known, before the first
request after that. A store is for one thread.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ContractError, ServiceError
from roiflow.features import kernels, layout
from roiflow.features.engine import Engine
from roiflow.features.history import sort_rows
from roiflow.features.layout import NewRows, UserStates
from roiflow.features.plan import Plan, frozen
from roiflow.features.spec import ATTRIBUTION_DAYS
from roiflow.features.table import Features, Ints, Longs, Singles
from roiflow.features.vocabulary import Vocabulary

STORED_HISTORIES = 4
"""A store keeps this many history lengths of behaviours: enough for encoders of 4 layers."""

LAYOUT_KEY, AS_OF_KEY = "layout", "as_of"

_DAY_SECONDS = 86_400
_CHUNK = 10_000
_OTHER = "a user's value in the online store has layout {}, this code reads {}"

Value = bytes | None
Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class AdStates:
    """Counters of every item-side entity over the closed hours before `hour`."""

    hour: int  # hours since the epoch
    counts: Ints  # (windows, keys, 3) keys by Plan.item_base, columns impressions, clicks, conv.
    degraded: bool = False


class OnlineStore(Protocol):
    """What serving needs of a store."""

    def read(self, user_ids: Sequence[str], as_of: int) -> UserStates:
        """States of users (B,), in one round trip; defaults for a user that was never seen.

        Where the store cannot be reached every user has the defaults and `degraded` is set.
        `as_of` (microseconds, UTC) is the time of the requests.
        """
        ...

    def ad_states(self, as_of: int) -> AdStates:
        """Item counters of the closed hours before as_of; no round trip right after `read`."""
        ...

    def update(self, tables: Tables) -> None:
        """New rows of impressions, behaviours, conversions and users, in the order known."""
        ...


class Values(Protocol):
    """Bytes by key. Both methods raise ServiceError where the server cannot be reached."""

    def get(self, keys: Sequence[str]) -> list[Value]:
        """One round trip; None where there is no such key."""
        ...

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        """Keep each for `seconds` (0: for ever)."""
        ...


def dense(
    plan: Plan,
    users: UserStates,
    ads: AdStates,
    *,
    event_time: Longs,
    placement: Ints,
    ad: Ints,
    price: Longs,
    bid: Longs,
) -> Singles:
    """Features of requests (B,) and candidates (B, K) -> (B, K, F), as the offline engine's.

    All requests are in hour `ads.hour`. Where `ad` is -1 the features are 0.
    """
    out = np.zeros((*ad.shape, len(plan.specs)), np.float32)
    time, ad = frozen(event_time), frozen(ad)
    kernels.user_states_pass(
        time, ad, users.bucket_offsets, users.bucket_day, users.bucket_ad, users.bucket_category,
        users.bucket_counts, plan.ad_attributes, plan.days, plan.user_base,
        int(plan.user_base[-1]), plan.user_columns, plan.rates, kernels.LOGS, out,
    )  # fmt: skip
    kernels.item_states_pass(
        ad, frozen(placement), ads.counts, plan.ad_attributes, plan.item_base, plan.item_columns,
        plan.rates, kernels.LOGS, out,
    )  # fmt: skip
    last = np.where(users.history_length > 0, users.history_time[:, -1], -1)
    plan.values(event_time, last, ad=ad, price=price, bid=bid, out=out)
    return out


class FeatureStore:
    """An OnlineStore over any Values. `history` behaviours are read of each user."""

    def __init__(self, plan: Plan, vocabulary: Vocabulary, history: int, values: Values) -> None:
        self.capacity = STORED_HISTORIES * plan.history_length
        if not 1 <= history <= self.capacity:
            raise ContractError(
                f"history of {history} behaviours: a store keeps 1 to {self.capacity}"
            )
        self.plan, self.vocabulary, self.history, self.values = plan, vocabulary, history, values
        self._rows: dict[int, Ints] = {}
        self._missing_key = False
        empty = np.zeros((plan.days.size, int(plan.item_base[-1]), 3), np.int32)
        self._ads = AdStates(-1, empty, degraded=True)

    def read(self, user_ids: Sequence[str], as_of: int) -> UserStates:
        """See OnlineStore. Raises ServiceError where the store holds another layout."""
        hours = self._stale(as_of // MICROS_PER_HOUR)
        keys = [LAYOUT_KEY, *(f"user:{name}" for name in user_ids), *_hour_keys(hours)]
        try:
            found = self.values.get(keys)
        except ServiceError:
            self._ads = AdStates(self._ads.hour, self._ads.counts, degraded=True)
            return layout.unpack(
                [None] * len(user_ids), self.history, len(self.plan.profile_names), degraded=True
            )
        self._check(found[0])
        states = found[1 : 1 + len(user_ids)]
        self._refresh(as_of // MICROS_PER_HOUR, hours, found[1 + len(user_ids) :])
        other = layout.other_layout(states)
        if other is not None:
            raise ServiceError(
                f"a user's value has layout {other}, this code reads {layout.LAYOUT}"
            )
        users = layout.unpack(states, self.history, len(self.plan.profile_names))
        self._forget_newer(users)
        return users

    def _forget_newer(self, users: UserStates) -> None:
        """A store may serve an older model beside a newer one: what is newer than the plan is 0."""
        sizes = self.plan.sizes
        _forget_newer(users.user, sizes["user"])
        for column, name in enumerate(self.plan.profile_names):
            _forget_newer(users.profile[:, column], sizes[f"profile:{name}"])
        for indices in (users.history_ad, users.bucket_ad):
            _forget_newer(indices, sizes["ad"])
        for indices in (users.history_category, users.bucket_category):
            _forget_newer(indices, sizes["category"])
        _forget_newer(users.history_action, sizes["action"])

    def ad_states(self, as_of: int) -> AdStates:
        """See OnlineStore. Where the store cannot be reached: the last counters, degraded."""
        hour = as_of // MICROS_PER_HOUR
        hours = self._stale(hour)
        if hours or self._ads.hour != hour:
            try:
                found = self.values.get([LAYOUT_KEY, *_hour_keys(hours)])
            except ServiceError:
                self._ads = AdStates(self._ads.hour, self._ads.counts, degraded=True)
                return self._ads
            self._check(found[0])
            self._refresh(hour, hours, found[1:])
        return self._ads

    def update(self, tables: Tables) -> None:
        """See OnlineStore. Raises ServiceError where the store cannot be reached."""
        self._check(self.values.get([LAYOUT_KEY])[0])
        batch = _Batch.of(self, tables)
        if not batch.user_ids:
            return
        keys = [f"user:{name}" for name in batch.user_ids]
        hours = sorted(batch.hours)
        found = self.values.get([*keys, *_hour_keys(hours)])
        old = found[: len(keys)]
        other = layout.other_layout(old)
        if other is not None:
            raise ServiceError(
                f"a user's value has layout {other}, this code reads {layout.LAYOUT}"
            )
        profile = layout.unpack(old, 1, len(self.plan.profile_names)).profile
        profile[batch.profiled] = batch.profile
        merged = layout.merge(
            old,
            batch.user,
            profile,
            batch.rows,
            capacity=self.capacity,
            first_day=int(batch.known // MICROS_PER_DAY) - self.plan.max_days,
        )
        self.values.put(dict(zip(keys, merged, strict=True)), self.user_seconds)
        self.values.put(
            {
                f"hour:{hour}": _add_hour(value, batch.hours[hour])
                for hour, value in zip(hours, found[len(keys) :], strict=True)
            },
            self.hour_seconds,
        )
        self.values.put({LAYOUT_KEY: self.layout, AS_OF_KEY: str(batch.known).encode()}, seconds=0)

    def load(self, pairs: Iterator[tuple[Mapping[str, bytes], int]]) -> None:
        """Put chunks of pairs with the seconds to keep them; what was there before stays."""
        self._check(self.values.get([LAYOUT_KEY])[0])
        for chunk, seconds in pairs:
            self.values.put(chunk, seconds)
        self.values.put({LAYOUT_KEY: self.layout}, seconds=0)
        self._rows.clear()
        self._ads = AdStates(-1, self._ads.counts, degraded=True)

    @property
    def layout(self) -> bytes:
        """Version of the values, behaviours kept, days kept, profile attributes."""
        plan = self.plan
        return json.dumps(
            {
                "layout": layout.LAYOUT,
                "history": self.capacity,
                "days": plan.max_days,
                "profile": list(plan.profile_names),
            }
        ).encode()

    @property
    def user_seconds(self) -> int:
        """A user without an event for so long is forgotten."""
        return 4 * (self.plan.max_days + 1) * _DAY_SECONDS

    @property
    def hour_seconds(self) -> int:
        """An hour is kept while the longest window may need it."""
        return (self.plan.max_days + 2) * _DAY_SECONDS

    @property
    def impression_seconds(self) -> int:
        """An impression waits so long for its conversion."""
        return (ATTRIBUTION_DAYS + 1) * _DAY_SECONDS

    def _check(self, found: Value) -> None:
        if found is not None and found != self.layout:
            raise ServiceError(
                f"the online store has layout {found.decode(errors='replace')}, "
                f"this model reads {self.layout.decode()}: load its snapshot into an empty store"
            )

    def _stale(self, hour: int) -> list[int]:
        """Closed hours that must be fetched before counters of `hour` can be told."""
        if self._ads.hour == hour and not self._ads.degraded:
            return []
        first = hour - 24 * self.plan.max_days
        return [
            past
            for past in range(first, hour)
            if past not in self._rows or past >= self._ads.hour - 1
        ]

    def _refresh(self, hour: int, hours: list[int], values: list[Value]) -> None:
        if self._ads.hour == hour and not self._ads.degraded:
            return
        first = hour - 24 * self.plan.max_days
        self._rows = {past: rows for past, rows in self._rows.items() if past >= first} | {
            past: _hour_rows(value) for past, value in zip(hours, values, strict=True)
        }
        counts = np.zeros_like(self._ads.counts)
        for window, days in enumerate(self.plan.windows_days):
            recent = [
                rows
                for past, rows in self._rows.items()
                if hour - 24 * days <= past < hour and rows.size
            ]
            if recent:
                rows = np.concatenate(recent)
                for column, kind in enumerate(("ad", "placement")):
                    _forget_newer(rows[:, column], self.plan.sizes[kind])
                kernels.item_counts(
                    counts, window, rows, self.plan.ad_attributes, self.plan.item_base
                )
        self._ads = AdStates(hour, counts)


def _forget_newer(indices: Ints, size: int) -> None:
    """In place: indices that a vocabulary of `size` rows does not have become 0."""
    indices[indices >= size] = 0


def _hour_keys(hours: Sequence[int]) -> list[str]:
    return [f"hour:{hour}" for hour in hours]


def _hour_rows(value: Value) -> Ints:
    """(m, 5): ad, placement, impressions, clicks, conversions."""
    return np.frombuffer(value or b"", "<i4").reshape(-1, 5)


def _sum_rows(rows: Ints) -> Ints:
    """Rows (m, 5) with equal ad and placement as one."""
    code = (rows[:, 0].astype(np.int64) << 32) | rows[:, 1]
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    summed = rows[first].copy()
    summed[:, 2:] = 0
    np.add.at(summed[:, 2:], place, rows[:, 2:])
    return summed


def _add_hour(value: Value, rows: Ints) -> bytes:
    return _sum_rows(np.concatenate([_hour_rows(value), rows])).astype("<i4").tobytes()


def _hourly(hour: Longs, ad: Ints, placement: Ints, kind: Any) -> dict[int, Ints]:
    """Counted rows (m,) -> rows (m', 5) of each hour."""
    rows = np.zeros((ad.size, 5), np.int32)
    rows[:, 0], rows[:, 1] = ad, placement
    rows[:, 2] = kind <= kernels.CLICKED_IMPRESSION
    rows[:, 3] = kind == kernels.CLICKED_IMPRESSION
    rows[:, 4] = kind == kernels.CONVERSION
    order = np.argsort(hour, kind="stable")
    names, starts = np.unique(hour[order], return_index=True)
    parts = np.split(rows[order], starts[1:])
    return {int(name): _sum_rows(part) for name, part in zip(names, parts, strict=bool(names.size))}


_IMPRESSION = np.dtype([("known_time", "<i8"), ("ad", "<i4"), ("placement", "<i4")])


def _impression_values(
    user_ids: Sequence[str], known_time: Longs, ad: Ints, placement: Ints
) -> list[bytes]:
    heads = np.zeros(len(user_ids), _IMPRESSION)
    heads["known_time"], heads["ad"], heads["placement"] = known_time, ad, placement
    packed, width = heads.tobytes(), _IMPRESSION.itemsize
    return [packed[width * i : width * (i + 1)] + name.encode() for i, name in enumerate(user_ids)]


@dataclass(frozen=True)
class _Batch:
    """New rows by user and by hour."""

    user_ids: list[str]
    user: Ints  # (B,)
    profiled: Longs  # rows of users with a new profile
    profile: Ints  # (len(profiled), P)
    rows: NewRows
    hours: dict[int, Ints]
    known: int  # the newest known_time

    @classmethod
    def of(cls, store: FeatureStore, tables: Tables) -> "_Batch":
        plan, vocabulary = store.plan, store.vocabulary
        shown, behaved, users = (
            _Table(tables.get(name)) for name in ("impressions", "behaviours", "users")
        )
        shown_ad = shown.index(vocabulary, "ad", c.AD)
        placement = shown.index(vocabulary, "placement", c.PLACEMENT)
        shown_known, shown_ids = shown.time(c.KNOWN_TIME), shown.strings(c.USER)
        store.values.put(
            {
                f"impression:{name}": value
                for name, value in zip(
                    shown.strings(c.IMPRESSION),
                    _impression_values(shown_ids, shown_known, shown_ad, placement),
                    strict=True,
                )
            },
            store.impression_seconds,
        )
        converted = _Converted.of(store.values, _Table(tables.get("conversions")))
        behaved_known = behaved.time(c.KNOWN_TIME)
        behaved_ids, user_ids = behaved.strings(c.USER), users.strings(c.USER)
        code_of: dict[str, int] = {}
        codes = [
            np.fromiter((code_of.setdefault(name, len(code_of)) for name in names), np.int32)
            for names in (shown_ids, converted.user_ids, behaved_ids, user_ids)
        ]
        lookup = vocabulary.lookup("user")
        behaved_ad = behaved.index(vocabulary, "ad", c.AD)
        behaved_category = behaved.index(vocabulary, "category", c.CATEGORY)
        ad = np.concatenate([shown_ad, converted.ad, behaved_ad])
        items = shown_ad.size + converted.ad.size
        kind = np.concatenate(
            [
                shown.flags(c.CLICKED),
                np.full(converted.ad.size, kernels.CONVERSION, np.uint8),
                np.full(behaved_ad.size, kernels.BEHAVIOUR, np.uint8),
            ]
        )
        known = np.concatenate([shown_known, converted.known_time, behaved_known])
        category = np.concatenate([plan.attributes[ad[:items], kernels.CATEGORY], behaved_category])
        return cls(
            user_ids=list(code_of),
            user=np.fromiter((lookup.get(name, 0) for name in code_of), np.int32, len(code_of)),
            profiled=codes[3].astype(np.int64),
            profile=np.column_stack(
                [
                    np.empty((len(user_ids), 0), np.int32),
                    *(users.index(vocabulary, f"profile:{n}", n) for n in plan.profile_names),
                ]
            ).astype(np.int32),
            rows=_new_rows(
                len(code_of),
                (
                    codes[2],
                    behaved_known,
                    behaved.time(c.EVENT_TIME),
                    behaved_ad,
                    behaved_category,
                    behaved.index(vocabulary, "action", c.ACTION),
                ),
                (np.concatenate(codes[:3]), known, ad, category, kind),
            ),
            hours=_hourly(
                known[:items] // MICROS_PER_HOUR,
                ad[:items],
                np.concatenate([placement, converted.placement]),
                kind[:items],
            ),
            known=int(known.max()) if known.size else 0,
        )


def _new_rows(users: int, behaved: tuple[Any, ...], counted: tuple[Any, ...]) -> NewRows:
    code, known, event_time, ad, category, action = behaved
    order, offsets = sort_rows(code, users, known, event_time, ad, action)
    by_user, counted_offsets = sort_rows(counted[0], users, counted[1])
    day = (counted[1] // MICROS_PER_DAY).astype(np.int32)
    return NewRows(
        offsets,
        ad[order],
        category[order],
        action[order],
        event_time[order],
        counted_offsets,
        day[by_user],
        *(values[by_user] for values in counted[2:]),
    )


@dataclass(frozen=True)
class _Table:
    """A table of new rows, or none."""

    table: pa.Table | None

    def _column(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array([], pa.string()) if self.table is None else self.table[name]

    def strings(self, name: str) -> list[str]:
        return self._column(name).to_pylist()

    def index(self, vocabulary: Vocabulary, kind: str, name: str) -> Ints:
        return vocabulary.index(kind, self._column(name))

    def time(self, name: str) -> Longs:
        if self.table is None:
            return np.empty(0, np.int64)
        return np.asarray(self.table[name].cast(pa.int64()))

    def flags(self, name: str) -> Any:
        if self.table is None:
            return np.empty(0, np.uint8)
        return np.asarray(self.table[name].cast(pa.uint8()))


@dataclass(frozen=True)
class _Converted:
    """Conversions of impressions that still waited for one."""

    user_ids: list[str]
    known_time: Longs
    ad: Ints
    placement: Ints

    @classmethod
    def of(cls, values: Values, conversions: _Table) -> "_Converted":
        names = conversions.strings(c.IMPRESSION)
        found = values.get([f"impression:{name}" for name in names]) if names else []
        width = _IMPRESSION.itemsize
        there = [i for i, value in enumerate(found) if value is not None]
        whole = [found[i] or b"" for i in there]
        heads = np.frombuffer(b"".join(value[:width] for value in whole), _IMPRESSION)
        known = conversions.time(c.KNOWN_TIME)[there]
        kept = np.flatnonzero(known - heads["known_time"] <= ATTRIBUTION_DAYS * MICROS_PER_DAY)
        return cls(
            [whole[i][width:].decode() for i in kept],
            known[kept],
            heads["ad"][kept].astype(np.int32),
            heads["placement"][kept].astype(np.int32),
        )


@dataclass
class MemoryValues:
    """Values in this process. They are not forgotten."""

    content: dict[str, bytes] = field(default_factory=dict)

    def get(self, keys: Sequence[str]) -> list[Value]:
        """See Values."""
        return [self.content.get(key) for key in keys]

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:  # noqa: ARG002
        """See Values; `seconds` is not used."""
        self.content.update(pairs)


class MemoryStore(FeatureStore):
    """A store in this process: for offline replay and the simulated weeks."""

    def __init__(self, plan: Plan, vocabulary: Vocabulary, history: int) -> None:
        super().__init__(plan, vocabulary, history, MemoryValues())


def write_snapshot(
    folder: Path,
    *,
    features: Features,
    engine: Engine,
    vocabulary: Vocabulary,
    recent: pa.Table,
    as_of: int,
) -> None:
    """The store's content at `as_of`: users.parquet, hours.parquet, impressions.parquet.

    `recent` has the columns impression_id, user_id, known_time (int64), ad and placement.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plan, log, events = engine.plan, engine.user_log, features.events
    capacity = STORED_HISTORIES * plan.history_length
    first_day = as_of // MICROS_PER_DAY - plan.max_days
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
            (log.known_time[counted] // MICROS_PER_DAY).astype(np.int32),
            log.ad[counted],
            log.category[counted],
            log.kind[counted],
        )
        keys += ids[start - 1 : end - 1]
        values += layout.merge(
            [None] * (end - start),
            np.arange(start, end, dtype=np.int32),
            np.ascontiguousarray(features.profile[start:end]),
            new,
            capacity=capacity,
            first_day=first_day,
        )
    _write_pairs(folder / "users.parquet", [f"user:{name}" for name in keys], values)
    items = engine.item_log
    open_rows = slice(
        np.searchsorted(items.hour, as_of // MICROS_PER_HOUR - 24 * plan.max_days), None
    )
    hours = _hourly(
        items.hour[open_rows].astype(np.int64),
        items.ad[open_rows],
        items.placement[open_rows],
        items.kind[open_rows],
    )
    _write_pairs(
        folder / "hours.parquet",
        _hour_keys(list(hours)),
        [rows.astype("<i4").tobytes() for rows in hours.values()],
    )
    _write_pairs(
        folder / "impressions.parquet",
        [f"impression:{name}" for name in recent[c.IMPRESSION].to_pylist()],
        _impression_values(
            recent[c.USER].to_pylist(),
            np.asarray(recent["known_time"]),
            np.asarray(recent["ad"]),
            np.asarray(recent["placement"]),
        ),
    )
    (folder / "snapshot.json").write_text(
        json.dumps({"layout": layout.LAYOUT, "as_of": as_of}) + "\n"
    )


def _write_pairs(path: Path, keys: list[str], values: list[bytes]) -> None:
    table = pa.table({"key": pa.array(keys, pa.string()), "value": pa.array(values, pa.binary())})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def load_snapshot(store: FeatureStore, folder: Path) -> bool:
    """Load what `write_snapshot` wrote, unless the store is as new already; True if it loaded.

    Raises ContractError, naming the file, where the snapshot cannot be read, and ServiceError
    where the store holds another layout or cannot be reached.
    """
    path = folder / "snapshot.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None
    if content["layout"] != layout.LAYOUT:
        raise ContractError(f"{path}: layout {content['layout']}, this code reads {layout.LAYOUT}")
    as_of: Value = store.values.get([AS_OF_KEY])[0]
    if as_of is not None and int(as_of) >= content["as_of"]:
        return False

    def chunks() -> Iterator[tuple[dict[str, bytes], int]]:
        for name, seconds in (
            ("impressions", store.impression_seconds),
            ("hours", store.hour_seconds),
            ("users", store.user_seconds),
        ):
            for batch in _read_pairs(folder / f"{name}.parquet"):
                yield (
                    dict(zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)),
                    seconds,
                )
        yield {AS_OF_KEY: str(content["as_of"]).encode()}, 0

    store.load(chunks())
    return True


def _read_pairs(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_CHUNK)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: cannot read the online snapshot: {error}") from None
