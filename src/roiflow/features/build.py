"""From validated weeks to features: vocabulary, histories, logs, as-known features, splits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.split import TRAIN, boundaries, split
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import ContractError, ParamsError
from roiflow.features import kernels
from roiflow.features.counted import behaviour_kinds, counts_in_time, outcome_kinds
from roiflow.features.engine import Engine, item_log, last_times, user_log, write_engine
from roiflow.features.folder import write
from roiflow.features.history import history_slices, sort_rows
from roiflow.features.plan import Plan, context
from roiflow.features.rows import Conversions, Rows, Window, micros, read_events, read_impressions
from roiflow.features.settled import attributes_of, catalogues_of, price_and_bid, profile_of
from roiflow.features.spec import WINDOWS
from roiflow.features.table import Catalogue, Events, Features, Impressions, Singles, Statistics
from roiflow.features.vocabulary import Vocabulary
from roiflow.params import FeaturesParams

VOCABULARY = "vocabulary.parquet"

Progress = Callable[[float, str], None]

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
class Built:
    """Everything that the stage writes."""

    features: Features
    engine: Engine
    vocabulary: Vocabulary
    recent: pa.Table
    """Impressions to which a conversion may still come: impression_id, user_id, known_time (int64),
    ad and placement (dense indices)."""
    as_of: int


def build(
    window: Window,
    published: Vocabulary,
    params: FeaturesParams,
    progress: Progress = lambda _, __: None,
) -> Built:
    """Features of the window's impressions; raises ContractError where there is nothing to learn.

    Raises ParamsError where a window is given twice or has no name.

    The last week is the test period (in a window of one week: its last `validation_days`), the
    `validation_days` before it are for validation. Attributes of ads and users are the newest
    known before the test period, or the first known of those that appear in it.
    """
    windows = params.windows_hours
    if not windows or len(set(windows)) < len(windows) or not set(windows) <= set(WINDOWS):
        raise ParamsError(
            f"build_features.windows_hours: {windows}: expected some of {list(WINDOWS)}, each once"
        )
    as_of = window.weeks[-1].end
    validation, test = boundaries(window.weeks, params.validation_days)
    progress(0.0, "vocabulary")
    ads, users = window.all("ads"), window.all("users")
    profile_names = tuple(name for name in users.column_names if name not in SCHEMAS["users"].names)
    vocabulary, known = _vocabulary(window, published, profile_names, params.min_count, test)
    sizes = _sizes(vocabulary, profile_names)
    progress(0.15, "impressions")
    rows, conversions, recent = read_impressions(window, vocabulary, as_of)
    progress(0.35, "histories")
    events = read_events(window, vocabulary, sizes["user"])
    attributes = attributes_of(ads, vocabulary, sizes["ad"], test)
    ctr, cvr, value = _priors(rows, conversions, validation)
    plan = Plan(
        windows_hours=tuple(sorted(windows)),
        prior_strength=params.prior_strength,
        ctr=ctr,
        cvr=cvr,
        value=value,
        history_length=params.history_length,
        sizes=sizes,
        profile_names=profile_names,
        known_before_test=known,
        attributes=attributes,
    )
    progress(0.45, "counters")
    engine = engine_of(plan, vocabulary, rows, conversions, events)
    catalogues = tuple(catalogues_of(window, vocabulary))
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
        profile=profile_of(users, profile_names, vocabulary, sizes["user"], test),
        attributes=attributes,
        catalogues=catalogues,
        statistics=_statistics(impressions),
    )
    return Built(features, engine, vocabulary, recent, as_of)


def write_built(folder: Path, built: Built) -> None:
    """Into a folder that exists: features, engine, vocabulary and the online snapshot."""
    from roiflow.features.snapshot import write_snapshot

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
        early = int(np.count_nonzero(micros(new["known_time"]) < test))
        known[kind] = published.size(kind) + early
    return vocabulary, known


def _sizes(vocabulary: Vocabulary, profile: tuple[str, ...]) -> dict[str, int]:
    kinds = (*_IDS, *(f"profile:{name}" for name in profile))
    return {kind: vocabulary.size(kind) for kind in kinds} | {"hour": 24, "weekday": 7}


def _priors(rows: Rows, conversions: Conversions, before: int) -> tuple[float, float, float]:
    """Clicks by impressions, conversions by clicks, revenue by conversions, known before a time."""
    known, bought = rows.known_time < before, conversions.known_time < before
    seen = int(np.count_nonzero(known))
    clicks = int(np.count_nonzero(rows.clicked & known & (rows.click_known < before)))
    converted = int(np.count_nonzero(bought & (conversions.revenue >= 0)))
    revenue = int(conversions.revenue[bought].sum())
    return (
        clicks / seen if seen else 0.0,
        converted / clicks if clicks else 0.0,
        max(revenue, 0) / converted if converted else 0.0,
    )


def engine_of(
    plan: Plan, vocabulary: Vocabulary, rows: Rows, conversions: Conversions, events: Events
) -> Engine:
    """The logs of what counts, under a plan whose vocabulary gave the rows their indices."""
    apart = np.flatnonzero(rows.clicked & (rows.click_known >= 0))
    of = np.concatenate([apart, conversions.row])
    kind = np.concatenate(
        [np.full(apart.size, kernels.CLICK, np.uint8), outcome_kinds(conversions.revenue)]
    )
    known = np.maximum(
        np.concatenate([rows.click_known[apart], conversions.known_time]), rows.known_time[of]
    )
    revenue = np.concatenate([np.zeros(apart.size, np.int64), conversions.revenue])
    counted = counts_in_time(kind, known, rows.known_time[of])
    of, kind, known, revenue = of[counted], kind[counted], known[counted], revenue[counted]
    shown_kind = (rows.clicked & (rows.click_known < 0)).astype(np.uint8)
    behaving = np.repeat(np.arange(events.offsets.size - 1), np.diff(events.offsets))
    ad = np.concatenate([rows.ad, rows.ad[of]])
    item_kind = np.concatenate([shown_kind, kind])
    known_time = np.concatenate([rows.known_time, known])
    return Engine(
        plan,
        user_log(
            plan.sizes["user"],
            user=np.concatenate([rows.user, rows.user[of], behaving.astype(np.int32)]),
            known_time=np.concatenate([known_time, events.known_time]),
            ad=np.concatenate([ad, events.ad]),
            category=np.concatenate([plan.attributes[ad, kernels.CATEGORY], events.category]),
            kind=np.concatenate([item_kind, behaviour_kinds(vocabulary, events.action)]),
        ),
        item_log(
            (known_time // MICROS_PER_HOUR).astype(np.int32),
            ad,
            np.concatenate([rows.placement, rows.placement[of]]),
            item_kind,
            np.concatenate([np.zeros(rows.ad.size, np.int64), revenue]),
        ),
    )


def _impressions(
    rows: Rows,
    conversions: Conversions,
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
    clicked = rows.clicked & ((rows.click_known < test) | (rows.event_time >= test))
    user, ad, time = rows.user[order], rows.ad[order], rows.event_time[order]
    request, placement = rows.request[order], rows.placement[order]
    start, end = history_slices(
        user, time, events.offsets, events.known_time, engine.plan.history_length
    )
    new = (request[1:] != request[:-1]) | (user[1:] != user[:-1])
    price, bid = price_and_bid(catalogues, engine.plan.sizes["ad"], ad, time)
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
        clicked=clicked[order],
        converted=converted[order],
        propensity=rows.propensity[order],
        split=split(time, validation, test),
    )


def _statistics(impressions: Impressions) -> Statistics:
    """Over training rows; a constant feature has deviation and span 1."""
    rows = np.flatnonzero(impressions.split == TRAIN)
    if not rows.size:
        raise ContractError("no impression before the validation days: the window is too short")
    width = impressions.dense.shape[1]
    total, squares = np.zeros(width), np.zeros(width)
    centre = impressions.dense[rows[0]].astype(np.float64)
    low, high = impressions.dense[rows[0]].copy(), impressions.dense[rows[0]].copy()
    for start in range(0, rows.size, 1 << 16):
        part: Singles = impressions.dense[rows[start : start + (1 << 16)]]
        np.minimum(low, part.min(axis=0), out=low)
        np.maximum(high, part.max(axis=0), out=high)
        shifted = part - centre
        total += shifted.sum(axis=0)
        squares += (shifted**2).sum(axis=0)
    mean = total / rows.size
    std = np.sqrt(np.maximum(squares / rows.size - mean**2, 0.0))
    std[std < 1e-6] = 1.0
    span = high - low
    span[span == 0.0] = 1.0
    return Statistics((centre + mean).astype(np.float32), std.astype(np.float32), low, span)
