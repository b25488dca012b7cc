"""What a model was given at a request, packed to bytes the same way while serving and offline.

A vector is a user's index, profile and history, the request's context, and the dense features of
the ads that were shown, in slate order. Serving logs its hash with every slate, and some of the
vectors whole; whoever computes the same vector as-known from the lake finds out where they differ.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from roiflow.errors import ContractError
from roiflow.features.table import CONTEXT, Flags, Ints, Longs, Singles

Bytes = NDArray[np.uint8]

HASH_BYTES = 8


@dataclass(frozen=True)
class Shape:
    """Sizes that all vectors of one package share."""

    profile: int
    history: int
    slots: int
    dense_names: tuple[str, ...]

    @property
    def ints(self) -> int:
        """Words of 4 bytes before the dense features."""
        return 1 + self.profile + 3 * self.history + len(CONTEXT)

    @property
    def bytes(self) -> int:
        """Size of a vector."""
        return 4 * (self.ints + self.slots * len(self.dense_names)) + 8 * self.history


@dataclass(frozen=True)
class Inputs:
    """What the models were given for B requests with S shown ads."""

    user: Ints  # (B,)
    profile: Ints  # (B, P)
    history_ad: Ints  # (B, L), the most recent behaviour last, 0 before the first
    history_category: Ints  # (B, L)
    history_action: Ints  # (B, L)
    history_time: Longs  # (B, L)
    context: Ints  # (B, len(CONTEXT))
    dense: Singles  # (B, S, F), 0 in an empty slot

    def take(self, rows: Longs | Flags) -> "Inputs":
        """Some of the requests."""
        return Inputs(**{name: values[rows] for name, values in vars(self).items()})


def pack(inputs: Inputs) -> Bytes:
    """Vectors (B, Shape.bytes) of at least one request."""
    rows = inputs.user.size
    return np.concatenate(
        [
            np.ascontiguousarray(values).reshape(rows, -1).view(np.uint8)
            for values in (
                inputs.history_time,
                inputs.user,
                inputs.profile,
                inputs.history_ad,
                inputs.history_category,
                inputs.history_action,
                inputs.context,
                inputs.dense,
            )
            if values.size
        ],
        axis=1,
    )


def unpack(vectors: Sequence[bytes], shape: Shape) -> Inputs:
    """What `pack` was given. Raises ContractError, naming the row, on a vector of another size."""
    for row, vector in enumerate(vectors):
        if len(vector) != shape.bytes:
            raise ContractError(f"vector {row}: {len(vector)} bytes, expected {shape.bytes}")
    count, length = len(vectors), shape.history
    whole = np.frombuffer(b"".join(vectors), np.uint8).reshape(count, shape.bytes)
    times = whole[:, : 8 * length].copy().view(np.int64)
    words = whole[:, 8 * length :].copy().view(np.int32)
    widths = (1, shape.profile, length, length, length, len(CONTEXT))
    user, profile, ad, category, action, context = np.split(
        words[:, : shape.ints], np.cumsum(widths)[:-1], axis=1
    )
    dense = np.ascontiguousarray(words[:, shape.ints :]).view(np.float32)
    return Inputs(
        user[:, 0],
        profile,
        ad,
        category,
        action,
        times,
        context,
        dense.reshape(count, shape.slots, len(shape.dense_names)),
    )


def hashes(vectors: Bytes) -> list[str]:
    """Vectors (B, W) -> 64-bit hashes in hex."""
    return [
        blake2b(row, digest_size=HASH_BYTES).hexdigest() for row in np.ascontiguousarray(vectors)
    ]


def sampled(request_id: str, share: float) -> bool:
    """Whether the vector of a request is kept whole: the same answer wherever it is asked."""
    # By a hash of the id and not by chance: a retry, and every process, decides alike.
    return zlib.crc32(request_id.encode()) < share * 2**32


@dataclass(frozen=True)
class Difference:
    """One value that was served and comes out otherwise."""

    feature: str
    request: int
    """Row of the compared requests."""
    slot: int
    """0-based place in the slate, or in the history; -1 where there is none."""
    served: float
    expected: float

    @property
    def size(self) -> float:
        """How far they are apart; what is no number is infinitely far."""
        size = abs(self.served - self.expected)
        return math.inf if math.isnan(size) else size


HISTORY = ("history_ad", "history_category", "history_action", "history_time")


def differences(
    served: Inputs, expected: Inputs, dense_names: Sequence[str], compared: Flags
) -> Iterator[Difference]:
    """Every value in which vectors differ; dense features only of the `compared` columns (B, F)."""
    if not served.user.size:
        return
    for name, one, other in _parts(served, expected):
        for request, slot in np.argwhere(one != other).tolist():
            values = float(one[request, slot]), float(other[request, slot])
            yield Difference(name, request, slot if name in HISTORY else -1, *values)
    # Bit by bit: NaN is then equal to itself, and 0 is not -0, which a model may tell apart.
    unequal = served.dense.view(np.int32) != expected.dense.view(np.int32)
    for request, slot, column in np.argwhere(unequal & compared[:, None, :]).tolist():
        at = request, slot, column
        values = float(served.dense[at]), float(expected.dense[at])
        yield Difference(dense_names[column], request, slot, *values)


def _parts(
    served: Inputs, expected: Inputs
) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
    def matrix(values: Ints | Longs) -> NDArray[np.int64]:
        return values.reshape(values.shape[0], -1).astype(np.int64)

    yield "user", matrix(served.user), matrix(expected.user)
    yield "profile", matrix(served.profile), matrix(expected.profile)
    for column, name in enumerate(CONTEXT):
        yield name, matrix(served.context[:, column]), matrix(expected.context[:, column])
    for name in HISTORY:
        yield name, matrix(getattr(served, name)), matrix(getattr(expected, name))
