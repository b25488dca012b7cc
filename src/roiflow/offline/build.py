"""From validated weeks to features: vocabulary, histories, logs, as-known features, splits.

The weeks are read once, a batch at a time, and put aside by user ranges. Then each range is worked
on by itself, so that memory does not grow with the weeks, and several at a time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.catalogue.eligibility import Pacing
from roiflow.data.schemas import SCHEMAS
from roiflow.data.split import TRAIN, Boundaries, boundaries, split
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ContractError
from roiflow.features import folder as files
from roiflow.features import kernels
from roiflow.features.counted import behaviour_kinds, counts_in_time, outcome_kinds
from roiflow.features.engine import (
    PLAN,
    USER_LOG,
    Engine,
    ItemLog,
    UserLog,
    fill_user_side,
    last_times,
    open_engine,
    user_log,
    write_item_log,
)
from roiflow.features.folder import ArrayFile, ArraysFile
from roiflow.features.hashing import IdCounter
from roiflow.features.history import history_slices, sort_rows
from roiflow.features.plan import Plan, context, frozen
from roiflow.features.rows import (
    Behaved,
    Conversions,
    Converted,
    Rows,
    Window,
    behaviours,
    by_user,
    impressions,
    micros,
    none,
    stacked,
)
from roiflow.features.spec import ATTRIBUTION_DAYS
from roiflow.features.table import (
    CONTEXT,
    Catalogue,
    Events,
    Features,
    Flags,
    Impressions,
    Ints,
    LaterLabels,
    Longs,
    Outcomes,
)
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.ahead import ahead
from roiflow.offline.item_values import ItemValues
from roiflow.offline.moments import Moments
from roiflow.offline.open_hours import Spend
from roiflow.offline.partitions import Aside, UserRanges, range_and_place, scratch
from roiflow.offline.settled import attributes_of, catalogues_of, price_and_bid, profile_of
from roiflow.online.item_rows import ItemCounter
from roiflow.online.snapshot import (
    OpenImpressions,
    UserValues,
    user_values,
    write_catalogue,
    write_item_values,
)
from roiflow.params import FeaturesParams

VOCABULARY = "vocabulary.parquet"
ONLINE = "online"

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
    """What the stage wrote; arrays are memory-mapped."""

    features: Features
    engine: Engine
    vocabulary: Vocabulary
    as_of: int


@dataclass(frozen=True)
class _Read:
    """The weeks, read: rows by user range, and what is known of all of them together."""

    ranges: UserRanges
    shown: Aside
    behaved: Aside
    clicks: Longs  # (ranges,) clicks that came by themselves
    conversions: Conversions
    items: ItemLog
    asked: Longs  # (m,) distinct event hours and ads, as hour times ads plus ad, sorted
    spend: Spend
    priors: tuple[float, float, float]


def build(
    window: Window,
    published: Vocabulary,
    params: FeaturesParams,
    folder: Path,
    *,
    threads: int = 1,
    progress: Progress = lambda _, __: None,
) -> Built:
    """Write features, engine, vocabulary and online snapshot of the window into a folder.

    Raises ContractError where there is nothing to learn.

    The last week is the test period (in a window of one week: its last `validation_days`), the
    `validation_days` before it are for validation, and the first `run_up_days` count and teach
    nothing. Attributes of ads and users are the newest known before the test period, or the first
    known of those that appear in it.
    """
    as_of = window.weeks[-1].end
    starts = boundaries(window.weeks, params.validation_days, params.run_up_days)
    progress(0.0, "vocabulary")
    ads, users = window.all("ads"), window.all("users")
    profile_names = tuple(name for name in users.column_names if name not in SCHEMAS["users"].names)
    vocabulary, known = _vocabulary(window, published, profile_names, params.min_count, starts.test)
    sizes = _sizes(vocabulary, profile_names)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder) as place:
        progress(0.2, "read")
        online = folder / ONLINE
        read = _read(window, vocabulary, sizes, as_of, starts.validation, place, online)
        plan = Plan(
            prior_strength=params.prior_strength,
            ctr=read.priors[0],
            cvr=read.priors[1],
            value=read.priors[2],
            history_length=params.history_length,
            sizes=sizes,
            profile_names=profile_names,
            known_before_test=known,
            attributes=attributes_of(ads, vocabulary, sizes["ad"], starts.test),
        )
        files.write_settled(
            folder,
            plan,
            profile_of(users, profile_names, vocabulary, sizes["user"], starts.test),
            tuple(
                catalogues_of(
                    window,
                    vocabulary,
                    read.asked,
                    read.spend,
                    Pacing.of(np.array(params.traffic, np.float64)),
                )
            ),
            starts,
            as_of,
        )
        plan.write(folder / PLAN)
        write_item_log(folder, read.items)
        progress(0.5, f"features of {read.shown.counts.sum():,} impressions")
        _write_ranges(folder, plan, vocabulary, read, starts, as_of, threads)
        write_catalogue(online, window, vocabulary, params.traffic)
        write_item_values(online, plan, read.items, as_of)
    features, engine = files.read(folder), open_engine(folder)
    vocabulary.write(folder / VOCABULARY)
    return Built(features, engine, vocabulary, as_of)


def _vocabulary(
    window: Window, published: Vocabulary, profile: tuple[str, ...], min_count: int, test: int
) -> tuple[Vocabulary, dict[str, int]]:
    """The vocabulary, and the size of each kind's part that was known before `test`."""
    kinds = dict(_IDS) | {f"profile:{name}": (("users", name),) for name in profile}
    seen = {kind: IdCounter() for kind in kinds}
    for table in ("ads", "users", "impressions", "behaviours"):
        of_table = [
            (kind, column)
            for kind, sources in kinds.items()
            for source, column in sources
            if source == table
        ]
        names = [c.KNOWN_TIME, *(column for _, column in of_table)]
        # Each table is read once, for all kinds that have a column in it.
        with ahead(window.batches(table, names)) as batches:
            for rows in batches:
                known_time = micros(rows[c.KNOWN_TIME])
                for kind, column in of_table:
                    if column in rows.column_names:
                        seen[kind].add(rows[column], known_time)
    vocabulary, known = published, {}
    for kind, counts in seen.items():
        new = published.new(kind, [counts.table()], min_count)
        vocabulary = vocabulary.appended(kind, new["id"])
        # New ids are in the order in which they became known, so those before `test` are a prefix.
        early = int(np.count_nonzero(micros(new["known_time"]) < test))
        known[kind] = published.size(kind) + early
    return vocabulary, known


