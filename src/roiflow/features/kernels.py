"""Compiled counting: one pass over users, one over hours, and the same values online.

Counts are kept in one dense table, a row per key of each cell: a cell is an entity in a window, a
key an entity's row, such as an ad or a user's category. Rows enter and leave the windows as time
moves on, so a pass is linear in rows however long the windows are. One function turns counts into a
feature's value everywhere, so offline and online agree to the bit.
"""

# ruff: noqa: C901, PLR0912 - compiled passes take arrays, many of them, by position.

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.features.table import Ints, Longs, Singles

IMPRESSION, CLICKED_IMPRESSION, CONVERSION, BEHAVIOUR, INTENT, CLICK, RETURN = range(7)
"""Kinds of a counted row. A click that came with its impression is one row with it."""

USER_COUNTS, ITEM_COUNTS = 5, 4
"""Columns of the counts: `spec.COUNTS`, and impressions, clicks, conversions, revenue (micros)."""

USER_ADDS: NDArray[np.int64] = np.array(
    [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)
"""What a row of each kind adds to the columns of `spec.COUNTS`. A return is no count."""

CAMPAIGN, ADVERTISER, CATEGORY = 0, 1, 2
"""Columns of table.AD_ATTRIBUTES."""

AD_KEY = 4
"""The last of spec.USER_ENTITIES: the ad itself, of which each candidate is another one."""

CTR, CVR, VALUE = 5, 6, 7
"""Codes of the aggregates that follow the counts, as in `spec.AGGREGATES`."""

LARGEST_SUM = 2**61
"""Micros: a sum of money that is larger stays there, on either side of 0, and so never wraps."""

_ROLLING_COUNTS = ITEM_COUNTS + 1
_LOW_WORD, _HIGH_WORD = 0xFFFFFFFF, 4_294_967_296.0
_DAY, _HOUR = MICROS_PER_DAY, MICROS_PER_HOUR
_LOGS = 1024

LOGS: Singles = np.array([math.log1p(count) for count in range(_LOGS)], np.float32)
"""log(1 + count) of small counts."""

ENTERS: Any = np.int64(1)
LEAVES: Any = np.int64(-1)
"""Signs of a row that enters or leaves a window; numba compiles a function anew for every 1 or -1
that is written out as its argument."""

Kinds = NDArray[np.uint8]


class Cells(NamedTuple):
    """Entities in windows, ordered by window, and the features that read them."""

    days: Longs  # (windows,) shortest first
    of_window: Longs  # (windows + 1,) window w has cells of_window[w] to of_window[w + 1]
    entity: Longs  # (cells,)
    base: Longs  # (cells + 1,) first row of each cell in the counts, then their number
    keys: Longs  # (entities + 1,) first key of each entity, then the number of keys
    column: Longs  # (features,) column of the dense features
    cell: Longs  # (features,)
    aggregate: Longs  # (features,) code


kernel = compiled(nogil=True, error_model="numpy")


# Windows open at whole days, so that offline and online can count the same rows: what is kept
# online is a day's bucket.


@kernel
def low_hour(hour: int, days: int) -> int:
    """First hour (since the epoch) of a window of so many days at a time in `hour`."""
    return (hour // 24 - days) * 24


@kernel
def _money(counts: Any) -> float:
    """Micros, of a row of sums or of rolling sums."""
    if counts.size == ITEM_COUNTS:
        return float(counts[3])
    high, low = counts[4] + (counts[3] >> 32), counts[3] & _LOW_WORD
    money = high * _HIGH_WORD + low  # both are whole below 2^53: rounded once, as an int64 is
    return float(min(max(money, float(-LARGEST_SUM)), float(LARGEST_SUM)))


@kernel
def _roll(counts: Longs, key: int, rows: Longs, row: Any, sign: int) -> None:
    """Let a row of the log enter or leave a key's sums.

    What entered leaves again, so a sum may not stop at LARGEST_SUM on the way: money is summed in
    two words of 32 bits, which 2^31 rows cannot fill.
    """
    for column in range(ITEM_COUNTS - 1):
        counts[key, column] += sign * rows[row, 2 + column]
    money = rows[row, 2 + ITEM_COUNTS - 1]
    counts[key, 3] += sign * (money & _LOW_WORD)
    counts[key, 4] += sign * (money >> 32)


@kernel
def _sum(left: int, right: int) -> int:
    """Of a sum of money and an amount."""
    return _within(left + _within(right))


@kernel
def _within(money: int) -> int:
    return min(max(money, -LARGEST_SUM), LARGEST_SUM)


# One function makes a feature of counts for every pass, offline and online. Numba compiles it for
# each type of counts, so the operations are the same and the floats equal to the bit.


@kernel
def _value(counts: Any, aggregate: int, rates: NDArray[np.float64], logs: Singles) -> np.float32:
    """`rates` are prior strength, global ctr, cvr and value."""
    strength = rates[0]
    if aggregate == CTR:
        return np.float32((counts[1] + strength * rates[1]) / (counts[0] + strength))
    if aggregate == CVR:
        return np.float32((counts[2] + strength * rates[2]) / (counts[1] + strength))
    if aggregate == VALUE:
        mean = (_money(counts) + strength * rates[3]) / (counts[2] + strength)
        # Returns may outweigh what was bought in a window, and far below 0 there is no logarithm.
        return np.float32(math.log1p(max(mean, 0.0) / 1e6))
    count = counts[aggregate]
    # Most counts are small, and the logarithm is half of a feature's time.
    if count < logs.size:
        return logs[count]
    return np.float32(math.log1p(count))


@kernel
def _add(counts: Any, row: int, kind: int, sign: int) -> None:
    for column in range(USER_COUNTS):
        counts[row, column] += sign * USER_ADDS[kind, column]


# The user side. Counts of a user lie in one dense table: row base[c] + key of cell c, which is an
# entity (say the ad's category) in a window. The table is as wide as the vocabulary and a user
# touches few rows of it, so it is cleared by walking over the user's own log again, and never as a
# whole. Each log row enters all windows at once and leaves them one by one, the longest last.


@kernel
def _user_keys(ad: int, category: int, attributes: Ints, keys: Longs) -> None:
    """Keys of spec.USER_ENTITIES."""
    keys[0] = 0
    keys[1] = category
    keys[2] = attributes[ad, CAMPAIGN]
    keys[3] = attributes[ad, ADVERTISER]
    keys[4] = ad


@kernel
def _enter_user(counts: Any, live: Ints, cells: Cells, keys: Longs, kind: int) -> None:
    entity, base = cells.entity, cells.base
    for c in range(entity.size):
        _add(counts, base[c] + keys[entity[c]], kind, ENTERS)
    for e in range(1, keys.size):
        live[cells.keys[e] + keys[e]] += 1


@kernel
def _leave_user(counts: Any, live: Ints, cells: Cells, window: int, keys: Longs, kind: int) -> None:
    entity, base = cells.entity, cells.base
    for c in range(cells.of_window[window], cells.of_window[window + 1]):
        _add(counts, base[c] + keys[entity[c]], kind, LEAVES)
    # What has left the longest window has left them all.
    if window == cells.days.size - 1:
        for e in range(1, keys.size):
            live[cells.keys[e] + keys[e]] -= 1


@kernel
def _clear_user(counts: Any, live: Ints, cells: Cells, keys: Longs) -> None:
    entity, base = cells.entity, cells.base
    for c in range(entity.size):
        for column in range(counts.shape[1]):
            counts[base[c] + keys[entity[c]], column] = 0
    for e in range(1, keys.size):
        live[cells.keys[e] + keys[e]] = 0


@kernel
def _fill_user(
    row: int,
    ad: Ints,
    counts: Any,
    live: Ints,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    unseen: Singles,
    made: Singles,
    stamp: Longs,
    keys: Longs,
    out: Singles,
) -> None:
    """Values of one row's candidates from the user's counts.

    `live` is 0 where all counts of a key are: most ads were never shown to a user. Ads share few
    categories and advertisers, whose values are kept in `made` while `stamp` is the row.
    """
    cell, entity, base = cells.cell, cells.entity, cells.base
    column, aggregate, first = cells.column, cells.aggregate, cells.keys
    # Entity 0 is the user himself: the same for all of the row's candidates, so made once.
    for f in range(column.size):
        if entity[cell[f]] == 0:
            made[0, f] = _value(counts[base[cell[f]]], aggregate[f], rates, logs)
    for k in range(ad.shape[1]):
        shown = ad[row, k]
        if shown < 0:
            continue
        _user_keys(shown, attributes[shown, CATEGORY], attributes, keys)
        for e in range(1, AD_KEY):
            at = first[e] + keys[e]
            if live[at] != 0 and stamp[at] != row:
                stamp[at] = row
                for f in range(column.size):
                    if entity[cell[f]] == e:
                        counted = counts[base[cell[f]] + keys[e]]
                        made[at, f] = _value(counted, aggregate[f], rates, logs)
        for f in range(column.size):
            c = cell[f]
            e = entity[c]
            at = first[e] + keys[e]
            if e == 0:
                value = made[0, f]
            elif live[at] == 0:
                value = unseen[f]
            elif e < AD_KEY:
                value = made[at, f]
            else:
                value = _value(counts[base[c] + keys[e]], aggregate[f], rates, logs)
            out[row, k, column[f]] = value


@kernel
def _unseen(cells: Cells, rates: NDArray[np.float64], logs: Singles) -> Singles:
    values, none = np.empty(cells.column.size, np.float32), np.zeros(USER_COUNTS, np.int32)
    for f in range(cells.column.size):
        values[f] = _value(none, cells.aggregate[f], rates, logs)
    return values


@kernel
def user_pass(
    order: Longs,
    user: Ints,
    time: Longs,
    until: Longs,
    ad: Ints,
    offsets: Longs,
    log_known: Longs,
    log_ad: Ints,
    log_category: Ints,
    log_kind: Kinds,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """User-side columns of `out` (n, K, F) for rows visited in `order`: by user, then time.

    User u's log is rows offsets[u] to offsets[u + 1], ordered by known_time. A row counts what is
    known before its `time`, and before its `until` if that is earlier.
    """
    windows = cells.days.size
    counts = np.zeros((cells.base[-1], USER_COUNTS), np.int32)
    live = np.zeros(cells.keys[-1], np.int32)
    lows = np.zeros(windows, np.int64)
    keys = np.zeros(5, np.int64)
    made = np.zeros((cells.keys[AD_KEY], cells.column.size), np.float32)
    stamp = np.full(cells.keys[AD_KEY], -1, np.int64)
    unseen = _unseen(cells, rates, logs)
    # Pointers into the user's log: rows before `high` are counted, those before lows[w] have left
    # window w. Times only grow inside a user, so each pointer passes each row once.
    high, end, previous = 0, 0, -1
    for row in order:
        # The windows' far ends follow `time`: `until` only hides what came after it.
        bound = min(time[row], until[row])
        # A new user, or a bound that lies before what was counted: start again from nothing.
        if user[row] != previous or (high > offsets[previous] and log_known[high - 1] >= bound):
            for at in range(lows[windows - 1], high):
                _user_keys(log_ad[at], log_category[at], attributes, keys)
                _clear_user(counts, live, cells, keys)
            previous = user[row]
            high, end = offsets[previous], offsets[previous + 1]
            lows[:] = high
        while high < end and log_known[high] < bound:
            _user_keys(log_ad[high], log_category[high], attributes, keys)
            _enter_user(counts, live, cells, keys, log_kind[high])
            high += 1
        for w in range(windows):
            first = low_hour(time[row] // _HOUR, cells.days[w]) * _HOUR
            at = lows[w]
            while at < high and log_known[at] < first:
                _user_keys(log_ad[at], log_category[at], attributes, keys)
                _leave_user(counts, live, cells, w, keys, log_kind[at])
                at += 1
            lows[w] = at
        _fill_user(
            row, ad, counts, live, attributes, cells, rates, logs, unseen, made, stamp, keys, out
        )


@kernel
def user_states_pass(
    time: Longs,
    ad: Ints,
    offsets: Longs,
    bucket_day: Ints,
    bucket_ad: Ints,
    bucket_category: Ints,
    bucket_counts: Ints,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """User-side columns of `out` (B, K, F) from buckets, CSR by row of the batch."""
    windows = cells.days.size
    counts = np.zeros((cells.base[-1], USER_COUNTS), np.int32)
    live = np.zeros(cells.keys[-1], np.int32)
    keys = np.zeros(5, np.int64)
    made = np.zeros((cells.keys[AD_KEY], cells.column.size), np.float32)
    stamp = np.full(cells.keys[AD_KEY], -1, np.int64)
    unseen = _unseen(cells, rates, logs)
    for row in range(time.size):
        today = time[row] // _DAY
        # Buckets are counted in, and after the row's features are made, out again: a user has a
        # few hundred, and to clear the whole table would take longer.
        for sign in (1, -1):
            for at in range(offsets[row], offsets[row + 1]):
                _user_keys(bucket_ad[at], bucket_category[at], attributes, keys)
                for entity in range(1, keys.size):
                    live[cells.keys[entity] + keys[entity]] += sign
                for w in range(windows):
                    if bucket_day[at] < today - cells.days[w]:
                        continue
                    for c in range(cells.of_window[w], cells.of_window[w + 1]):
                        key = cells.base[c] + keys[cells.entity[c]]
                        for kind in range(USER_COUNTS):
                            counts[key, kind] += sign * bucket_counts[at, kind]
            if sign == 1:
                _fill_user(
                    row, ad, counts, live, attributes, cells, rates, logs, unseen, made, stamp,
                    keys, out,
                )  # fmt: skip


# The item side: the same table of cells, for all users together, moved on hour by hour.


@kernel
def _item_keys(ad: int, placement: int, attributes: Ints, keys: Longs) -> None:
    """Keys of spec.ITEM_ENTITIES."""
    keys[0] = ad
    keys[1] = attributes[ad, CAMPAIGN]
    keys[2] = attributes[ad, CATEGORY]
    keys[3] = attributes[ad, ADVERTISER]
    keys[4] = placement


@kernel
def _fill_item(
    row: int,
    ad: Ints,
    placement: int,
    counts: Any,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    now: int,
    stamp: Longs,
    cache: Singles,
    keys: Longs,
    out: Singles,
) -> None:
    """Values of one row's candidates; an ad's are kept in `cache` while `stamp` is `now`."""
    for k in range(ad.shape[1]):
        shown = ad[row, k]
        if shown < 0:
            continue
        # All requests of an hour see the same counts, so an ad's values are made once an hour.
        if stamp[shown] != now:
            stamp[shown] = now
            _item_keys(int(shown), placement, attributes, keys)
            for f in range(cells.column.size):
                entity = cells.entity[cells.cell[f]]
                # Entity 4 is the placement: it is the request's and not the ad's, so it is not kept
                # with it.
                if entity != 4:
                    counted = counts[cells.base[cells.cell[f]] + keys[entity]]
                    cache[shown, f] = _value(counted, cells.aggregate[f], rates, logs)
        for f in range(cells.column.size):
            if cells.entity[cells.cell[f]] != 4:
                out[row, k, cells.column[f]] = cache[shown, f]
    for f in range(cells.column.size):
        if cells.entity[cells.cell[f]] == 4:
            counted = counts[cells.base[cells.cell[f]] + placement]
            value = _value(counted, cells.aggregate[f], rates, logs)
            for k in range(ad.shape[1]):
                if ad[row, k] >= 0:
                    out[row, k, cells.column[f]] = value


@kernel
def item_pass(
    order: Longs,
    hour: Ints,
    ad: Ints,
    placement: Ints,
    log_hour: Ints,
    log_rows: Longs,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """Item-side columns of `out` (n, K, F) for rows visited in `order`: by hour.

    The log (item_rows.py) is ordered by hour; a row sees the closed hours before its own.
    """
    windows = cells.days.size
    counts = np.zeros((cells.base[-1], _ROLLING_COUNTS), np.int64)
    cache = np.zeros((attributes.shape[0], cells.column.size), np.float32)
    stamp, keys = np.full(attributes.shape[0], -1, np.int64), np.zeros(5, np.int64)
    if order.size == 0 or windows == 0:
        return
    # What left the longest window before the first row need not enter any.
    high, first = 0, low_hour(hour[order[0]], cells.days[-1])
    while high < log_hour.size and log_hour[high] < first:
        high += 1
    lows = np.full(windows, high, np.int64)
    for row in order:
        now = hour[row]
        while high < log_hour.size and log_hour[high] < now:
            _item_keys(log_rows[high, 0], log_rows[high, 1], attributes, keys)
            for c in range(cells.entity.size):
                _roll(counts, cells.base[c] + keys[cells.entity[c]], log_rows, high, ENTERS)
            high += 1
        for w in range(windows):
            first = low_hour(now, cells.days[w])
            at = lows[w]
            while at < high and log_hour[at] < first:
                _item_keys(log_rows[at, 0], log_rows[at, 1], attributes, keys)
                for c in range(cells.of_window[w], cells.of_window[w + 1]):
                    _roll(counts, cells.base[c] + keys[cells.entity[c]], log_rows, at, LEAVES)
                at += 1
            lows[w] = at
        _fill_item(
            row, ad, int(placement[row]), counts, attributes, cells, rates, logs, now, stamp, cache,
            keys, out,
        )  # fmt: skip


@kernel
def _slot(code: int, codes: Longs, slots: Ints) -> int:
    """Where a code is, or the empty slot where it belongs."""
    # Codes are small numbers in a row, so they are spread by the golden ratio (Knuth) first.
    mask = np.uint64(slots.size - 1)
    mixed = np.uint64(code) * np.uint64(0x9E3779B97F4A7C15)
    at = (mixed ^ (mixed >> np.uint64(32))) & mask
    while slots[at] >= 0 and codes[slots[at]] != code:
        at = (at + np.uint64(1)) & mask
    return at  # type: ignore[return-value]


@kernel
def item_upsert(
    code: Longs, kind: Kinds, revenue: Longs, slots: Ints, codes: Longs, counts: Longs, used: int
) -> int:
    """Count rows (m,) by their code in the first `used` rows of `counts`; how many are used then.

    Open-addressing `slots` hold rows; there is room for every code to be new.
    """
    for row in range(code.size):
        at = _slot(code[row], codes, slots)
        if slots[at] < 0:
            slots[at] = used
            codes[used] = code[row]
            counts[used] = 0
            used += 1
        # Rows only enter here, so a sum of money may stop at the largest one; `_roll` may not.
        _add_item(counts, slots[at], kind[row])
        counts[slots[at], 3] = _sum(counts[slots[at], 3], revenue[row])
    return used


@kernel
def item_seat(codes: Longs, used: int, slots: Ints) -> None:
    """Put the first `used` codes into empty slots."""
    for row in range(used):
        slots[_slot(codes[row], codes, slots)] = row


@kernel
def _add_item(counts: Longs, row: int, kind: int) -> None:
    counts[row, 0] += kind <= CLICKED_IMPRESSION
    counts[row, 1] += kind == CLICKED_IMPRESSION or kind == CLICK  # noqa: PLR1714
    counts[row, 2] += kind == CONVERSION


@kernel
def item_gather(
    hour: Ints,
    ad: Ints,
    placement: Ints,
    pairs: Longs,
    of_hour: Longs,
    first_hour: int,
    ad_values: Singles,
    placement_values: Singles,
    placements: int,
    cells: Cells,
    out: Singles,
) -> None:
    """Item-side columns of `out` (n, F) of logged impressions (n,), from values made once.

    `pairs` (m,) are the ads asked for in each hour, sorted; those of hour h are rows
    of_hour[h - first_hour] to of_hour[h - first_hour + 1]. `ad_values` (m, features) and
    `placement_values` (hours x placements, features) have the columns of `cells` in its order.
    """
    # Told apart once: which table a feature is in does not depend on the row.
    of_ad = np.array([f for f in range(cells.column.size) if cells.entity[cells.cell[f]] != 4])
    of_place = np.array([f for f in range(cells.column.size) if cells.entity[cells.cell[f]] == 4])
    for row in range(hour.size):
        # The ad's place among those asked for in its hour, by bisection: it is there.
        h = hour[row] - first_hour
        low, high = of_hour[h], of_hour[h + 1]
        while low + 1 < high:
            middle = (low + high) // 2
            if pairs[middle] <= ad[row]:
                low = middle
            else:
                high = middle
        at = h * placements + placement[row]
        for f in of_ad:
            out[row, cells.column[f]] = ad_values[low, f]
        for f in of_place:
            out[row, cells.column[f]] = placement_values[at, f]


@kernel
def item_states_pass(
    ad: Ints,
    placement: Ints,
    counts: Longs,
    attributes: Ints,
    cells: Cells,
    rates: NDArray[np.float64],
    logs: Singles,
    out: Singles,
) -> None:
    """Item-side columns of `out` (B, K, F) from one hour's counts."""
    cache = np.zeros((attributes.shape[0], cells.column.size), np.float32)
    stamp, keys = np.full(attributes.shape[0], -1, np.int64), np.zeros(5, np.int64)
    for row in range(ad.shape[0]):
        _fill_item(
            row, ad, int(placement[row]), counts, attributes, cells, rates, logs, 0, stamp, cache,
            keys, out,
        )  # fmt: skip


@kernel
def item_counts(
    counts: Longs, windows: NDArray[np.bool_], rows: Longs, attributes: Ints, cells: Cells
) -> None:
    """Add rows (m, 6) of ad, placement and spec's item counts to the cells of some windows."""
    keys = np.zeros(5, np.int64)
    for row in range(rows.shape[0]):
        _item_keys(rows[row, 0], rows[row, 1], attributes, keys)
        for w in range(windows.size):
            if windows[w]:
                for c in range(cells.of_window[w], cells.of_window[w + 1]):
                    key = cells.base[c] + keys[cells.entity[c]]
                    for kind in range(ITEM_COUNTS - 1):
                        counts[key, kind] += rows[row, 2 + kind]
                    counts[key, 3] = _sum(counts[key, 3], rows[row, 5])


@kernel
def _log1p(value: float) -> np.float32:
    return np.float32(math.log1p(value))


@kernel
def value_pass(
    time: Longs,
    last_time: Longs,
    ad: Ints,
    price: Longs,
    bid: Longs,
    cap_hours: float,
    column: int,
    out: Singles,
) -> None:
    """The last three columns of `out`, from `column`: price, bid and recency.

    `last_time` (n,) is the event_time of the last behaviour known, or -1.
    """
    for row in range(time.size):
        t = time[row]
        elapsed = cap_hours
        if last_time[row] >= 0:
            # A behaviour may be stamped later than the request before which it was known: clocks
            # differ.
            elapsed = max(min((t - last_time[row]) / 3.6e9, cap_hours), 0.0)
        recency = _log1p(elapsed)
        for k in range(ad.shape[1]):
            if ad[row, k] < 0:
                continue
            # Requests in a row often have the catalogue's same prices: a logarithm saved.
            same = row > 0 and ad[row - 1, k] >= 0
            if same and price[row, k] == price[row - 1, k] and bid[row, k] == bid[row - 1, k]:
                out[row, k, column] = out[row - 1, k, column]
                out[row, k, column + 1] = out[row - 1, k, column + 1]
            else:
                out[row, k, column] = _log1p(price[row, k] / 1e6)
                out[row, k, column + 1] = _log1p(bid[row, k] / 1e6)
            out[row, k, column + 2] = recency
