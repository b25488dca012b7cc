"""Who lives in the ad world: what every population, planted or real, tells the world."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.simulator.noise import Floats, Longs, Stream, key, uniforms
from roiflow.simulator.scenarios.effects import Effects

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]
Names = NDArray[np.str_]

ACTIONS = ("view", "click", "favourite", "cart", "purchase")
PLACEMENTS = ("feed", "detail", "search")
PLACEMENT_SHARES = (0.6, 0.25, 0.15)
PLACEMENT_EFFECT = np.array([0.0, 0.15, 0.3])
"""Log odds of a click."""
DEVICES = ("mobile", "desktop", "tablet")
DEVICE_SHARES = (0.6, 0.3, 0.1)
AD_TYPES = ("image", "video", "text")
AD_TYPE_ON_DEVICE = np.array([[0.1, 0.1, 0.1], [0.35, 0.0, 0.2], [-0.3, 0.0, -0.2]])
"""Log odds of a click by ad type (rows) and device (columns)."""
HOUR_EFFECT = 0.15 * np.cos(2 * np.pi * (np.arange(24) - 21) / 24)
"""Log odds of a click by hour of the day, highest at 21:00."""
HOUR_SHARES = np.array(
    [3, 2, 1, 1, 1, 2, 4, 6, 8, 8, 8, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 14, 10, 6]
) / np.float64(178)
"""Of a day's visits."""
WEEKDAY_FACTORS = np.array([0.95, 0.95, 0.95, 0.95, 1.0, 1.1, 1.1])


@dataclass(frozen=True)
class Ads:
    """A ads with their hidden quality; an ad keeps its row in all later weeks."""

    ids: Names  # (A,)
    campaign: Names  # (A,)
    advertiser: Names  # (A,)
    brand: Names  # (A,)
    category: Ints  # (A,) rows of Population.categories
    ad_type: Ints  # (A,) rows of AD_TYPES
    price: Longs  # (A,) micros
    bid: Longs  # (A,) micros
    budget: Longs  # (A,) micros a day, 0 is no limit
    market: Floats  # (A,) micros, median of the highest outside bid
    created_at: Longs  # (A,) microseconds
    first: Longs  # (A,) microseconds: it may be shown in [first, last)
    last: Longs  # (A,)
    click: Floats  # (A,) log odds of a click, given a look
    conversion: Floats  # (A,) log odds, given a click
    delay: Floats  # (A,) mean hours from click to conversion, before attribution ends
    weight: Floats  # (A,) relative share of the behaviours in its category


@dataclass(frozen=True)
class WorldRequests:
    """B requests in time order."""

    number: Longs  # (B,) names the request within its week
    event_time: Longs  # (B,) microseconds, UTC; never a multiple of known_lag_hours
    user_index: Ints  # (B,) rows of Population.user_ids
    placement_index: Ints  # (B,)
    device_index: Ints  # (B,)

    def take(self, rows: slice | Longs) -> "WorldRequests":
        """Some of them."""
        return replace(self, **{name: column[rows] for name, column in vars(self).items()})

    @property
    def placement(self) -> Names:
        """(B,)."""
        return np.array(PLACEMENTS)[self.placement_index]

    @property
    def device(self) -> Names:
        """(B,)."""
        return np.array(DEVICES)[self.device_index]


@dataclass(frozen=True)
class WorldBehaviours:
    """n organic behaviours in time order."""

    user: Ints  # (n,)
    ad: Ints  # (n,)
    action: Ints  # (n,) rows of ACTIONS
    event_time: Longs  # (n,) microseconds, UTC
    dwell_ms: Longs  # (n,)

    def take(self, rows: slice) -> "WorldBehaviours":
        """Some of them, without a copy."""
        return WorldBehaviours(*(column[rows] for column in vars(self).values()))

    def copy(self) -> "WorldBehaviours":
        """The same, held on their own."""
        return WorldBehaviours(*(column.copy() for column in vars(self).values()))


class Population(Protocol):
    """Users, ads and organic behaviour, none of which depends on what is shown."""

    @property
    def first_week(self) -> Week:
        """The first week that can be simulated."""
        ...

    @property
    def last_week(self) -> Week | None:
        """The last one; None is no end."""
        ...

    @property
    def categories(self) -> Names:
        """(C,)."""
        ...

    @property
    def user_ids(self) -> Names:
        """Every user there ever is (U,), sorted."""
        ...

    def bots(self, share: float) -> Flags:
        """Which users (U,) are bots where a share of all are."""
        ...

    def users(self, week: Week) -> tuple[Ints, dict[str, Names]]:
        """Rows of the users who are there in a week, and their profile columns."""
        ...

    def ads(self, week: Week, effects: Effects) -> Ads:
        """Every ad up to the week, those that have ended included."""
        ...

    def requests(self, week: Week, effects: Effects) -> WorldRequests:
        """Every request of a week."""
        ...

    def behaviours(self, week: Week, effects: Effects) -> WorldBehaviours:
        """Every organic behaviour of a week."""
        ...

    def log_odds(
        self, requests: WorldRequests, ads: Ads, rows: Ints, effects: Effects
    ) -> tuple[Floats, Floats]:
        """Log odds of a click given a look, and of a conversion given a click (B, K).

        `rows` (B, K) are rows of the week's `ads`. All requests are of one week.
        """
        ...


def rows_of(known: Names, wanted: Names, problem: str) -> Ints:
    """Rows of `known` (m,) that hold `wanted` (n,).

    Raises ContractError, which says `problem` with the first name that is unknown.
    """
    order = np.argsort(known, kind="stable")
    # An unknown name may sort after all known ones: it is compared with the last and found wrong,
    # instead of falling out of the array.
    place = np.minimum(np.searchsorted(known, wanted, sorter=order), known.size - 1)
    rows = order[place]
    unknown = known[rows] != wanted
    if unknown.any():
        raise ContractError(problem.format(str(wanted[unknown][0])))
    return rows.astype(np.int32)


def names(prefix: str, count: int, first: int = 1, width: int | None = None) -> Names:
    """`count` ids that sort as they count."""
    # Of one width, or u10 would sort before u9.
    digits = width or len(str(first + count - 1))
    return np.array([f"{prefix}{number:0{digits}d}" for number in range(first, first + count)])


def micros(amount: NDArray[np.floating]) -> Longs:
    """Currency units to whole micros, in whole cents and never under one."""
    return (np.maximum(np.rint(amount * 100), 1) * 10_000).astype(np.int64)


def logit(probability: float) -> float:
    """Log odds."""
    return float(np.log(probability / (1 - probability)))


def sigmoid(log_odds: Floats) -> Floats:
    """Probability, in the shape of the log odds."""
    return 1 / (1 + np.exp(-log_odds))


def bots(seed: int, first: int, count: int, share: float) -> Flags:
    """Which of the users numbered from `first` on are bots, where a share of all are."""
    # One draw for each user, so that those who are bots at a small share are bots at a larger one
    # too.
    numbers = np.arange(first, first + count)
    return uniforms(key(seed, Stream.BOTS), numbers) < share
