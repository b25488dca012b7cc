"""Randomness that has an address, so that chunks and threads cannot change it.

A block (stream, week, day) has a generator of its own; a single draw (request, position) is a hash
of its number. Both are functions of the seed and of the address alone.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """What a generator is for. Numbers are never reused: they are part of every seed."""

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


def generator(seed: int, stream: Stream, *address: int) -> np.random.Generator:
    """The generator of one block; counter-based (Philox, Salmon et al., 2011)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, stream, *address])))


def key(seed: int, stream: Stream, *address: int) -> np.uint64:
    """64 bits that name one family of draws."""
    return np.random.SeedSequence([seed, stream, *address]).generate_state(1, np.uint64)[0]


def uniforms(family: np.uint64, numbers: Longs) -> Floats:
    """Draws in (0, 1), in the shape of `numbers`: SplitMix64 (Steele et al., 2014)."""
    z = (numbers.astype(np.uint64) + np.uint64(1)) * _GOLDEN + np.full(1, family)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(family: np.uint64, numbers: Longs) -> Floats:
    """Standard normal draws of the shape of `numbers` (Box and Muller, 1958)."""
    radius = np.sqrt(-2.0 * np.log(uniforms(family, 2 * numbers)))
    return radius * np.cos(2.0 * np.pi * uniforms(family, 2 * numbers + 1))
