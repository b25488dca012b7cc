"""What `build_features` hands on: dense indices, CSR histories, as-known features.

Index 0 of every vocabulary is the out-of-vocabulary row. Impressions hold slices into the
user-sorted events instead of lists, and are sorted by user, then event_time.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from roiflow.data.split import RUN_UP, TEST, TRAIN, VALIDATION
from roiflow.data.weeks import MICROS_PER_HOUR, Week

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Flags = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

_DTYPES: dict[Any, Any] = {
    Ints: np.int32,
    Longs: np.int64,
    Floats: np.float64,
    Singles: np.float32,
    Flags: np.bool_,
    Bytes: np.uint8,
}


def dtype_of(annotation: Any) -> np.dtype[Any]:
    """The element type of an array field's annotation."""
    return np.dtype(_DTYPES[annotation])


Normalisation = Literal["z_score", "min_max"]

CONTEXT = ("placement", "device", "hour", "weekday")
"""Columns of a request's context; hour 0-23 and weekday 0-6 (Monday 0) are in UTC."""

AD_ATTRIBUTES = ("campaign", "advertiser", "category", "brand", "ad_type")
"""Columns of an ad's attributes."""


@dataclass(frozen=True)
class Events:
    """Behaviours, CSR by user: user u holds rows offsets[u] to offsets[u + 1].

    A user's rows are ordered by known_time, then event_time, so what was known at time t is a
    prefix. Times are microseconds since the epoch, UTC.
    """

    offsets: Longs  # (users + 1,)
    ad: Ints  # (events,)
    category: Ints  # (events,)
    action: Ints  # (events,)
    event_time: Longs  # (events,)
    known_time: Longs  # (events,)


@dataclass(frozen=True)
class Impressions:
    """Logged impressions with as-known features; n rows."""

    request: Longs  # (n,) 0-based number of the slate
    user: Ints  # (n,)
    ad: Ints  # (n,)
    event_time: Longs  # (n,)
    history_start: Longs  # (n,) first row in Events of the last H known behaviours
    history_end: Longs  # (n,) one past the last: every behaviour known before event_time
    context: Ints  # (n, len(CONTEXT))
    dense: Singles  # (n, F) raw (not normalised), columns Features.dense_names
    position: Ints  # (n,) 1-based
    slate_size: Ints  # (n,)
    bid: Longs  # (n,) micros
    cost: Longs  # (n,) micros
    revenue: Longs  # (n,) micros, 0 without a conversion; it and the next two as known_until tells
    clicked: Flags  # (n,)
    converted: Flags  # (n,)
    propensity: Floats  # (n,) given the ads above in the slate; NaN where not logged
    canary: Flags  # (n,) served by a challenger on trial (columns.CANARY)
    split: Bytes  # (n,) RUN_UP, TRAIN, VALIDATION or TEST, by global time


@dataclass(frozen=True)
class Outcomes:
    """Every conversion and return known by the window's end, as it arrived; m rows."""

    row: Longs  # (m,) of Impressions, ascending
    known_time: Longs  # (m,) ascending within a row
    revenue: Longs  # (m,) micros; negative: a return


@dataclass(frozen=True)
class LaterLabels:
    """Rows before the test week whose labels the test week changed, as they ended; m rows."""

    row: Longs  # (m,) of Impressions, ascending
    clicked: Flags  # (m,)
    converted: Flags  # (m,)
    revenue: Longs  # (m,) micros


@dataclass(frozen=True)
class Catalogue:
    """The ads that could be shown in one week, and when in it."""

    week: str
    ad: Ints  # (a,)
    price: Longs  # (a,) micros
    bid: Longs  # (a,) micros
    start: Longs  # (a,) microseconds: it may be shown in [start, end)
    end: Longs  # (a,)
    solvent: Flags  # (hours of the week, a) whether money was left; one row: alike in all hours

    @classmethod
    def all_week(cls, week: str, ad: Ints, price: Longs, bid: Longs) -> "Catalogue":
        """Of ads that could be shown all the time."""
        start, end = np.zeros(ad.size, np.int64), np.full(ad.size, np.iinfo(np.int64).max)
        return cls(week, ad, price, bid, start, end, np.ones((1, ad.size), np.bool_))

    def eligible(self, time: Longs) -> Flags:
        """Which ads could be shown at times (B,) of the week; (B, a)."""
        hour = (time - Week.parse(self.week).start) // MICROS_PER_HOUR
        # What happened just before the window became known in it, and takes its first hour.
        hour = np.clip(hour, 0, self.solvent.shape[0] - 1)
        there: Flags = (self.start <= time[:, None]) & (time[:, None] < self.end)
        return there & self.solvent[hour]


