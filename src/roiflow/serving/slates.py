"""What a recommender takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from roiflow.features.table import Floats, Longs
from roiflow.online.given import Bytes


@dataclass(frozen=True)
class RequestContexts:
    """B requests, as the platform sees them."""

    request_ids: Sequence[str]  # (B,) what is drawn for a request hangs on its id
    user_ids: Sequence[str]  # (B,)
    event_time: Longs  # (B,) microseconds since the epoch, UTC
    placement: Sequence[str]  # (B,)
    device: Sequence[str]  # (B,)

    def take(self, rows: Longs) -> "RequestContexts":
        """Some of them."""
        return RequestContexts(
            [self.request_ids[row] for row in rows],
            [self.user_ids[row] for row in rows],
            self.event_time[rows],
            [self.placement[row] for row in rows],
            [self.device[row] for row in rows],
        )


@dataclass(frozen=True)
class Slates:
    """B slates of S ads, best position first; where `row` is -1 the slot is empty."""

    row: Longs  # (B, S) rows of the catalogue
    ad_ids: NDArray[Any]  # (B, S) strings, "" where empty
    propensity: Floats  # (B, S) given the ads above
    click: Floats  # (B, S) P(click | position 1)
    conversion: Floats  # (B, S) P(click and conversion | position 1)
    revenue: Floats  # (B, S) micros, E[revenue | conversion]
    value: Floats  # (B, S) micros, expected revenue minus lambda x expected cost
    bid: Longs  # (B, S) micros
    as_of: Longs  # (B,) microseconds: the newest known_time that the online features took in
    recalibration: NDArray[Any]  # (B,) digest of what predictions went through; None without
    vectors: Bytes  # (B, W) what the models were given, see online/given.py
