"""From validated weeks to features: vocabulary, histories, logs, as-known features, splits."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.split import TRAIN, boundaries, split
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.errors import ContractError, ParamsError
from roiflow.features import kernels
from roiflow.features.engine import Engine, item_log, last_times, user_log, write_engine
from roiflow.features.folder import write
from roiflow.features.history import history_slices, sort_rows
from roiflow.features.plan import Plan, context
from roiflow.features.spec import ATTRIBUTION_DAYS
from roiflow.features.table import (
    AD_ATTRIBUTES,
    Catalogue,
    Events,
    Features,
    Impressions,
    Ints,
    Longs,
    Singles,
    Statistics,
)
from roiflow.features.vocabulary import Vocabulary
from roiflow.params import FeaturesParams

VOCABULARY = "vocabulary.parquet"

Progress = Callable[[float, str], None]

_ATTRIBUTE_COLUMNS = dict(
    zip(AD_ATTRIBUTES, (c.CAMPAIGN, c.ADVERTISER, c.CATEGORY, c.BRAND, c.AD_TYPE), strict=True)
)

_IDS: dict[str, tuple[tuple[str, str], ...]] = {
    "user": (("users", c.USER), ("impressions", c.USER), ("behaviours", c.USER)),
    "ad": (("ads", c.AD), ("impressions", c.AD), ("behaviours", c.AD)),
    "action": (("behaviours", c.ACTION),),
    "placement": (("impressions", c.PLACEMENT),),
    "device": (("impressions", c.DEVICE),),
    "campaign": (("ads", c.CAMPAIGN),),
    "advertiser": (("ads", c.ADVERTISER),),
    "category": (("ads", c.CATEGORY), ("behaviours", c.CATEGORY)),
    "brand": (("ads", c.BRAND),),
    "ad_type": (("ads", c.AD_TYPE),),
}


@dataclass(frozen=True)
class Window:
    """The validated weeks of a folder: <table>/week=YYYY-Www/part-0.parquet."""

    folder: Path

    @cached_property
    def weeks(self) -> list[Week]:
        """The weeks that hold impressions, oldest first; the last one is the test week."""
        folders = sorted((self.folder / "impressions").glob("week=*"))
        if not folders:
            raise ContractError(f"{self.folder / 'impressions'}: no week of impressions")
        return [Week.parse(folder.name.removeprefix("week=")) for folder in folders]

    def read(self, table: str, week: Week, names: list[str] | None = None) -> pa.Table:
        """Columns of one week's rows; no rows where the week has no such file."""
        path = self.folder / table / f"week={week}" / "part-0.parquet"
        if not path.exists():
            return SCHEMAS[table].empty_table().select(names or SCHEMAS[table].names)
        try:
            return pq.read_table(path, columns=names, partitioning=None)
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(f"{path}: cannot read: {error}") from None

    def all(self, table: str) -> pa.Table:
        """Every column of every week; for the small snapshots."""
        return pa.concat_tables(
            [self.read(table, week) for week in self.weeks], promote_options="default"
        )


@dataclass(frozen=True)
class Built:
    """Everything that the stage writes."""

    features: Features
    engine: Engine
    vocabulary: Vocabulary
    recent: pa.Table
    """Impressions to which a conversion may still come: impression_id, user_id, known_time (int64),
    ad and placement (dense indices)."""
    as_of: int


@dataclass(frozen=True)
class _Rows:
    """Impressions in the order of their weeks' files, before sorting."""

    request: Longs  # hash of the request id
    user: Ints
    ad: Ints
    event_time: Longs
    known_time: Longs
    placement: Ints
    device: Ints
    position: Ints
    slate_size: Ints
    bid: Longs
    cost: Longs
    propensity: NDArray[np.float64]
    clicked: NDArray[np.bool_]


@dataclass(frozen=True)
class _Conversions:
    """Conversions whose impression is in the window."""

    row: Longs  # row of the impression in _Rows
    known_time: Longs
    revenue: Longs


