"""The online store's binary values, as 32-bit words in little-endian order.

A user's value: a header (LAYOUT, user index, profile attributes P, behaviours n, buckets m), P
profile words, n behaviours of 5 words (ad, category, action, event_time low and high), oldest
first, and m buckets of 6 words (day, ad, category, then impressions and clicks, conversions and
behaviours, intents, two 16-bit counts a word); so a value has 20 + 4 P + 20 n + 24 m bytes.

A bucket is what one user did with one ad in one day of known_time.
"""

# ruff: noqa: C901 - compiled passes take arrays, many of them, by position.

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from roiflow.features.kernels import USER_ADDS, USER_COUNTS, Kinds, kernel
from roiflow.features.table import Ints, Longs

LAYOUT = 3
HEADER, BEHAVIOUR_WORDS, BUCKET_WORDS = 5, 5, 6
MAX_COUNT = 0xFFFF
"""A larger count of one bucket stays there."""

_LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class UserStates:
    """What is known of B users at a request."""

    user: Ints  # (B,) dense index, 0 where unknown
    profile: Ints  # (B, profile attributes)
    history_ad: Ints  # (B, L) the most recent behaviour is LAST; 0 before the first
    history_category: Ints  # (B, L)
    history_action: Ints  # (B, L)
    history_time: Longs  # (B, L) event_time, microseconds
    history_length: Ints  # (B,) behaviours that are there, at most L
    bucket_offsets: Longs  # (B + 1,) user b's buckets are rows offsets[b] to offsets[b + 1]
    bucket_day: Ints  # (m,) days since the epoch, UTC, of known_time
    bucket_ad: Ints  # (m,)
    bucket_category: Ints  # (m,)
    bucket_counts: Ints  # (m, 5) columns spec.COUNTS
    as_of: int = -1
    """The newest known_time that the store had taken in, microseconds; -1 where it has none."""
    degraded: bool = False
    """The store could not be reached or was empty: these are the values of users never seen."""


@dataclass(frozen=True)
class NewRows:
    """New behaviours and counted rows of B users, CSR by user, ordered by known_time."""

    behaviour_offsets: Longs  # (B + 1,)
    ad: Ints  # (n,)
    category: Ints  # (n,)
    action: Ints  # (n,)
    event_time: Longs  # (n,)
    counted_offsets: Longs  # (B + 1,)
    counted_day: Ints  # (m,)
    counted_ad: Ints  # (m,)
    counted_category: Ints  # (m,)
    counted_kind: Kinds  # (m,)


@kernel
def _unpack(
    words: Ints,
    starts: Longs,
    profile: Ints,
    user: Ints,
    ad: Ints,
    category: Ints,
    action: Ints,
    time: Longs,
    length: Ints,
    offsets: Longs,
    day: Ints,
    bucket_ad: Ints,
    bucket_category: Ints,
    counts: Ints,
) -> None:
    # Values of all users lie one after the other in one array of words, so that a request of many
    # users is one pass and no object per user. The loops are compiled: in numpy each of the three
    # parts, of other lengths for every user, would be a gather of its own.
    capacity, at = ad.shape[1], 0
    for b in range(user.size):
        offsets[b] = at
        word = starts[b]
        if word == starts[b + 1]:
            continue
        user[b] = words[word + 1]
        attributes, behaviours, buckets = words[word + 2], words[word + 3], words[word + 4]
        word += HEADER
        for p in range(min(attributes, profile.shape[1])):
            profile[b, p] = words[word + p]
        word += attributes
        kept = min(behaviours, capacity)
        length[b] = kept
        # A store keeps more behaviours than a model reads: the newest ones, right-aligned, so that
        # the last column is the last behaviour whatever the length.
        source = word + (behaviours - kept) * BEHAVIOUR_WORDS
        for slot in range(capacity - kept, capacity):
            ad[b, slot] = words[source]
            category[b, slot] = words[source + 1]
            action[b, slot] = words[source + 2]
            # 64 bits in two signed words: without the mask the low one's sign would fill the high
            # one.
            time[b, slot] = (np.int64(words[source + 4]) << 32) | (
                np.int64(words[source + 3]) & _LOW
            )
            source += BEHAVIOUR_WORDS
        word += behaviours * BEHAVIOUR_WORDS
        for _ in range(buckets):
            day[at] = words[word]
            bucket_ad[at] = words[word + 1]
            bucket_category[at] = words[word + 2]
            for column in range(USER_COUNTS):
                counts[at, column] = _count(words, word, column)
            word += BUCKET_WORDS
            at += 1
    offsets[user.size] = at