def _sizes(vocabulary: Vocabulary, profile: tuple[str, ...]) -> dict[str, int]:
    kinds = (*_IDS, *(f"profile:{name}" for name in profile))
    return {kind: vocabulary.size(kind) for kind in kinds} | {"hour": 24, "weekday": 7}


def _read(
    window: Window,
    vocabulary: Vocabulary,
    sizes: dict[str, int],
    as_of: int,
    validation: int,
    place: Path,
    online: Path,
) -> _Read:
    # One pass over all weeks: rows go to files by user range, and what is asked of all users
    # together (item counts, priors, hours and ads asked for) is counted on the way.
    rows = window.count("impressions") + window.count("behaviours")
    ranges = UserRanges.of(sizes["user"], rows)
    shown, behaved = Aside(place, "shown", ranges, Rows), Aside(place, "behaved", ranges, Behaved)
    converted, asked, spend = Converted(window), [], []
    items = ItemCounter(sizes["ad"], sizes["placement"])
    clicks, totals = np.zeros(len(ranges), np.int64), np.zeros(2, np.int64)
    since = as_of - ATTRIBUTION_DAYS * MICROS_PER_DAY
    with (
        OpenImpressions(online, since) as still_open,
        ahead(impressions(window, vocabulary)) as shown_rows,
    ):
        for batch, ids in shown_rows:
            number = shown.put(batch)
            converted.met(ids[c.IMPRESSION], number, batch)
            still_open.put(batch, ids)
            # Clicks with a time of their own count from then on; the others are known with their
            # impression.
            apart = batch.clicked & (batch.click_known >= 0)
            clicks += np.bincount(ranges.part(batch.user[apart]), minlength=len(ranges))
            _count_items(items, batch, apart)
            hour = batch.event_time // MICROS_PER_HOUR
            asked.append(_distinct(hour * sizes["ad"] + batch.ad))
            spend.append(Spend.of_rows(batch, sizes["ad"]))
            # Priors are of what was known before validation: they go into every feature, and later
            # rows would leak through them.
            early = batch.known_time < validation
            totals += [
                np.count_nonzero(early),
                np.count_nonzero(batch.clicked & early & (batch.click_known < validation)),
            ]
    if not asked:
        raise ContractError(f"{window.folder / 'impressions'}: no impression in any week")
    with ahead(behaviours(window, vocabulary)) as behaved_rows:
        for some in behaved_rows:
            behaved.put(some)
    conversions = converted.conversions()
    _count_conversions(items, conversions)
    return _Read(
        ranges,
        shown,
        behaved,
        clicks,
        conversions,
        _items_log(items),
        _distinct(np.concatenate(asked)),
        Spend.of(spend, sizes["ad"]),
        _priors(totals, conversions, validation),
    )