def build(
    window: Window,
    published: Vocabulary,
    params: FeaturesParams,
    progress: Progress = lambda _, __: None,
) -> Built:
    """Features of the window's impressions; raises ContractError where there is nothing to learn.

    Raises ParamsError where a window is given twice.

    The last week is the test period (in a window of one week: its last `validation_days`), the
    `validation_days` before it are for validation. Attributes of ads and users are the newest
    known before the test period, or the first known of those that appear in it.
    """
    windows = params.windows_days
    if not windows or len(set(windows)) < len(windows):
        raise ParamsError(f"build_features.windows_days: {windows}: expected days, each once")
    as_of = window.weeks[-1].end
    validation, test = boundaries(window.weeks, params.validation_days)
    progress(0.0, "vocabulary")
    ads, users = window.all("ads"), window.all("users")
    profile_names = tuple(name for name in users.column_names if name not in SCHEMAS["users"].names)
    vocabulary, known = _vocabulary(window, published, profile_names, params.min_count, test)
    sizes = _sizes(vocabulary, profile_names)
    progress(0.15, "impressions")
    rows, conversions, recent = _read_impressions(window, vocabulary, as_of)
    progress(0.35, "histories")
    events = _read_events(window, vocabulary, sizes["user"])
    attributes = _attributes(ads, vocabulary, sizes["ad"], test)
    clicks, seen, converted = _totals(rows, conversions, validation)
    plan = Plan(
        windows_days=tuple(windows),
        prior_strength=params.prior_strength,
        ctr=clicks / seen if seen else 0.0,
        cvr=converted / clicks if clicks else 0.0,
        history_length=params.history_length,
        sizes=sizes,
        profile_names=profile_names,
        known_before_test=known,
        attributes=attributes,
    )
    progress(0.45, "counters")
    engine = _engine(plan, rows, conversions, events)
    catalogues = tuple(_catalogues(window, vocabulary))
    progress(0.55, f"features of {rows.user.size:,} impressions")
    impressions = _impressions(
        rows,
        conversions,
        events,
        engine,
        catalogues=catalogues,
        starts=(validation, test),
    )
    features = Features(
        sizes=sizes,
        dense_names=plan.dense_names,
        profile_names=profile_names,
        history_length=params.history_length,
        events=events,
        impressions=impressions,
        profile=_profile(users, profile_names, vocabulary, sizes["user"], test),
        attributes=attributes,
        catalogues=catalogues,
        statistics=_statistics(impressions),
    )
    return Built(features, engine, vocabulary, recent, as_of)


def write_built(folder: Path, built: Built) -> None:
    """Into a folder that exists: features, engine, vocabulary and the online snapshot."""
    from roiflow.features.online import write_snapshot

    write(folder, built.features)
    write_engine(folder, built.engine)
    built.vocabulary.write(folder / VOCABULARY)
    write_snapshot(
        folder / "online",
        features=built.features,
        engine=built.engine,
        vocabulary=built.vocabulary,
        recent=built.recent,
        as_of=built.as_of,
    )


def _vocabulary(
    window: Window, published: Vocabulary, profile: tuple[str, ...], min_count: int, test: int
) -> tuple[Vocabulary, dict[str, int]]:
    """The vocabulary, and the size of each kind's part that was known before `test`."""
    kinds = dict(_IDS) | {f"profile:{name}": (("users", name),) for name in profile}
    seen: dict[str, list[pa.Table]] = {kind: [] for kind in kinds}
    for table in ("ads", "users", "impressions", "behaviours"):
        of_table = [
            (kind, column)
            for kind, sources in kinds.items()
            for source, column in sources
            if source == table
        ]
        for week in window.weeks:
            rows = window.read(table, week, [c.KNOWN_TIME, *(column for _, column in of_table)])
            for kind, column in of_table:
                counted = rows.group_by(column).aggregate(
                    [(c.KNOWN_TIME, "min"), (c.KNOWN_TIME, "count")]
                )
                seen[kind].append(counted.rename_columns(["id", "known_time", "count"]))
    vocabulary, known = published, {}
    for kind, counts in seen.items():
        new = published.new(kind, counts, min_count)
        vocabulary = vocabulary.appended(kind, new["id"])
        early = int(np.count_nonzero(_time(new["known_time"]) < test))
        known[kind] = published.size(kind) + early
    return vocabulary, known


def _sizes(vocabulary: Vocabulary, profile: tuple[str, ...]) -> dict[str, int]:
    kinds = (*_IDS, *(f"profile:{name}" for name in profile))
    return {kind: vocabulary.size(kind) for kind in kinds} | {"hour": 24, "weekday": 7}