@kernel
def _count(words: Ints, bucket: int, column: int) -> int:
    # Two counts a word: a bucket has then 24 bytes instead of 32, and buckets are most of a user's
    # value. What one user does with one ad in a day does not reach 65,535 but by a
    # fault.
    shifted = np.int64(words[bucket + 3 + column // 2]) >> (16 * (column % 2))
    return shifted & MAX_COUNT  # type: ignore[return-value]


@kernel
def _raise(words: Ints, bucket: int, column: int, by: int) -> None:
    word = bucket + 3 + column // 2
    count = min(_count(words, bucket, column) + by, MAX_COUNT)
    shift = 16 * (column % 2)
    bits = (np.int64(words[word]) & (_LOW ^ (MAX_COUNT << shift))) | (np.int64(count) << shift)
    words[word] = np.int32(bits - (1 << 32) if bits >= (1 << 31) else bits)


@kernel
def _add_kind(words: Ints, bucket: int, kind: int) -> None:
    for column in range(USER_COUNTS):
        _raise(words, bucket, column, int(USER_ADDS[kind, column]))


@kernel
def _bucket(out: Ints, start: int, at: int, day: int, ad: int, category: int) -> tuple[int, int]:
    """Place of the bucket for a day, an ad and a category, and one past the last bucket."""
    # Buckets are in order of time and new rows come last, so one of this day can only be among the
    # last ones. A table of hashes would be more to fill than the few that there are to look at.
    found = at - BUCKET_WORDS
    while found >= start and out[found] == day:
        if out[found + 1] == ad and out[found + 2] == category:
            return found, at
        found -= BUCKET_WORDS
    out[at], out[at + 1], out[at + 2] = day, ad, category
    out[at + 3], out[at + 4], out[at + 5] = 0, 0, 0
    return at, at + BUCKET_WORDS


@kernel
def _merge(
    words: Ints,
    starts: Longs,
    user: Ints,
    profile: Ints,
    behaviour_offsets: Longs,
    ad: Ints,
    category: Ints,
    action: Ints,
    event_time: Longs,
    counted_offsets: Longs,
    counted_day: Ints,
    counted_ad: Ints,
    counted_category: Ints,
    counted_kind: Kinds,
    capacity: int,
    first_day: int,
    out: Ints,
    ends: Longs,
) -> None:
    at, attributes = 0, profile.shape[1]
    for b in range(user.size):
        head, old = at, starts[b]
        behaviours, buckets = 0, 0
        out[head] = LAYOUT
        out[head + 1] = user[b]
        out[head + 2] = attributes
        at += HEADER
        for p in range(attributes):
            out[at + p] = profile[b, p]
        at += attributes
        if old < starts[b + 1]:
            behaviours, buckets = words[old + 3], words[old + 4]
            old += HEADER + words[old + 2]
        # Old behaviours, then new ones, and of both the last `capacity`: copied word by word, since
        # a value is written anew anyway and the old one stays what a reader has.
        first, last = behaviour_offsets[b], behaviour_offsets[b + 1]
        kept = min(behaviours + last - first, capacity)
        fresh = min(last - first, kept)
        carried = kept - fresh
        source = old + (behaviours - carried) * BEHAVIOUR_WORDS
        for word in range(carried * BEHAVIOUR_WORDS):
            out[at + word] = words[source + word]
        at += carried * BEHAVIOUR_WORDS
        for row in range(last - fresh, last):
            out[at] = ad[row]
            out[at + 1] = category[row]
            out[at + 2] = action[row]
            low = event_time[row] & _LOW
            out[at + 3] = np.int32(low - (1 << 32) if low >= (1 << 31) else low)
            out[at + 4] = np.int32(event_time[row] >> 32)
            at += BEHAVIOUR_WORDS
        out[head + 3] = kept
        old += behaviours * BEHAVIOUR_WORDS
        start = at
        # Those before `first_day` are in no window and are left behind.
        for bucket in range(old, old + buckets * BUCKET_WORDS, BUCKET_WORDS):
            if words[bucket] >= first_day:
                for word in range(BUCKET_WORDS):
                    out[at + word] = words[bucket + word]
                at += BUCKET_WORDS
        for row in range(counted_offsets[b], counted_offsets[b + 1]):
            if counted_day[row] >= first_day:
                found, at = _bucket(
                    out, start, at, counted_day[row], counted_ad[row], counted_category[row]
                )
                _add_kind(out, found, counted_kind[row])
        out[head + 4] = (at - start) // BUCKET_WORDS
        ends[b] = at


def _join(values: list[bytes | None]) -> tuple[Ints, Longs]:
    if not any(values):
        return np.empty(0, np.int32), np.zeros(len(values) + 1, np.int64)
    sizes = np.fromiter((len(value or b"") for value in values), np.int64, len(values))
    words = np.frombuffer(b"".join(value or b"" for value in values), "<i4")
    return words, np.concatenate([[0], np.cumsum(sizes // 4)])


def other_layout(values: list[bytes | None]) -> int | None:
    """The layout of the first value that is not of LAYOUT, if there is one."""
    expected = np.int32(LAYOUT).tobytes()
    for value in values:
        if value is not None and value[:4] != expected:
            return int.from_bytes(value[:4], "little", signed=True)
    return None


def unpack(
    values: list[bytes | None],
    history: int,
    attributes: int,
    *,
    as_of: int = -1,
    degraded: bool = False,
) -> UserStates:
    """Values of B users, None for a user without one -> their states, histories of `history`."""
    words, starts = _join(values)
    headed = starts[:-1][starts[1:] > starts[:-1]]
    buckets = int(words[headed + 4].sum()) if headed.size else 0
    shape = (len(values), history)
    states = UserStates(
        user=np.zeros(shape[0], np.int32),
        profile=np.zeros((shape[0], attributes), np.int32),
        history_ad=np.zeros(shape, np.int32),
        history_category=np.zeros(shape, np.int32),
        history_action=np.zeros(shape, np.int32),
        history_time=np.zeros(shape, np.int64),
        history_length=np.zeros(shape[0], np.int32),
        bucket_offsets=np.zeros(shape[0] + 1, np.int64),
        bucket_day=np.empty(buckets, np.int32),
        bucket_ad=np.empty(buckets, np.int32),
        bucket_category=np.empty(buckets, np.int32),
        bucket_counts=np.empty((buckets, USER_COUNTS), np.int32),
        as_of=as_of,
        degraded=degraded,
    )
    _unpack(
        words, starts, states.profile, states.user, states.history_ad, states.history_category,
        states.history_action, states.history_time, states.history_length, states.bucket_offsets,
        states.bucket_day, states.bucket_ad, states.bucket_category, states.bucket_counts,
    )  # fmt: skip
    return states


def merge(
    values: list[bytes | None],
    user: Ints,
    profile: Ints,
    new: NewRows,
    *,
    capacity: int,
    today: int,
    max_days: int,
) -> list[bytes]:
    """Values of B users and what is new -> their values, with `capacity` behaviours at most.

    user (B,) and profile (B, P) replace what was there. `today` is the newest day of known_time;
    buckets more than `max_days` before it are dropped.
    """
    words, starts = _join(values)
    attributes, first_day = profile.shape[1], today - max_days
    # At most so many words: nothing in a merge makes two of one. It is cheaper than counting first.
    room = (
        words.size
        + user.size * (HEADER + attributes)
        + new.ad.size * BEHAVIOUR_WORDS
        + new.counted_ad.size * BUCKET_WORDS
    )
    out, ends = np.empty(room, np.int32), np.empty(user.size, np.int64)
    _merge(
        words, starts, user, profile, new.behaviour_offsets, new.ad, new.category, new.action,
        new.event_time, new.counted_offsets, new.counted_day, new.counted_ad, new.counted_category,
        new.counted_kind, capacity, first_day, out, ends,
    )  # fmt: skip
    packed = out.astype("<i4", copy=False).tobytes()
    bounds: list[int] = [0, *(4 * ends).tolist()]
    return [packed[start:end] for start, end in pairwise(bounds)]
