"""User-sequence batches: each user's events once, with every impression that looks into them.

A segment is a stretch of one user's events with the impressions whose newest known event lies in
it; an impression sees its own window of the last H events of the segment's memory. Segments are
cut every CHUNK events and every `cap` impressions, and hold as many earlier events as the layers
reach back, so what an impression sees is exact. `cap` 1 is the padded one-row-per-impression
layout.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.features.table import Features, Flags, Longs, Singles
from roiflow.ranking.serving_form import MICROS_PER_TICK, TICKS_PER_HOUR, Sizes, known

CHUNK = 128
"""Events: a segment carries `reach` more of context, so much shorter ones encode mostly context."""
POOL = 16
"""Batches whose segments are sorted together: padding is spared within a pool, chance between."""
OCTAVE_PARTS = 4
"""Numbers of impressions within a factor of 2^(1/4) count as alike, so that a seventh of a batch is
padding and not a third; length, which costs less, decides among those."""


@dataclass(frozen=True)
class Batch:
    """R segments of at most T events and I impressions, right-aligned and left-aligned."""

    ad: Longs  # (R, T)
    category: Longs  # (R, T)
    action: Longs  # (R, T)
    hours: Singles  # (R, T) from the event to the newest event of the segment
    length: Longs  # (R,)
    user: Longs  # (R,)
    profile: Longs  # (R, P)
    context: Longs  # (R, I, 4)
    elapsed: Singles  # (R, I, T) hours from the event to the impression
    window: Flags  # (R, I, T) the events the impression sees
    candidate: Longs  # (R, I)
    attributes: Longs  # (R, I, 5)
    dense: Singles  # (R, I, F)
    row: Longs  # (R, I) row in Impressions, -1 where padded


@dataclass(frozen=True)
class Segments:
    """Which events and impressions each segment holds."""

    start: Longs  # (S,) first row in Events
    end: Longs  # (S,) one past the last
    first: Longs  # (S,) first entry in `rows`
    count: Longs  # (S,)
    rows: Longs  # (n,) rows in Impressions, by user and history_end


def cut(features: Features, rows: Longs, reach: int, cap: int) -> Segments:
    """Cut the impressions `rows` (n,) into segments; `reach`: events back from an H-window."""
    log, offsets = features.impressions, features.events.offsets
    user, last = log.user[rows], log.history_end[rows]
    # By user and by how far an impression sees: each segment is then one run of rows and needs one
    # run of events, from where its first impression's window begins to where its last one's ends.
    order = np.lexsort((last, user))
    rows, user, last = rows[order], user[order], last[order]
    chunk = np.maximum(last - offsets[user] - 1, 0) // CHUNK
    new = np.ones(rows.size, np.bool_)
    new[1:] = (np.diff(user) != 0) | (np.diff(chunk) != 0)
    begin = np.flatnonzero(new)
    # A chunk that many impressions look into is cut again: a batch is to hold many users.
    rank = np.arange(rows.size) - begin[np.cumsum(new) - 1]
    first = np.flatnonzero(rank % cap == 0)
    count = np.diff(np.append(first, rows.size))
    start = np.maximum(offsets[user[first]], log.history_start[rows[first]] - reach)
    return Segments(start, last[first + count - 1], first, count, rows)


def schedule(segments: Segments, batch_tokens: int, rng: np.random.Generator | None) -> list[Longs]:
    """Segment numbers by batch: segments x (longest + most impressions) <= batch_tokens.

    Similar sizes go together, within pools of POOL batches where `rng` shuffles (training), over
    all segments where it is None.
    """
    length, count = segments.end - segments.start, segments.count
    number = np.arange(count.size) if rng is None else rng.permutation(count.size)
    size = length + count
    pool = np.cumsum(size[number]) // (POOL * batch_tokens)
    pool = pool if rng is not None else np.zeros_like(pool)
    alike = (OCTAVE_PARTS * np.log2(count[number])).astype(int)
    number = number[np.lexsort((length[number], alike, pool))]
    batches, begin, longest, most = [], 0, 0, 0
    for at, (events, impressions) in enumerate(
        zip(length[number].tolist(), count[number].tolist(), strict=True)
    ):
        longest, most = max(longest, events), max(most, impressions)
        # At least one: a segment above the limit is a batch by itself.
        if at > begin and (at + 1 - begin) * (longest + most) > batch_tokens:
            batches.append(number[begin:at])
            begin, longest, most = at, events, impressions
    batches.append(number[begin:])
    return [batches[i] for i in rng.permutation(len(batches))] if rng is not None else batches


def pack(features: Features, segments: Segments, chosen: Longs, sizes: Sizes) -> Batch:
    """Lay out the segments `chosen` (R,) as one batch."""
    log, events = features.impressions, features.events
    start, end = segments.start[chosen], segments.end[chosen]
    length, count = end - start, segments.count[chosen]
    width = max(int(length.max()), 1)
    # Right-aligned, as in the serving form, so that the newest event is in the last column of all.
    column = end[:, None] - width + np.arange(width)
    filled = column >= start[:, None]
    # Row 0 exists, and what is read there is put to 0 again.
    column = np.where(filled, column, 0)

    slot = np.arange(int(count.max()))
    present = slot < count[:, None]
    row = np.where(
        present, segments.rows[np.where(present, segments.first[chosen][:, None] + slot, 0)], -1
    )
    # Padding repeats the segment's first impression: real values, which no weight counts.
    safe = np.where(present, row, row[:, :1])

    def take(values: NDArray[np.generic], size: int) -> Longs:
        return np.where(filled, known(values[column], size), 0) if values.size else column * 0

    newest = (
        np.where(length > 0, events.event_time[np.maximum(end - 1, 0)], 0)
        if events.event_time.size
        else end * 0
    )
    ticks = (newest // MICROS_PER_TICK)[:, None]
    age = (
        np.where(filled, ticks - (events.event_time[column] // MICROS_PER_TICK), 0)
        if events.event_time.size
        else column * 0
    )
    # Ages are differences of whole ticks against the newest event, which float32 holds exactly: the
    # same gap is the same number here and in serving, whatever it is measured from.
    since = np.where(length[:, None] > 0, log.event_time[safe] // MICROS_PER_TICK - ticks, 0)
    hours = (age / TICKS_PER_HOUR).astype(np.float32)
    elapsed = (since / TICKS_PER_HOUR).astype(np.float32)[:, :, None] + hours[:, None, :]
    place = (end[:, None] - width)[:, None] + np.arange(width)[None, None, :]
    window = (place >= log.history_start[safe][:, :, None]) & (
        place < log.history_end[safe][:, :, None]
    )
    user = log.user[safe[:, 0]]
    candidate = log.ad[safe]
    return Batch(
        take(events.ad, sizes.ad),
        take(events.category, sizes.category),
        take(events.action, sizes.action),
        hours,
        length,
        known(user, sizes.user),
        known(features.profile[user], sizes.profile),
        known(log.context[safe], sizes.context),
        np.where(window, elapsed, np.float32(0)),
        window,
        known(candidate, sizes.ad),
        known(features.attributes[candidate], sizes.attributes),
        log.dense[safe],
        row,
    )


def batches(
    features: Features,
    segments: Segments,
    sizes: Sizes,
    batch_tokens: int,
    rng: np.random.Generator | None = None,
) -> Iterator[Batch]:
    """All segments, batch by batch; shuffled where `rng` is given."""
    for chosen in schedule(segments, batch_tokens, rng):
        yield pack(features, segments, chosen, sizes)