def _time(column: pa.ChunkedArray) -> Longs:
    return _numbers(column.cast(pa.int64()))


def _numbers(column: pa.ChunkedArray) -> Any:
    return column.to_numpy()


@njit(cache=True)
def _fnv1a(offsets: Ints, content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Fowler-Noll-Vo hash, 64 bits, with a final mix."""
    hashes = np.empty(offsets.size - 1, np.uint64)
    for row in range(hashes.size):
        value = np.uint64(14695981039346656037)
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(content[at])) * np.uint64(1099511628211)
        hashes[row] = value ^ (value >> np.uint64(29))
    return hashes


def hash_ids(column: pa.ChunkedArray) -> Longs:
    """Strings (n,) -> 64-bit hashes (n,), the same on every machine."""
    parts = [np.empty(0, np.uint64)]
    for chunk in column.chunks:
        _, positions, content = chunk.buffers()
        offsets = np.frombuffer(positions, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(_fnv1a(offsets, np.frombuffer(content or b"", np.uint8)))
    return np.concatenate(parts).view(np.int64)


def _read_impressions(
    window: Window, vocabulary: Vocabulary, as_of: int
) -> tuple[_Rows, _Conversions, pa.Table]:
    conversions = pa.concat_tables([window.read("conversions", week) for week in window.weeks])
    ids = pc.unique(conversions[c.IMPRESSION])
    row_of = np.full(len(ids), -1, np.int64)
    names = [name for name in SCHEMAS["impressions"].names if name not in (c.POLICY_VERSION, c.ARM)]
    parts: list[dict[str, Any]] = []
    recent, first = [], 0
    for week in window.weeks:
        table = window.read("impressions", week, names)
        code = pc.fill_null(pc.index_in(table[c.IMPRESSION], value_set=ids), -1).to_numpy()
        matched = np.flatnonzero(code >= 0)
        row_of[code[matched]] = first + matched
        first += table.num_rows
        part = {
            "request": hash_ids(table[c.REQUEST]),
            "user": vocabulary.index("user", table[c.USER]),
            "ad": vocabulary.index("ad", table[c.AD]),
            "event_time": _time(table[c.EVENT_TIME]),
            "known_time": _time(table[c.KNOWN_TIME]),
            "placement": vocabulary.index("placement", table[c.PLACEMENT]),
            "device": vocabulary.index("device", table[c.DEVICE]),
            "position": _numbers(table[c.POSITION]),
            "slate_size": _numbers(table[c.SLATE_SIZE]),
            "bid": _numbers(table[c.BID]),
            "cost": _numbers(table[c.COST]),
            "propensity": _numbers(pc.fill_null(table[c.PROPENSITY].cast(pa.float64()), np.nan)),
            "clicked": _numbers(table[c.CLICKED]),
        }
        parts.append(part)
        open_rows = np.flatnonzero(part["known_time"] >= as_of - ATTRIBUTION_DAYS * MICROS_PER_DAY)
        recent.append(
            table.select([c.IMPRESSION, c.USER])
            .take(open_rows)
            .append_column("known_time", pa.array(part["known_time"][open_rows]))
            .append_column("ad", pa.array(part["ad"][open_rows]))
            .append_column("placement", pa.array(part["placement"][open_rows]))
        )
    if first == 0:
        raise ContractError(f"{window.folder / 'impressions'}: no impression in any week")
    rows = _Rows(**{f.name: np.concatenate([p[f.name] for p in parts]) for f in fields(_Rows)})
    row = row_of[pc.index_in(conversions[c.IMPRESSION], value_set=ids).to_numpy()]
    found = np.flatnonzero(row >= 0)
    return (
        rows,
        _Conversions(
            row[found],
            _time(conversions[c.KNOWN_TIME])[found],
            _numbers(conversions[c.REVENUE])[found],
        ),
        pa.concat_tables(recent),
    )


def _read_events(window: Window, vocabulary: Vocabulary, users: int) -> Events:
    names = [c.USER, c.AD, c.CATEGORY, c.ACTION, c.EVENT_TIME, c.KNOWN_TIME]
    parts = []
    for week in window.weeks:
        table = window.read("behaviours", week, names)
        parts.append(
            (
                vocabulary.index("user", table[c.USER]),
                vocabulary.index("ad", table[c.AD]),
                vocabulary.index("category", table[c.CATEGORY]),
                vocabulary.index("action", table[c.ACTION]),
                _time(table[c.EVENT_TIME]),
                _time(table[c.KNOWN_TIME]),
            )
        )
    user, ad, category, action, event_time, known_time = (
        np.concatenate(values) for values in zip(*parts, strict=True)
    )
    order, offsets = sort_rows(user, users, known_time, event_time, ad, action)
    return Events(
        offsets, ad[order], category[order], action[order], event_time[order], known_time[order]
    )


def _settled(table: pa.Table, key: str, test: int) -> pa.Table:
    """One row per id: the newest known before `test`, or else the first known."""
    if not table.num_rows:
        return table
    known = _time(table[c.KNOWN_TIME])
    code = np.asarray(table[key].combine_chunks().dictionary_encode().indices)
    late = known >= test
    rank = np.where(late, known, -known)
    order = np.lexsort((rank, late, code))
    first = np.concatenate([[True], code[order][1:] != code[order][:-1]])
    return table.take(np.sort(order[first]))


def _attributes(ads: pa.Table, vocabulary: Vocabulary, size: int, test: int) -> Ints:
    table = _settled(ads, c.AD, test)
    attributes = np.zeros((size, len(AD_ATTRIBUTES)), np.int32)
    rows = vocabulary.index("ad", table[c.AD])
    for column, (kind, name) in enumerate(_ATTRIBUTE_COLUMNS.items()):
        attributes[rows, column] = vocabulary.index(kind, table[name])
    attributes[0] = 0
    return attributes


def _profile(
    users: pa.Table, names: tuple[str, ...], vocabulary: Vocabulary, size: int, test: int
) -> Ints:
    table = _settled(users, c.USER, test)
    profile = np.zeros((size, len(names)), np.int32)
    rows = vocabulary.index("user", table[c.USER])
    for column, name in enumerate(names):
        profile[rows, column] = vocabulary.index(f"profile:{name}", table[name])
    profile[0] = 0
    return profile


def _catalogues(window: Window, vocabulary: Vocabulary) -> Iterable[Catalogue]:
    """One per week; a week without a snapshot has the one before."""
    latest: dict[str, Any] = {
        "ad": np.empty(0, np.int32),
        "price": np.empty(0, np.int64),
        "bid": np.empty(0, np.int64),
    }
    for week in window.weeks:
        table = window.read("ads", week, [c.AD, c.PRICE, c.BID, c.KNOWN_TIME])
        if table.num_rows:
            table = _settled(table, c.AD, week.end)
            ad = vocabulary.index("ad", table[c.AD])
            order = np.argsort(ad, kind="stable")
            latest = {
                "ad": ad[order],
                "price": _numbers(table[c.PRICE])[order],
                "bid": _numbers(table[c.BID])[order],
            }
        yield Catalogue(str(week), **latest)


def _totals(rows: _Rows, conversions: _Conversions, before: int) -> tuple[int, int, int]:
    """Clicks, impressions and conversions known before a time."""
    known = rows.known_time < before
    return (
        int(np.count_nonzero(rows.clicked & known)),
        int(np.count_nonzero(known)),
        int(np.count_nonzero(conversions.known_time < before)),
    )


def _engine(plan: Plan, rows: _Rows, conversions: _Conversions, events: Events) -> Engine:
    counted = (
        conversions.known_time - rows.known_time[conversions.row]
        <= ATTRIBUTION_DAYS * MICROS_PER_DAY
    )
    of, known = conversions.row[counted], conversions.known_time[counted]
    shown_kind = rows.clicked.astype(np.uint8)
    converted_kind = np.full(of.size, kernels.CONVERSION, np.uint8)
    behaved = events.ad.size
    behaving = np.repeat(np.arange(events.offsets.size - 1), np.diff(events.offsets))
    ad = np.concatenate([rows.ad, rows.ad[of]])
    kind = np.concatenate([shown_kind, converted_kind])
    known_time = np.concatenate([rows.known_time, known])
    return Engine(
        plan,
        user_log(
            plan.sizes["user"],
            user=np.concatenate([rows.user, rows.user[of], behaving.astype(np.int32)]),
            known_time=np.concatenate([known_time, events.known_time]),
            ad=np.concatenate([ad, events.ad]),
            category=np.concatenate([plan.attributes[ad, kernels.CATEGORY], events.category]),
            kind=np.concatenate([kind, np.full(behaved, kernels.BEHAVIOUR, np.uint8)]),
        ),
        item_log(
            (known_time // MICROS_PER_HOUR).astype(np.int32),
            ad,
            np.concatenate([rows.placement, rows.placement[of]]),
            kind,
        ),
    )


def _catalogue_values(
    catalogues: tuple[Catalogue, ...], ads: int, ad: Ints, event_time: Longs
) -> tuple[Longs, Longs]:
    """Price and bid of logged ads (n,) in their week's catalogue, else the one before, or 0."""
    starts = np.array([Week.parse(catalogue.week).start for catalogue in catalogues])
    week = np.maximum(np.searchsorted(starts, event_time, side="right") - 1, 0)
    price, bid = np.zeros((2, len(catalogues), ads), np.int64)
    for number, catalogue in enumerate(catalogues):
        if number:
            price[number], bid[number] = price[number - 1], bid[number - 1]
        price[number, catalogue.ad], bid[number, catalogue.ad] = catalogue.price, catalogue.bid
    return price[week, ad], bid[week, ad]


def _impressions(
    rows: _Rows,
    conversions: _Conversions,
    events: Events,
    engine: Engine,
    *,
    catalogues: tuple[Catalogue, ...],
    starts: tuple[int, int],
) -> Impressions:
    """Sorted by user, event_time, request, position; `starts` are those of validation and test.

    What became known in the test period labels its own rows only: a model tested there could not
    have learned from it.
    """
    validation, test = starts
    users = engine.plan.sizes["user"]
    order, _ = sort_rows(rows.user, users, rows.event_time, rows.request, rows.position)
    usable = (conversions.known_time < test) | (rows.event_time[conversions.row] >= test)
    revenue = np.zeros(rows.user.size, np.int64)
    np.add.at(revenue, conversions.row[usable], conversions.revenue[usable])
    converted = np.zeros(rows.user.size, np.bool_)
    converted[conversions.row[usable]] = True
    user, ad, time = rows.user[order], rows.ad[order], rows.event_time[order]
    request, placement = rows.request[order], rows.placement[order]
    start, end = history_slices(
        user, time, events.offsets, events.known_time, engine.plan.history_length
    )
    new = (request[1:] != request[:-1]) | (user[1:] != user[:-1])
    price, bid = _catalogue_values(catalogues, engine.plan.sizes["ad"], ad, time)
    dense = engine.dense(
        user,
        time,
        placement,
        last_times(events, start, end),
        ad=ad[:, None],
        price=price[:, None],
        bid=bid[:, None],
    )
    return Impressions(
        request=np.concatenate([[0], np.cumsum(new)]).astype(np.int64),
        user=user,
        ad=ad,
        event_time=time,
        history_start=start,
        history_end=end,
        context=context(placement, rows.device[order], time),
        dense=dense[:, 0],
        position=rows.position[order],
        slate_size=rows.slate_size[order],
        bid=rows.bid[order],
        cost=rows.cost[order],
        revenue=revenue[order],
        clicked=rows.clicked[order],
        converted=converted[order],
        propensity=rows.propensity[order],
        split=split(time, validation, test),
    )


def _statistics(impressions: Impressions) -> Statistics:
    """Mean and standard deviation over training rows; a constant feature has deviation 1."""
    rows = np.flatnonzero(impressions.split == TRAIN)
    if not rows.size:
        raise ContractError("no impression before the validation days: the window is too short")
    width = impressions.dense.shape[1]
    total, squares = np.zeros(width), np.zeros(width)
    centre = impressions.dense[rows[0]].astype(np.float64)
    for start in range(0, rows.size, 1 << 16):
        part: Singles = impressions.dense[rows[start : start + (1 << 16)]]
        shifted = part - centre
        total += shifted.sum(axis=0)
        squares += (shifted**2).sum(axis=0)
    mean = total / rows.size
    std = np.sqrt(np.maximum(squares / rows.size - mean**2, 0.0))
    std[std < 1e-6] = 1.0
    return Statistics((centre + mean).astype(np.float32), std.astype(np.float32))
