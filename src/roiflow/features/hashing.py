"""Ids by their 64-bit hashes: the same numbers on every machine, found in constant time."""

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from roiflow.features.table import Ints, Longs

Hashes = NDArray[np.uint64]


@njit(cache=True, nogil=True)
def _fnv1a(offsets: Ints, content: NDArray[np.uint8]) -> Hashes:
    """Fowler-Noll-Vo hash, 64 bits, with a final mix."""
    hashes = np.empty(offsets.size - 1, np.uint64)
    for row in range(hashes.size):
        value = np.uint64(14695981039346656037)
        for at in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(content[at])) * np.uint64(1099511628211)
        hashes[row] = value ^ (value >> np.uint64(29))
    return hashes


def hash_ids(column: pa.Array | pa.ChunkedArray) -> Longs:
    """Strings (n,) -> 64-bit hashes (n,); those of nulls mean nothing."""
    parts = [np.empty(0, np.uint64)]
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        _, positions, content = chunk.buffers()
        offsets = np.frombuffer(positions or bytes(4), np.int32)
        here = offsets[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(_fnv1a(here, np.frombuffer(content or b"", np.uint8)))
    return np.concatenate(parts).view(np.int64)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
        size = 1 << max(4, int(2 * len(ids)).bit_length())
        self._slots = np.full(size, -1, np.int32)
        twice = _fill(self._hashes, self._slots)
        if twice:
            raise ValueError(f"{twice} of {len(ids)} ids have the hash of another one")

    def find(self, ids: pa.Array | pa.ChunkedArray) -> Ints:
        """Ids (n,) -> rows (n,), -1 where there is none or the id is null."""
        found = _find(self._hashes, self._slots, hash_ids(ids).view(np.uint64))
        if ids.null_count:
            found[ids.is_null().to_numpy(zero_copy_only=False)] = -1
        return found
