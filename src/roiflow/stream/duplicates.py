"""Which events were there before: 64-bit hashes of their ids, in a compiled open-addressing set.

Among n ids two share a hash with probability n^2 / 2^65: 3e-4 for a hundred million. Ids are kept
by the hour of their event, for as long as an event of that hour is still taken.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.compiled import compiled
from roiflow.data.events import EVENT, KIND, KINDS
from roiflow.data.weeks import MICROS_PER_HOUR

Keys = NDArray[np.uint64]
Hours = NDArray[np.int32]

_SMALLEST = 1 << 16


# FNV-1a takes a byte at a time, and the ids are short; the final mix spreads it to the low bits, by
# which the table is addressed. Compiled over Arrow's own buffers: a hash of a wheel (mmh3, xxhash)
# takes one Python string a call.
@compiled()
def _hash(offsets: NDArray[np.int32], content: NDArray[np.uint8], seed: Keys) -> Keys:
    """Fowler-Noll-Vo hash from a seed for each row, then murmur3's final mix; never 0."""
    keys = np.empty(seed.size, np.uint64)
    for row in range(seed.size):
        value = np.uint64(14695981039346656037) ^ seed[row]
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(content[at])) * np.uint64(1099511628211)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        value ^= value >> np.uint64(33)
        keys[row] = max(value, np.uint64(1))
    return keys


@compiled()
def _find(table: Keys, keys: Keys) -> NDArray[np.bool_]:
    # Open addressing, the next free place: one array, no object per id as in a Python set, which
    # takes several times the memory. The table is at most half full, so a search looks at two
    # places or so.
    mask = np.uint64(table.size - 1)
    there = np.zeros(keys.size, np.bool_)
    for row in range(keys.size):
        at = keys[row] & mask
        while table[at] != 0 and table[at] != keys[row]:
            at = (at + np.uint64(1)) & mask
        there[row] = table[at] != 0
    return there


@compiled()
def _insert(table: Keys, table_hours: Hours, keys: Keys, hours: Hours) -> int:
    mask = np.uint64(table.size - 1)
    added = 0
    for row in range(keys.size):
        at = keys[row] & mask
        while table[at] != 0 and table[at] != keys[row]:
            at = (at + np.uint64(1)) & mask
        added += table[at] == 0
        table[at] = keys[row]
        table_hours[at] = max(table_hours[at], hours[row])
    return added


def keys_of(events: pa.Table) -> Keys:
    """Events (n,) -> hashes of kind and id (n,)."""
    ids = events[EVENT].combine_chunks()
    if isinstance(ids, pa.ChunkedArray):
        ids = pa.concat_arrays(ids.chunks) if ids.num_chunks else pa.array([], pa.string())
    if not len(ids):
        return np.empty(0, np.uint64)
    _, positions, content = ids.buffers()
    offsets = np.frombuffer(positions, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    kind = pc.index_in(events[KIND], value_set=pa.array(KINDS)).to_numpy()
    return _hash(offsets, np.frombuffer(content or b"", np.uint8), kind.astype(np.uint64) << 56)


def hours_of(events: pa.Table) -> Hours:
    """Hours since the epoch in which the events happened (n,)."""
    times = events[c.EVENT_TIME].cast(pa.int64()).to_numpy()
    return (times // MICROS_PER_HOUR).astype(np.int32)


class Seen:
    """The ids of taken events."""

    def __init__(self) -> None:
        self._keys = np.zeros(_SMALLEST, np.uint64)
        self._hours = np.zeros(_SMALLEST, np.int32)
        self._count, self._oldest = 0, 0

    def __len__(self) -> int:
        """Ids that are kept, forgotten ones included until the set is made anew."""
        return self._count

    def fresh(self, keys: Keys) -> NDArray[np.bool_]:
        """Which of the keys (n,) are new, the first of equal ones alone."""
        # Twice in one batch is a duplicate too, and the first one counts: order is the order of
        # arrival.
        new = np.zeros(keys.size, np.bool_)
        new[np.unique(keys, return_index=True)[1]] = True
        return new & ~_find(self._keys, keys)

    def add(self, keys: Keys, hours: Hours) -> None:
        """Keep keys (n,) with the hours of their events."""
        if 2 * (self._count + keys.size) > self._keys.size:
            self._make_room(keys.size)
        self._count += _insert(self._keys, self._hours, keys, hours)

    def forget(self, oldest: int) -> None:
        """Events that happened before hour `oldest` will not be asked for again."""
        self._oldest = max(self._oldest, oldest)

    def _make_room(self, more: int) -> None:
        # Nothing can be taken out of open addressing one by one without breaking others' searches;
        # so what is forgotten goes when the table is made anew, as it fills.
        kept = (self._keys != 0) & (self._hours >= self._oldest)
        keys, hours = self._keys[kept], self._hours[kept]
        size = max(_SMALLEST, 1 << int(4 * (keys.size + more)).bit_length())
        self._keys, self._hours = np.zeros(size, np.uint64), np.zeros(size, np.int32)
        self._count = _insert(self._keys, self._hours, keys, hours)
