"""Compiled counting: one pass over users, one over hours, and the same values online.

Counts are kept in one dense table per window, (windows, keys, kinds): a key is an entity's row,
such as an ad or a user's category, and a kind is one of `spec.COUNTS`. Rows enter and leave the
windows as time moves on, so a pass is linear in rows however long the windows are. One function
turns counts into a feature's value everywhere, so offline and online agree to the bit.
"""

# ruff: noqa: C901 - compiled passes take arrays, many of them, by position.

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.features.table import Ints, Longs, Singles

IMPRESSION, CLICKED_IMPRESSION, CONVERSION, BEHAVIOUR = 0, 1, 2, 3
"""Kinds of a counted row; they fill the columns of `spec.COUNTS`."""

CAMPAIGN, ADVERTISER, CATEGORY = 0, 1, 2
"""Columns of table.AD_ATTRIBUTES."""

CTR, CVR = 4, 5
"""Codes of the aggregates that follow the four counts."""

_DAY = MICROS_PER_DAY
_LOGS = 1024

LOGS: Singles = np.array([math.log1p(count) for count in range(_LOGS)], np.float32)
"""log(1 + count) of small counts."""

Counts = NDArray[np.int32]
Kinds = NDArray[np.uint8]
Columns = NDArray[np.int64]
"""(features, 4): column of the dense features, entity, aggregate, window."""

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile at the first call; keep the machine code beside the source."""
    return njit(cache=True, nogil=True)(function)  # type: ignore[return-value]


@compiled
def _value(counts: Counts, aggregate: int, rates: NDArray[np.float64], logs: Singles) -> np.float32:
    """`rates` are prior strength, global ctr, global cvr."""
    if aggregate == CTR:
        return np.float32((counts[1] + rates[0] * rates[1]) / (counts[0] + rates[0]))
    if aggregate == CVR:
        return np.float32((counts[2] + rates[0] * rates[2]) / (counts[1] + rates[0]))
    count = counts[aggregate]
    if count < logs.size:
        return logs[count]
    return np.float32(math.log1p(count))


@compiled
def _add(counts: Counts, key: int, kind: int, sign: int) -> None:
    if kind <= CLICKED_IMPRESSION:
        counts[key, 0] += sign
        counts[key, 1] += sign * kind
    else:
        counts[key, kind] += sign


@compiled
def _add_user(
    counts: Counts,
    live: Ints,
    ad: int,
    category: int,
    kind: int,
    sign: int,
    attributes: Ints,
    base: Longs,
) -> None:
    keys = (base[0], base[1] + category, base[2] + attributes[ad, ADVERTISER], base[3] + ad)
    for key in keys:
        _add(counts, key, kind, sign)
        live[key] += sign


@compiled
def _fill_user(
    row: int,
    ad: Ints,
    counts: Counts,
    live: Ints,
    attributes: Ints,
    base: Longs,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    unseen: Singles,
    own: Singles,
    keys: Longs,
    out: Singles,
) -> None:
    """Values of one row's candidates from the user's counts (windows, keys, 4).

    `live` (keys,) is 0 where all counts are: most ads were never shown to a user.
    """
    for f in range(columns.shape[0]):
        if columns[f, 1] == 0:
            own[f] = _value(counts[columns[f, 3], base[0]], columns[f, 2], rates, logs)
    for k in range(ad.shape[1]):
        shown = ad[row, k]
        if shown < 0:
            continue
        keys[1] = base[1] + attributes[shown, CATEGORY]
        keys[2] = base[2] + attributes[shown, ADVERTISER]
        keys[3] = base[3] + shown
        for f in range(columns.shape[0]):
            entity = columns[f, 1]
            if entity == 0:
                value = own[f]
            elif live[keys[entity]] == 0:
                value = unseen[f]
            else:
                counted = counts[columns[f, 3], keys[entity]]
                value = _value(counted, columns[f, 2], rates, logs)
            out[row, k, columns[f, 0]] = value


@compiled
def _unseen(columns: Columns, rates: NDArray[np.float64], logs: Singles) -> Singles:
    values, none = np.empty(columns.shape[0], np.float32), np.zeros(4, np.int32)
    for f in range(columns.shape[0]):
        values[f] = _value(none, columns[f, 2], rates, logs)
    return values


@compiled
def user_pass(
    order: Longs,
    user: Ints,
    time: Longs,
    ad: Ints,
    offsets: Longs,
    log_known: Longs,
    log_ad: Ints,
    log_category: Ints,
    log_kind: Kinds,
    attributes: Ints,
    days: Longs,
    base: Longs,
    total_keys: int,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """User-side columns of `out` (n, K, F) for rows visited in `order`: by user, then time.

    User u's log is rows offsets[u] to offsets[u + 1], ordered by known_time.
    """
    windows = days.size
    counts = np.zeros((windows, total_keys, 4), np.int32)
    live = np.zeros(total_keys, np.int32)
    lows = np.zeros(windows, np.int64)
    keys, own = np.zeros(4, np.int64), np.zeros(columns.shape[0], np.float32)
    unseen = _unseen(columns, rates, logs)
    high, end, previous = 0, 0, -1
    for row in order:
        if user[row] != previous:
            for w in range(windows):
                for at in range(lows[w], high):
                    _add_user(
                        counts[w],
                        live,
                        log_ad[at],
                        log_category[at],
                        log_kind[at],
                        -1,
                        attributes,
                        base,
                    )
            previous = user[row]
            high, end = offsets[previous], offsets[previous + 1]
            lows[:] = high
        t = time[row]
        while high < end and log_known[high] < t:
            for w in range(windows):
                _add_user(
                    counts[w],
                    live,
                    log_ad[high],
                    log_category[high],
                    log_kind[high],
                    1,
                    attributes,
                    base,
                )
            high += 1
        for w in range(windows):
            first = (t // _DAY - days[w]) * _DAY
            at = lows[w]
            while at < high and log_known[at] < first:
                _add_user(
                    counts[w],
                    live,
                    log_ad[at],
                    log_category[at],
                    log_kind[at],
                    -1,
                    attributes,
                    base,
                )
                at += 1
            lows[w] = at
        _fill_user(
            row, ad, counts, live, attributes, base, columns, rates, logs, unseen, own, keys, out
        )


@compiled
def user_states_pass(
    time: Longs,
    ad: Ints,
    offsets: Longs,
    bucket_day: Ints,
    bucket_ad: Ints,
    bucket_category: Ints,
    bucket_counts: Counts,
    attributes: Ints,
    days: Longs,
    base: Longs,
    total_keys: int,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """User-side columns of `out` (B, K, F) from day buckets, CSR by row of the batch."""
    counts = np.zeros((days.size, total_keys, 4), np.int32)
    live = np.zeros(total_keys, np.int32)
    keys, own = np.zeros(4, np.int64), np.zeros(columns.shape[0], np.float32)
    unseen = _unseen(columns, rates, logs)
    for row in range(time.size):
        for sign in (1, -1):
            for at in range(offsets[row], offsets[row + 1]):
                keys[0] = base[0]
                keys[1] = base[1] + bucket_category[at]
                keys[2] = base[2] + attributes[bucket_ad[at], ADVERTISER]
                keys[3] = base[3] + bucket_ad[at]
                for w in range(days.size):
                    if bucket_day[at] >= time[row] // _DAY - days[w]:
                        for key in keys:
                            live[key] += sign
                            for kind in range(4):
                                counts[w, key, kind] += sign * bucket_counts[at, kind]
            if sign == 1:
                _fill_user(
                    row,
                    ad,
                    counts,
                    live,
                    attributes,
                    base,
                    columns,
                    rates,
                    logs,
                    unseen,
                    own,
                    keys,
                    out,
                )


@compiled
def _add_item(
    counts: Counts, ad: int, placement: int, kind: int, sign: int, attributes: Ints, base: Longs
) -> None:
    _add(counts, base[0] + ad, kind, sign)
    _add(counts, base[1] + attributes[ad, CAMPAIGN], kind, sign)
    _add(counts, base[2] + attributes[ad, CATEGORY], kind, sign)
    _add(counts, base[3] + attributes[ad, ADVERTISER], kind, sign)
    _add(counts, base[4] + placement, kind, sign)


@compiled
def _fill_item(
    row: int,
    ad: Ints,
    placement: int,
    counts: Counts,
    attributes: Ints,
    base: Longs,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    now: int,
    stamp: Longs,
    cache: Singles,
    keys: Longs,
    out: Singles,
) -> None:
    """Values of one row's candidates; an ad's are kept in `cache` while `stamp` is `now`."""
    keys[4] = base[4] + placement
    for k in range(ad.shape[1]):
        shown = ad[row, k]
        if shown < 0:
            continue
        if stamp[shown] != now:
            stamp[shown] = now
            keys[0] = base[0] + shown
            keys[1] = base[1] + attributes[shown, CAMPAIGN]
            keys[2] = base[2] + attributes[shown, CATEGORY]
            keys[3] = base[3] + attributes[shown, ADVERTISER]
            for f in range(columns.shape[0]):
                if columns[f, 1] != 4:
                    window, key = columns[f, 3], keys[columns[f, 1]]
                    cache[shown, f] = _value(counts[window, key], columns[f, 2], rates, logs)
        for f in range(columns.shape[0]):
            if columns[f, 1] != 4:
                out[row, k, columns[f, 0]] = cache[shown, f]
    for f in range(columns.shape[0]):
        if columns[f, 1] == 4:
            value = _value(counts[columns[f, 3], keys[4]], columns[f, 2], rates, logs)
            for k in range(ad.shape[1]):
                if ad[row, k] >= 0:
                    out[row, k, columns[f, 0]] = value


@compiled
def item_pass(
    order: Longs,
    hour: Ints,
    ad: Ints,
    placement: Ints,
    log_hour: Ints,
    log_ad: Ints,
    log_placement: Ints,
    log_kind: Kinds,
    attributes: Ints,
    hours: Longs,
    base: Longs,
    total_keys: int,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """Item-side columns of `out` (n, K, F) for rows visited in `order`: by hour.

    The log is ordered by hour; a row sees the `hours[w]` closed hours before its own.
    """
    windows = hours.size
    counts = np.zeros((windows, total_keys, 3), np.int32)
    cache = np.zeros((attributes.shape[0], columns.shape[0]), np.float32)
    stamp, keys = np.full(attributes.shape[0], -1, np.int64), np.zeros(5, np.int64)
    if order.size == 0:
        return
    high = np.searchsorted(log_hour, hour[order[0]] - hours.max())
    lows = np.full(windows, high, np.int64)
    for row in order:
        now = hour[row]
        while high < log_hour.size and log_hour[high] < now:
            for w in range(windows):
                _add_item(
                    counts[w],
                    log_ad[high],
                    log_placement[high],
                    log_kind[high],
                    1,
                    attributes,
                    base,
                )
            high += 1
        for w in range(windows):
            at = lows[w]
            while at < high and log_hour[at] < now - hours[w]:
                _add_item(
                    counts[w], log_ad[at], log_placement[at], log_kind[at], -1, attributes, base
                )
                at += 1
            lows[w] = at
        _fill_item(
            row, ad, placement[row], counts, attributes, base, columns, rates, logs, now, stamp,
            cache, keys, out,
        )  # fmt: skip


@compiled
def item_states_pass(
    ad: Ints,
    placement: Ints,
    counts: Counts,
    attributes: Ints,
    base: Longs,
    columns: Columns,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """Item-side columns of `out` (B, K, F) from one hour's counts (windows, keys, 3)."""
    cache = np.zeros((attributes.shape[0], columns.shape[0]), np.float32)
    stamp, keys = np.full(attributes.shape[0], -1, np.int64), np.zeros(5, np.int64)
    for row in range(ad.shape[0]):
        _fill_item(
            row, ad, placement[row], counts, attributes, base, columns, rates, logs, 0, stamp,
            cache, keys, out,
        )  # fmt: skip