def _distinct(codes: Longs) -> Longs:
    # Sorted and compared, in one array of its length.
    ordered = np.sort(codes)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def _count_items(items: ItemCounter, rows: Rows, apart: Flags) -> None:
    """Impressions, and clicks that came by themselves."""
    nothing = np.zeros(rows.user.size, np.int64)
    at_once = (rows.clicked & ~apart).astype(np.uint8)
    items.add(rows.known_time, rows.ad, rows.placement, at_once, nothing)
    # Never before the impression: until it is known, nobody can tell whose click it was.
    later = np.maximum(rows.click_known, rows.known_time)[apart]
    click = np.full(later.size, kernels.CLICK, np.uint8)
    items.add(later, rows.ad[apart], rows.placement[apart], click, nothing[: later.size])


def _count_conversions(items: ItemCounter, conversions: Conversions) -> None:
    kind = outcome_kinds(conversions.revenue)
    known = np.maximum(conversions.known_time, conversions.shown_known)
    here = counts_in_time(kind, known, conversions.shown_known)
    items.add(
        known[here],
        conversions.ad[here],
        conversions.placement[here],
        kind[here],
        conversions.revenue[here],
    )


def _priors(
    shown_and_clicked: Longs, conversions: Conversions, before: int
) -> tuple[float, float, float]:
    """Clicks by impressions, conversions by clicks, revenue by conversions, known before a time."""
    seen, clicks = shown_and_clicked.tolist()
    bought = conversions.known_time < before
    converted = int(np.count_nonzero(bought & (conversions.revenue >= 0)))
    # In floating point, as the money of all rows may leave 64 bits; returns count against it.
    revenue = float(conversions.revenue[bought].sum(dtype=np.float64))
    return (
        clicks / seen if seen else 0.0,
        converted / clicks if clicks else 0.0,
        max(revenue, 0.0) / converted if converted else 0.0,
    )


