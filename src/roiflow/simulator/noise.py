"""Randomness that has an address, so that chunks, shards and threads cannot change it.

A family of draws is named by seed, purpose and block (a week, a day); one draw of it by a number (a
request and position, a user). Both are functions of the address alone (SplitMix64; Steele, Lea and
Flood, 2014).
"""

from enum import IntEnum
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Longs = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_A, _B, _C, _D = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_BELOW_ONE = 1.0 - 2.0**-53
_TABLE_BITS = 16


class Stream(IntEnum):
    """What a family is for. Numbers are never reused: they are part of every seed."""

    USERS = 1
    ADS = 2
    REQUESTS = 3
    BEHAVIOURS = 4
    LOGGING = 5
    CLICK = 6
    CONVERSION = 7
    DELAY = 8
    REVENUE = 9
    CHOOSER = 10
    POPULARITY = 11
    LOOK = 12
    PRICE = 13
    RETURN = 14
    TENURE = 15
    INTERESTS = 16
    CATEGORIES = 17
    BOTS = 18


def generator(seed: int, stream: Stream, *address: int) -> np.random.Generator:
    """The generator of one block; counter-based (Philox, Salmon et al., 2011)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream, *address])))


@lru_cache(maxsize=4096)
def key(seed: int, stream: Stream, *address: int) -> np.uint64:
    """64 bits that name one family of draws."""
    return np.random.SeedSequence([seed, stream, *address]).generate_state(1, np.uint64)[0]


@compiled(nogil=True, inline="always")
def mixed(z: np.uint64) -> np.uint64:
    """SplitMix64's output function."""
    z = (z ^ (z >> _A)) * _FIRST
    z = (z ^ (z >> _B)) * _SECOND
    return z ^ (z >> _C)


@compiled(nogil=True, inline="always")
def uniform(bits: np.uint64) -> float:
    """64 random bits as a number in (0, 1)."""
    # The 53 bits that a double holds, and half a step more: never 0, as its logarithm is taken. The
    # largest of them rounds up to 1, which no share may be: it is cut to the double below.
    return min((np.float64(bits >> _D) + 0.5) * 1.1102230246251565e-16, _BELOW_ONE)


@compiled(nogil=True, inline="always")
def bits_of(family: np.uint64, number: int) -> np.uint64:
    """The bits of one draw of a family."""
    return mixed((np.uint64(number) + np.uint64(1)) * GOLDEN + family)


def uniforms(family: np.uint64, numbers: Longs) -> Floats:
    """Draws in (0, 1), in the shape of `numbers`."""
    # Operation by operation what `bits_of` and `uniform` do, so that an address names the same
    # number in numpy and in compiled passes.
    z = (numbers.astype(np.uint64) + np.uint64(1)) * GOLDEN + np.full(1, family)
    z = (z ^ (z >> _A)) * _FIRST
    z = (z ^ (z >> _B)) * _SECOND
    z ^= z >> _C
    return np.minimum(((z >> _D).astype(np.float64) + 0.5) * 2.0**-53, _BELOW_ONE)


def normals(family: np.uint64, numbers: Longs) -> Floats:
    """Standard normal draws of the shape of `numbers` (Box and Muller, 1958)."""
    # Only the cosine of the pair that the method gives is used: the sine would be a second draw,
    # and each number is to have one of its own.
    radius = np.sqrt(-2.0 * np.log(uniforms(family, 2 * numbers)))
    return radius * np.cos(2.0 * np.pi * uniforms(family, 2 * numbers + 1))


@cache
def normal_quantiles() -> Singles:
    """The standard normal at the middles of 65,536 equal shares."""
    from scipy.special import ndtri

    shares = (np.arange(1 << _TABLE_BITS) + 0.5) / (1 << _TABLE_BITS)
    table: Singles = ndtri(shares).astype(np.float32)
    return table


def coarse_normals(family: np.uint64, first: int, count: int, width: int) -> Singles:
    """Standard normal draws (count, width) of numbers from `first` on, to 16 bits."""
    out = np.empty((count, width), np.float32)
    _fill_normals(family, first, normal_quantiles(), out)
    return out


@compiled(nogil=True)
def _fill_normals(family: np.uint64, first: int, table: Singles, out: Singles) -> None:
    # A word of 64 bits is four places in the table. Words are numbered by row, so that rows can be
    # drawn from any one on; the draws do depend on the width.
    count, width = out.shape
    words = (width + 3) // 4
    for row in range(count):
        for word in range(words):
            bits = bits_of(family, (first + row) * words + word)
            for part in range(min(4, width - 4 * word)):
                place = (bits >> np.uint64(16 * part)) & np.uint64(0xFFFF)
                out[row, 4 * word + part] = table[place]
