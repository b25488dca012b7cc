"""Which arm a user is in: the edge's own hash, for many users at once.

nginx's `split_clients` takes MurmurHash2 (Appleby, 2008; 32 bits, seed 0) of salt and user id and
cuts it into ranges, in hundredths of a percent. The canary holds the lowest range: while it grows,
a user moves into it once and never back.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Words = NDArray[np.uint32]

SALT = "ad-ranker:"
"""Precedes the user id in the hash; another experiment takes another."""

LARGEST = 2**32 - 1
"""Of the hash."""

_MULTIPLIER = np.uint32(0x5BD1E995)


def salt_of(week: str) -> str:
    """The salt of a week's trial: who saw last week's challenger says nothing of who sees this."""
    return f"{SALT}{week}:"


def uniform(users: Sequence[str], salt: str) -> Floats:
    """The users' places (n,) in [0, 1): the canary of share s is whoever is under s."""
    return murmur2([f"{salt}{user}".encode() for user in users]) / float(LARGEST + 1)


def in_canary(users: Sequence[str], salt: str, share: float | Floats) -> Flags:
    """(n,) whether the edge sends a user to the canary, where it has `share` of the users.

    `share` is one number or, where it changed meanwhile, one of each user's request (n,).
    """
    hashed = murmur2([f"{salt}{user}".encode() for user in users])
    found: Flags = (hashed < edge_of(share)) | (np.asarray(share) >= 1.0)
    return found


def edge_of(share: float | Floats) -> NDArray[np.int64]:
    """The hash under which a user is in the canary: nginx's own whole-number arithmetic."""
    hundredths = np.rint(np.asarray(share, np.float64) * 10_000).astype(np.int64)
    found: NDArray[np.int64] = hundredths * LARGEST // 10_000
    return found


def murmur2(keys: Sequence[bytes]) -> Words:
    """MurmurHash2 with seed 0 of keys (n,), 0 to 2^32 - 1."""
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    hashed = np.zeros(len(keys), np.uint32)
    # Keys of one length are one matrix of bytes, and the hash goes over its columns: ids have few
    # lengths, and a loop over users in Python would take longer than their slates.
    for length in np.unique(lengths).tolist():
        at = np.flatnonzero(lengths == length)
        text = b"".join(keys[one] for one in at.tolist())
        hashed[at] = _of_one_length(np.frombuffer(text, np.uint8).reshape(at.size, length))
    return hashed


def _of_one_length(text: NDArray[np.uint8]) -> Words:
    """Hashes (n,) of keys (n, length)."""
    length = text.shape[1]
    whole = length // 4 * 4
    words = np.ascontiguousarray(text[:, :whole]).view("<u4").astype(np.uint32)
    value = np.full(text.shape[0], length, np.uint32)
    # 32-bit products wrap around, as the hash wants them to.
    for word in words.T:
        mixed = word * _MULTIPLIER
        mixed = (mixed ^ mixed >> np.uint32(24)) * _MULTIPLIER
        value = value * _MULTIPLIER ^ mixed
    if whole < length:
        rest = np.zeros((text.shape[0], 4), np.uint8)
        rest[:, : length - whole] = text[:, whole:]
        value = (value ^ rest.view("<u4")[:, 0].astype(np.uint32)) * _MULTIPLIER
    value = (value ^ value >> np.uint32(13)) * _MULTIPLIER
    return value ^ value >> np.uint32(15)
