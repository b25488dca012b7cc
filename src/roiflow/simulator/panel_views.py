"""Page views around real baskets, which no log of the panel has: planted, whatever is shown.

A basket is preceded by a Poisson number of page views. Most lie in the hours before it, a third or
so anywhere in its week, at the hours at which people browse.
"""

import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs, Stream, generator, key, uniforms
from roiflow.simulator.population import Ints, WorldRequests

OTHER_DAYS = 0.3
"""Share of page views that are not on the way to the basket."""
LEAD_HOURS = 3.0
"""Mean time from the others to the basket, cut where the week begins."""
USUAL_DEVICE = 0.8
"""Share of page views on the household's usual device."""


def draw_views(seed: int, week: Week, user: Ints, time: Longs, mean: Floats) -> WorldRequests:
    """Views of one week's baskets (n,) of users at times, `mean` views for each on average.

    No view falls on a whole hour.
    """
    rng = generator(seed, Stream.REQUESTS, week.start // MICROS_PER_DAY)
    basket = np.repeat(np.arange(user.size), rng.poisson(mean))
    user, time = user[basket], time[basket]
    before = _before(week, time, rng.random(user.size))
    viewed = np.where(rng.random(user.size) < OTHER_DAYS, _any_time(week, rng, user.size), before)
    # An odd number of microseconds is no whole hour, and the week's last microsecond is odd, so no
    # view leaves the week.
    viewed = np.clip(viewed, week.start, week.end - 1) | 1  # an odd microsecond
    placement = _pick(rng.random(user.size), people.PLACEMENT_SHARES)
    # By the user's own address: the generator is the week's, and a usual device is the same in all
    # weeks.
    usual = _pick(uniforms(key(seed, Stream.USERS), user.astype(np.int64)), people.DEVICE_SHARES)
    other = _pick(rng.random(user.size), people.DEVICE_SHARES)
    device = np.where(rng.random(user.size) < USUAL_DEVICE, usual, other)
    order = np.lexsort((user, viewed))
    return WorldRequests(
        number=np.arange(user.size),
        event_time=viewed[order],
        user_index=user[order],
        placement_index=placement[order],
        device_index=device[order],
    )


def _before(week: Week, time: Longs, uniform: Floats) -> Longs:
    """Times (n,) an exponential lead before `time` (n,), the lead cut at the week's start."""
    # Inversion of the exponential law, cut at the lead that reaches the week's start.
    mean = LEAD_HOURS * MICROS_PER_HOUR
    reach = -np.expm1(-(time - week.start) / mean)
    return (time + mean * np.log1p(-reach * uniform)).astype(np.int64)


def _any_time(week: Week, rng: np.random.Generator, count: int) -> Longs:
    """Times (count,) on any day, at the hours at which people browse."""
    day = rng.integers(0, 7, count)
    hour = _pick(rng.random(count), people.HOUR_SHARES).astype(np.int64)
    inside = rng.integers(0, MICROS_PER_HOUR, count)
    return week.start + day * MICROS_PER_DAY + hour * MICROS_PER_HOUR + inside


def _pick(uniform: Floats, shares: tuple[float, ...] | Floats) -> Ints:
    """0, 1, ... with the given shares, by uniform draws (n,)."""
    return np.searchsorted(np.cumsum(shares)[:-1], uniform, "right").astype(np.int32)
