"""When users come: sessions of visits, drawn user by user and day by day in compiled code.

A user's sessions of a day are Poisson, their start follows the hours' shares, a session's number of
visits is geometric and the time between them exponential. Every draw of a user and day is addressed
by both, so days and ranges of users can be drawn alone. Visits after midnight are dropped.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roiflow.compiled import compiled
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND
from roiflow.simulator.noise import GOLDEN, Floats, Longs, Singles, bits_of, mixed, uniform

Ints = NDArray[np.int32]
Words = NDArray[np.uint64]

BUCKET = 4 * MICROS_PER_SECOND
BUCKETS = MICROS_PER_DAY // BUCKET
LARGEST_MEAN = 500.0
"""Of one inversion: from 745 on exp(-mean) is 0, and every number came out at its bound."""


@dataclass(frozen=True)
class Sessions:
    """What sessions are like."""

    events: float  # mean visits of one
    gap: float  # mean microseconds between its visits
    hours: Floats  # (24,) cumulated shares of their starts
    grid: int  # no visit falls on a multiple of so many microseconds


@dataclass(frozen=True)
class Visits:
    """n visits user by user, each with random bits of its own and of its session."""

    user: Ints  # (n,)
    time: Longs  # (n,) microseconds
    bits: Words  # (n,)
    session: Words  # (n,)
    order: Longs  # (n,) rows in time order


def draw_visits(
    family: np.uint64, first: int, means: Singles, sessions: Sessions, day_start: int
) -> Visits:
    """Visits of one day of the users numbered from `first` on; `means` (U,) are of sessions."""
    # A guess with room to spare. Should it not do, all is drawn again: every draw has its address,
    # so a second time gives the same visits.
    expected = float(means.sum()) * sessions.events
    room = int(expected + 6 * np.sqrt(expected) * sessions.events) + 64
    while True:
        user, time = np.empty(room, np.int32), np.empty(room, np.int64)
        bits, session = np.empty(room, np.uint64), np.empty(room, np.uint64)
        count = _draw(
            family, first, means, sessions.events, sessions.gap, sessions.hours, day_start,
            sessions.grid, user, time, bits, session,
        )  # fmt: skip
        if count >= 0:
            break
        room *= 2
    order = time_order(time[:count], day_start)
    return Visits(user[:count], time[:count], bits[:count], session[:count], order)


@compiled(nogil=True)
def _draw(  # noqa: C901
    family: np.uint64,
    first: int,
    means: Singles,
    events: float,
    gap: float,
    hours: Floats,
    day_start: int,
    grid: int,
    out_user: Ints,
    out_time: Longs,
    out_bits: Words,
    out_session: Words,
) -> int:
    more = 1.0 - 1.0 / events
    log_more = np.log(more) if more > 0.0 else -np.inf
    end = day_start + MICROS_PER_DAY
    count = 0
    for user in range(means.size):
        mean = np.float64(means[user])
        if mean <= 0.0:
            continue
        state = bits_of(family, first + user)
        number = _poisson(min(mean, LARGEST_MEAN), uniform(state))
        # A sum of Poisson numbers is one of the sum of their means.
        mean -= LARGEST_MEAN
        while mean > 0.0:
            state += GOLDEN
            number += _poisson(min(mean, LARGEST_MEAN), uniform(mixed(state)))
            mean -= LARGEST_MEAN
        for _ in range(number):
            state += GOLDEN
            session = mixed(state)
            state += GOLDEN
            start = mixed(state)
            hour = 0
            share = uniform(start)
            while hour < 23 and share >= hours[hour]:
                hour += 1
            state += GOLDEN
            # Not on the whole hour, which may be a multiple of the grid.
            inside = 1 + np.int64(uniform(mixed(state)) * (MICROS_PER_HOUR - 1))
            time = day_start + hour * MICROS_PER_HOUR + inside
            length = np.int64(1)
            if more > 0.0:
                state += GOLDEN
                length += np.int64(np.log(uniform(mixed(state))) / log_more)
            for _ in range(length):
                # Known times are multiples of the grid. On one it would be open whether a visit
                # comes before or after what becomes known at that very moment.
                if time % grid == 0:
                    time += 1
                if time >= end:
                    break
                if count == out_user.size:
                    return -1
                state += GOLDEN
                out_user[count] = user
                out_time[count] = time
                out_bits[count] = mixed(state)
                out_session[count] = session
                count += 1
                if length > 1:
                    state += GOLDEN
                    time += 1 + np.int64(-gap * np.log(uniform(mixed(state))))
    return count


@compiled(nogil=True)
def _poisson(mean: float, share: float) -> int:
    """A Poisson number by inversion, out of one uniform draw; `mean` is at most LARGEST_MEAN."""
    term = np.exp(-mean)
    left = share - term
    number = 0
    # The bound is for rounding, which may leave `left` above 0 when the terms have gone to nothing.
    while left > 0.0 and number < 1000:
        number += 1
        term *= mean / number
        left -= term
    return number


@compiled(nogil=True)
def time_order(time: Longs, day_start: int) -> Longs:
    """Stable order of one day's times (n,): buckets of seconds, insertion inside a bucket."""
    # A user's visits lie side by side, users do not follow the clock. A bucket holds a few visits,
    # so that insertion is cheap and the whole linear.
    first = np.zeros(BUCKETS + 1, np.int64)
    for at in time:
        first[(at - day_start) // BUCKET + 1] += 1
    for bucket in range(BUCKETS):
        first[bucket + 1] += first[bucket]
    order = np.empty(time.size, np.int64)
    free = first.copy()
    for row in range(time.size):
        bucket = (time[row] - day_start) // BUCKET
        place = free[bucket]
        while place > first[bucket] and time[order[place - 1]] > time[row]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = row
        free[bucket] += 1
    return order