def user_rows(
    plan: Plan,
    vocabulary: Vocabulary,
    rows: Rows,
    conversions: Conversions,
    events: Events,
) -> UserLog:
    """The log of what counts for each user; conversions are of the rows' places."""
    apart = np.flatnonzero(rows.clicked & (rows.click_known >= 0))
    of = np.concatenate([apart, conversions.row])
    kind = np.concatenate(
        [np.full(apart.size, kernels.CLICK, np.uint8), outcome_kinds(conversions.revenue)]
    )
    shown = rows.known_time[of]
    known = np.maximum(np.concatenate([rows.click_known[apart], conversions.known_time]), shown)
    counted = counts_in_time(kind, known, shown)
    of, kind, known = of[counted], kind[counted], known[counted]
    behaving = np.repeat(np.arange(events.offsets.size - 1), np.diff(events.offsets))
    at_once = (rows.clicked & (rows.click_known < 0)).astype(np.uint8)
    ad = np.concatenate([rows.ad, rows.ad[of]])
    return user_log(
        events.offsets.size - 1,
        user=np.concatenate([rows.user, rows.user[of], behaving.astype(np.int32)]),
        known_time=np.concatenate([rows.known_time, known, events.known_time]),
        ad=np.concatenate([ad, events.ad]),
        category=np.concatenate([plan.attributes[ad, kernels.CATEGORY], events.category]),
        kind=np.concatenate([at_once, kind, behaviour_kinds(vocabulary, events.action)]),
    )


def engine_of(
    plan: Plan, vocabulary: Vocabulary, rows: Rows, conversions: Conversions, events: Events
) -> Engine:
    """The engine of rows in memory, whose indices are those of the plan's vocabulary."""
    items = ItemCounter(plan.sizes["ad"], plan.sizes["placement"])
    _count_items(items, rows, rows.clicked & (rows.click_known >= 0))
    _count_conversions(items, conversions)
    log = user_rows(plan, vocabulary, rows, conversions, events)
    return Engine(plan, log, _items_log(items))


def _items_log(items: ItemCounter) -> ItemLog:
    """What was counted, as the engine reads it."""
    hour, rows = items.rows()
    return ItemLog(frozen(hour), frozen(rows))


@dataclass(frozen=True)
class _Task:
    """What every range needs, and where its results go."""

    plan: Plan
    vocabulary: Vocabulary
    read: _Read
    catalogues: tuple[Catalogue, ...]
    starts: Boundaries
    values: ItemValues
    impressions: ArraysFile
    events: ArraysFile
    event_offsets: ArrayFile
    log: ArraysFile
    log_offsets: ArrayFile
    first_log: Longs  # (ranges,) first row of each range's log
    profile: Ints  # (users, attributes)
    as_of: int


def _write_ranges(
    folder: Path,
    plan: Plan,
    vocabulary: Vocabulary,
    read: _Read,
    starts: Boundaries,
    as_of: int,
    threads: int,
) -> None:
    ranges, shown, behaved = read.ranges, read.shown.counts, read.behaved.counts
    # Each range's place in every array is known beforehand, so that ranges are written straight
    # into the arrays on disk, several at a time, and nothing is put together afterwards.
    # Counted as `user_rows` will count them, or a range would write over the next one's rows.
    in_range, _ = range_and_place(read.conversions.row)
    conversions = read.conversions
    known = np.maximum(conversions.known_time, conversions.shown_known)
    counted = counts_in_time(outcome_kinds(conversions.revenue), known, conversions.shown_known)
    logged = shown + behaved + read.clicks
    logged += np.bincount(in_range[counted], minlength=len(ranges))
    users, numbers = plan.sizes["user"], np.dtype(np.int64)
    log = folder / USER_LOG
    task = _Task(
        plan,
        vocabulary,
        read,
        files.read_catalogues(folder),
        starts,
        ItemValues.of(plan, read.items, read.asked),
        ArraysFile(folder / "impressions", int(shown.sum())),
        ArraysFile(folder / "events", int(behaved.sum())),
        ArrayFile(folder / "events" / "offsets.npy", numbers, (users + 1,)),
        ArraysFile(log, int(logged.sum())),
        ArrayFile(log / "offsets.npy", numbers, (users + 1,)),
        np.cumsum(logged) - logged,
        files.read_array(folder / "profile.npy"),
        as_of,
    )
    task.impressions.create(Impressions, {"context": len(CONTEXT), "dense": len(plan.specs)})
    task.events.create(Events, {}, leave=["offsets"])
    task.log.create(UserLog, {}, leave=["offsets"])
    requests, total = [], Moments.none(len(plan.specs))
    outcomes: list[Outcomes] = []
    later: list[LaterLabels] = []
    with ThreadPoolExecutor(threads) as pool, UserValues(folder / ONLINE) as online:
        # `map` gives results in the order of ranges, so sums and files are the same with any number
        # of threads.
        for found in pool.map(partial(_write_range, task), range(len(ranges))):
            requests.append(found.requests)
            total = total.joined(found.moments)
            outcomes.append(found.outcomes)
            later.append(found.later)
            online.put(found.pairs)
    # Few beside the impressions, so they wait in memory and are written at once.
    files.write_arrays(folder / "outcomes", stacked(Outcomes, outcomes))
    files.write_arrays(folder / "later_labels", stacked(LaterLabels, later))
    _number_requests(folder, shown, np.array(requests))
    if not total.rows:
        raise ContractError("no impression before the validation days: the window is too short")
    files.write_arrays(folder / "statistics", total.statistics())


