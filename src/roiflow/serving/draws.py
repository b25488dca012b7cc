"""The chance in a slate, with an address: the package, the request's id and the ad.

A retry gets the slate that it missed, and any served slate can be made again from the log. The
numbers are counter-based, as Philox is (Salmon et al., 2011), by the finaliser of SplitMix64
(Steele, Lea & Flood, 2014): a batch of requests is one pass, where a generator for each would take
as long as their slates. The ad counts by its index and not by its rank or its place in the
catalogue, so that features which changed a little before the retry move little, and a new ad none
but its own.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from roiflow.features.table import Floats

Seeds = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIXES = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


def seeds(digest: str, request_ids: Sequence[str]) -> Seeds:
    """64 bits of each of B requests to the package of a digest (64 hexadecimal digits)."""
    # The key is set up once, and every request goes on from a copy.
    start = blake2b(key=bytes.fromhex(digest), digest_size=8)

    def of(request: str) -> bytes:
        own = start.copy()
        own.update(request.encode())
        return own.digest()

    # Little-endian by name: the same draw on any processor.
    return np.frombuffer(b"".join(map(of, request_ids)), "<u8").astype(np.uint64)


def uniform(seed: Seeds, ad: NDArray[np.integer]) -> Floats:
    """Uniform in (0, 1) (B, K) for requests (B,) and indices of ads (B, K)."""
    # One counter a pair: a Weyl sequence from the request's seed, so that equal requests with other
    # candidates keep the noise of those they share.
    bits = seed[:, None] + (ad.astype(np.uint64) + np.uint64(1)) * _GAMMA
    for shift, factor in _MIXES:
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    # 52 bits and a half one: never 0 nor 1, where the logarithms of Gumbel noise end.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def gumbel(seed: Seeds, ad: NDArray[np.integer]) -> Floats:
    """Standard Gumbel noise (B, K) for requests (B,) and indices of ads (B, K)."""
    noise: Floats = -np.log(-np.log(uniform(seed, ad)))
    return noise