@compiled
def item_counts(counts: Counts, window: int, rows: Ints, attributes: Ints, base: Longs) -> None:
    """Add one hour's rows (m, 5) of ad, placement, impressions, clicks, conversions to a window."""
    keys = np.zeros(5, np.int64)
    for row in range(rows.shape[0]):
        ad = rows[row, 0]
        keys[0] = base[0] + ad
        keys[1] = base[1] + attributes[ad, CAMPAIGN]
        keys[2] = base[2] + attributes[ad, CATEGORY]
        keys[3] = base[3] + attributes[ad, ADVERTISER]
        keys[4] = base[4] + rows[row, 1]
        for key in keys:
            for kind in range(3):
                counts[window, key, kind] += rows[row, 2 + kind]


@compiled
def _log1p(value: float) -> np.float32:
    return np.float32(math.log1p(value))


@compiled
def value_pass(
    time: Longs,
    last_time: Longs,
    ad: Ints,
    price: Longs,
    bid: Longs,
    hours: Singles,
    weekdays: Singles,
    cap_hours: float,
    column: int,
    out: Singles,
) -> None:
    """The last seven columns of `out`, from `column`: price, bid, recency, hour and weekday.

    `last_time` (n,) is the event_time of the last behaviour known, or -1; `hours` (24, 2) and
    `weekdays` (7, 2) hold sine and cosine.
    """
    for row in range(time.size):
        t = time[row]
        elapsed = cap_hours
        if last_time[row] >= 0:
            elapsed = min((t - last_time[row]) / 3.6e9, cap_hours)
        recency = _log1p(elapsed)
        day = t // _DAY
        hour, weekday = (t - day * _DAY) // 3_600_000_000, (day + 3) % 7
        for k in range(ad.shape[1]):
            if ad[row, k] < 0:
                continue
            same = row > 0 and ad[row - 1, k] >= 0
            if same and price[row, k] == price[row - 1, k] and bid[row, k] == bid[row - 1, k]:
                out[row, k, column] = out[row - 1, k, column]
                out[row, k, column + 1] = out[row - 1, k, column + 1]
            else:
                out[row, k, column] = _log1p(price[row, k] / 1e6)
                out[row, k, column + 1] = _log1p(bid[row, k] / 1e6)
            out[row, k, column + 2] = recency
            out[row, k, column + 3] = hours[hour, 0]
            out[row, k, column + 4] = hours[hour, 1]
            out[row, k, column + 5] = weekdays[weekday, 0]
            out[row, k, column + 6] = weekdays[weekday, 1]