@dataclass(frozen=True)
class _Written:
    """What one range adds to what is kept of all of them."""

    requests: int
    moments: Moments
    """Of the training rows."""
    pairs: pa.Table
    """The users' values in the online store."""
    outcomes: Outcomes
    later: LaterLabels


def _write_range(task: _Task, part: int) -> _Written:
    """Write what the users of one range have."""
    read, plan = task.read, task.plan
    first, users = read.ranges.users(part)
    rows = read.shown.take(part, Rows)
    events = by_user(read.behaved.take(part, Behaved), users)
    conversions = _conversions_of(read.conversions, part)
    log = user_rows(plan, task.vocabulary, rows, conversions, events)
    first_event = int(read.behaved.counts[:part].sum())
    first_log = int(task.first_log[part])
    last = part == len(read.ranges) - 1
    # A range ends where the next one begins: only the last writes the closing offset.
    for offsets, file, start in (
        (events.offsets, task.event_offsets, first_event),
        (log.offsets, task.log_offsets, first_log),
    ):
        file.put(first, (offsets if last else offsets[:-1]) + start)
    task.events.put(first_event, events, leave=["offsets"])
    task.log.put(first_log, log, leave=["offsets"])
    # User 0 is out of vocabulary and has no id, so ids lie one place before their users.
    ids = task.vocabulary.ids("user")[max(first - 1, 0) : first + users - 1]
    profile = task.profile[first : first + users]
    pairs = user_values(plan, first, profile, ids, events, log, task.as_of)
    if not rows.user.size:
        nothing = none(Outcomes), none(LaterLabels)
        return _Written(0, Moments.none(len(plan.specs)), pairs, *nothing)
    # Within the range users and events count from 0; they are moved to their place when written.
    order, _ = sort_rows(rows.user, users, rows.event_time, rows.request, rows.position)
    labels = _labels(rows, conversions, task.starts.test)
    found = _impressions(task, rows, order, labels, events, log)
    moments = Moments.of(found.dense[found.split == TRAIN])
    requests = int(found.request[-1]) + 1
    placed = replace(
        found,
        user=found.user + np.int32(first),
        history_start=found.history_start + first_event,
        history_end=found.history_end + first_event,
    )
    first_row = int(read.shown.counts[:part].sum())
    task.impressions.put(first_row, placed)
    place = np.empty(order.size, np.int64)
    place[order] = first_row + np.arange(order.size)
    ended = _labels(rows, conversions, task.as_of)
    return _Written(
        requests, moments, pairs, _outcomes(conversions, place), _later(labels, ended, place)
    )


def _conversions_of(conversions: Conversions, part: int) -> Conversions:
    """Those of one range's impressions, by their places in the range."""
    in_range, place = range_and_place(conversions.row)
    here = np.flatnonzero(in_range == part)
    return Conversions(
        place[here],
        *(getattr(conversions, field.name)[here] for field in fields(Conversions)[1:]),
    )