@dataclass(frozen=True)
class Requests:
    """B requests with up to K candidate ads each, features as known at event_time."""

    request: Longs  # (B,) number of the logged slate
    user: Ints  # (B,)
    event_time: Longs  # (B,)
    history_start: Longs  # (B,)
    history_end: Longs  # (B,)
    context: Ints  # (B, len(CONTEXT))
    ad: Ints  # (B, K) -1 where there is no candidate
    price: Longs  # (B, K) micros
    bid: Longs  # (B, K) micros
    dense: Singles  # (B, K, F)

    def take(self, rows: Longs | slice) -> "Requests":
        """The requests `rows`, in that order."""
        return Requests(**{name: values[rows] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Statistics:
    """Normalisation of the dense features, from training rows only."""

    mean: Singles  # (F,)
    std: Singles  # (F,) never 0
    low: Singles  # (F,) smallest value
    span: Singles  # (F,) largest value minus smallest, never 0

    def scaling(self, normalisation: Normalisation) -> tuple[Singles, Singles]:
        """Centre (F,) and scale (F,); a feature minus its centre, by its scale, is normalised.

        z_score gives mean 0 and deviation 1 over the training rows, min_max gives 0 to 1.
        """
        if normalisation == "min_max":
            return self.low, self.span
        return self.mean, self.std


@dataclass(frozen=True)
class Features:
    """Everything downstream stages read."""

    sizes: dict[str, int]
    """Rows of each vocabulary (out-of-vocabulary row included): user, ad, action, the names of
    CONTEXT and AD_ATTRIBUTES, and profile attributes as `profile:<name>`."""
    dense_names: tuple[str, ...]
    profile_names: tuple[str, ...]
    history_length: int
    events: Events
    impressions: Impressions
    outcomes: Outcomes
    later_labels: LaterLabels
    validation_start: int
    """First microsecond of the validation days."""
    known_until: tuple[int, int, int, int]
    """By split: the labels of its rows are made of what was known before this time. A model that is
    tested on the test week could not have learned from it, so rows before it stand at its start."""
    profile: Ints  # (users, profile attributes)
    attributes: Ints  # (ads, len(AD_ATTRIBUTES))
    catalogues: tuple[Catalogue, ...]  # one per week of the window, oldest first
    statistics: Statistics

    def rows(self, split: int) -> Longs:
        """Rows of the impressions of one split."""
        return np.flatnonzero(self.impressions.split == split)

    def as_of_end(self) -> "Features":
        """The same rows with every label as known at the window's end: what a refit trains on.

        Splits move on: all but the run-up and the last validation days are TRAIN, those VALIDATION,
        none is TEST.
        Features and their normalisation stay as they are.
        """
        log, later, end = self.impressions, self.later_labels, self.known_until[TEST]
        start = end - (self.known_until[TRAIN] - self.validation_start)
        clicked, converted = log.clicked.copy(), log.converted.copy()
        revenue = log.revenue.copy()
        clicked[later.row], converted[later.row] = later.clicked, later.converted
        revenue[later.row] = later.revenue
        split = np.where(log.event_time < start, TRAIN, VALIDATION).astype(np.uint8)
        split[log.split == RUN_UP] = RUN_UP
        labelled = replace(
            log,
            clicked=clicked,
            converted=converted,
            revenue=revenue,
            split=split,
        )
        none = LaterLabels(**{name: values[:0] for name, values in vars(later).items()})
        return replace(
            self,
            impressions=labelled,
            later_labels=none,
            validation_start=start,
            known_until=(end, end, end, end),
        )
