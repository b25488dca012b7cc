"""Ids by their 64-bit hashes: the same numbers on every machine, found in constant time."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from roiflow.compiled import compiled
from roiflow.features.table import Flags, Ints, Longs

Hashes = NDArray[np.uint64]


@compiled(nogil=True)
def _fnv1a(offsets: Ints, content: NDArray[np.uint8]) -> Hashes:
    """Fowler-Noll-Vo hash, 64 bits, with a final mix."""
    hashes = np.empty(offsets.size - 1, np.uint64)
    for row in range(hashes.size):
        value = np.uint64(14695981039346656037)
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(content[at])) * np.uint64(1099511628211)
        # Multiplication carries upwards only: without the mix the low bits, which choose the slot,
        # would know nothing of the high ones.
        hashes[row] = value ^ (value >> np.uint64(29))
    return hashes


def hash_ids(column: pa.Array | pa.ChunkedArray) -> Longs:
    """Strings (n,) -> 64-bit hashes (n,); those of nulls mean nothing."""
    parts = [np.empty(0, np.uint64)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        # Arrow's own buffers, so that no string becomes an object. A slice shares them and begins
        # at its offset; an empty array may have none.
        _, positions, content = chunk.buffers()
        offsets = np.frombuffer(positions or bytes(4), np.int32)
        here = offsets[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(_fnv1a(here, np.frombuffer(content or b"", np.uint8)))
    # Signed, as it is kept in columns of 64-bit integers; the bits are the same.
    return np.concatenate(parts).view(np.int64)


@compiled(nogil=True)
def _fill(hashes: Hashes, slots: Ints) -> int:
    """Put row numbers into open-addressing slots; rows that have an earlier row's hash."""
    mask, twice = np.uint64(slots.size - 1), 0
    for row in range(hashes.size):
        at = hashes[row] & mask
        while slots[at] >= 0:
            if hashes[slots[at]] == hashes[row]:
                twice += 1
                break
            at = (at + np.uint64(1)) & mask
        else:
            slots[at] = row
    return twice


@compiled(nogil=True)
def _find(hashes: Hashes, slots: Ints, wanted: Hashes) -> Ints:
    found, mask = np.full(wanted.size, -1, np.int32), np.uint64(slots.size - 1)
    for row in range(wanted.size):
        at = wanted[row] & mask
        while slots[at] >= 0:
            if hashes[slots[at]] == wanted[row]:
                found[row] = slots[at]
                break
            at = (at + np.uint64(1)) & mask
    return found


class HashIndex:
    """The rows of distinct ids.

    An id that is not among them is taken for one that is with probability rows / 2^64.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        """Raises ValueError where two ids have one hash: an id is there twice."""
        self._hashes: Hashes = hash_ids(ids).view(np.uint64)
        # Half of the slots stay empty, so a search is short and always ends.
        size = 1 << max(4, int(2 * len(ids)).bit_length())
        self._slots = np.full(size, -1, np.int32)
        twice = _fill(self._hashes, self._slots)
        if twice:
            raise ValueError(f"{twice} of {len(ids)} ids have the hash of another one")

    def find(self, ids: pa.Array | pa.ChunkedArray) -> Ints:
        """Ids (n,) -> rows (n,), -1 where there is none or the id is null."""
        found = _find(self._hashes, self._slots, hash_ids(ids).view(np.uint64))
        # A null was hashed as well, mostly as the empty string, which may be an id.
        if ids.null_count:
            found[ids.is_null().to_numpy(zero_copy_only=False)] = -1
        return found


@compiled(nogil=True)
def _seat(hashes: Hashes, used: int, slots: Ints) -> None:
    """Put the first `used` hashes, all different, into empty slots."""
    mask = np.uint64(slots.size - 1)
    for row in range(used):
        at = hashes[row] & mask
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & mask
        slots[at] = row


@compiled(nogil=True)
def _count(
    wanted: Hashes,
    valid: Flags,
    known: Longs,
    slots: Ints,
    hashes: Hashes,
    counts: Longs,
    firsts: Longs,
    used: int,
) -> Longs:
    """Count ids by hash; rows of `wanted` that brought a new one."""
    mask, new, fresh = np.uint64(slots.size - 1), np.empty(wanted.size, np.int64), 0
    for row in range(wanted.size):
        if not valid[row]:
            continue
        at = wanted[row] & mask
        while slots[at] >= 0 and hashes[slots[at]] != wanted[row]:
            at = (at + np.uint64(1)) & mask
        if slots[at] < 0:
            slots[at] = used
            hashes[used], counts[used], firsts[used] = wanted[row], 0, known[row]
            used += 1
            new[fresh] = row
            fresh += 1
        place = slots[at]
        counts[place] += 1
        firsts[place] = min(firsts[place], known[row])
    return new[:fresh]


class IdCounter:
    """Distinct ids with their number of rows and the time when each was first known."""

    def __init__(self) -> None:
        self._used, self._ids = 0, [pa.array([], pa.string())]
        self._slots = np.full(1 << 10, -1, np.int32)
        self._hashes = np.empty(0, np.uint64)
        self._counts, self._firsts = np.empty((2, 0), np.int64)

    def add(self, ids: pa.ChunkedArray, known_time: Longs) -> None:
        """Ids (n,) of rows that became known at these times (n,); nulls are left out."""
        # Room for every id to be new: the compiled pass cannot let its arrays grow.
        self._make_room(self._used + len(ids))
        valid = ids.is_valid().to_numpy()
        new = _count(
            hash_ids(ids).view(np.uint64), valid, known_time, self._slots, self._hashes,
            self._counts, self._firsts, self._used,
        )  # fmt: skip
        self._used += new.size
        # Strings are kept of new ids only; all others are told by their hash.
        self._ids += ids.take(pa.array(new)).chunks

    def _make_room(self, rows: int) -> None:
        if rows > self._hashes.size:
            # At least doubled, so that copying stays linear in all rows.
            more = max(rows, 2 * self._hashes.size) - self._hashes.size
            self._hashes = np.concatenate([self._hashes, np.empty(more, np.uint64)])
            self._counts = np.concatenate([self._counts, np.empty(more, np.int64)])
            self._firsts = np.concatenate([self._firsts, np.empty(more, np.int64)])
        if 2 * rows > self._slots.size:
            self._slots = np.full(1 << (2 * rows).bit_length(), -1, np.int32)
            _seat(self._hashes, self._used, self._slots)

    def table(self) -> pa.Table:
        """Columns id, known_time (microseconds) and count."""
        counts, firsts = self._counts[: self._used], self._firsts[: self._used]
        ids = pa.chunked_array(self._ids, pa.string())
        return pa.table({"id": ids, "known_time": pa.array(firsts), "count": pa.array(counts)})