@dataclass(frozen=True)
class _Labels:
    """Of rows (n,), by what was known at a time."""

    clicked: Flags
    converted: Flags
    revenue: Longs  # micros


def _labels(rows: Rows, conversions: Conversions, test: int) -> _Labels:
    """As known at `test`; of the rows from then on, as they ended.

    What became known in the test period labels its own rows only: a model tested there could not
    have learned from it.
    """
    usable = (conversions.known_time < test) | (rows.event_time[conversions.row] >= test)
    row = conversions.row[usable]
    converted = np.zeros(rows.user.size, np.bool_)
    converted[row] = True
    return _Labels(
        rows.clicked & ((rows.click_known < test) | (rows.event_time >= test)),
        converted,
        _money_by_row(rows.user.size, row, conversions.revenue[usable]),
    )


def _outcomes(conversions: Conversions, place: Longs) -> Outcomes:
    """By the places (n,) of the rows among all impressions."""
    row = place[conversions.row]
    # Past row and time the amount decides, so that equal times do not leave the order to the files.
    order = np.lexsort((conversions.revenue, conversions.known_time, row))
    return Outcomes(row[order], conversions.known_time[order], conversions.revenue[order])


def _later(labels: _Labels, ended: _Labels, place: Longs) -> LaterLabels:
    changed = np.flatnonzero(
        (labels.clicked != ended.clicked)
        | (labels.converted != ended.converted)
        | (labels.revenue != ended.revenue)
    )
    changed = changed[np.argsort(place[changed])]
    return LaterLabels(
        place[changed], ended.clicked[changed], ended.converted[changed], ended.revenue[changed]
    )


def _impressions(
    task: _Task, rows: Rows, order: Longs, labels: _Labels, events: Events, log: UserLog
) -> Impressions:
    """Sorted by user, event_time, request, position, which is `order`."""
    plan = task.plan
    user, ad, time = rows.user[order], rows.ad[order], rows.event_time[order]
    request, placement = rows.request[order], rows.placement[order]
    start, end = history_slices(user, time, events.offsets, events.known_time, plan.history_length)
    # Requests are hashes: rows of two users are never one request, whatever the hashes say.
    new = (request[1:] != request[:-1]) | (user[1:] != user[:-1])
    price, bid = price_and_bid(task.catalogues, plan.sizes["ad"], ad, time)
    dense = np.zeros((user.size, 1, len(plan.specs)), np.float32)
    fill_user_side(plan, log, user, time, ad[:, None], dense, order=np.arange(user.size))
    task.values.fill((time // MICROS_PER_HOUR).astype(np.int32), ad, placement, dense[:, 0])
    plan.values(
        time,
        last_times(events, start, end),
        ad=ad[:, None],
        price=price[:, None],
        bid=bid[:, None],
        out=dense,
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
        revenue=labels.revenue[order],
        clicked=labels.clicked[order],
        converted=labels.converted[order],
        propensity=rows.propensity[order],
        canary=rows.canary[order],
        split=split(time, task.starts),
    )


def _money_by_row(rows: int, row: Longs, revenue: Longs) -> Longs:
    """Micros (rows,) that amounts (m,) of rows (m,) add up to, at most kernels.LARGEST_SUM each."""
    # In floating point, which is exact for whole micros below 2^53 and does not wrap above.
    total = np.bincount(row, weights=revenue, minlength=rows)
    return np.clip(total, -kernels.LARGEST_SUM, kernels.LARGEST_SUM).astype(np.int64)


def _number_requests(folder: Path, rows: Longs, requests: Longs) -> None:
    """Requests of a range are numbered after those of the ranges before it."""
    path = folder / "impressions" / "request.npy"
    # In place and last: how many requests a range has is only known once it is sorted.
    numbers = np.load(path, mmap_mode="r+")
    ends = np.cumsum(rows)
    for start, end, before in zip(ends - rows, ends, np.cumsum(requests) - requests, strict=True):
        numbers[start:end] += before
    numbers.flush()
