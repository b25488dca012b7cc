"""An ad world whose truth is known.

Users have interests in categories that turn slowly, and an intent that follows their recent
behaviours and fades with a half-life. A request shows a slate; position k is looked at with
probability 1 / k^exponent (position-based model, Richardson et al., 2007), an ad that is looked at
is clicked with a logistic probability, a click converts with another one after an exponential
delay, and revenue is log-normal around the price. The advertiser pays a share of the bid per click.

Behaviours do not depend on what is shown, so the expected value of a slate has a closed form.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ContractError
from roiflow.params import SimulatorParams
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs, Stream, generator, key, normals, uniforms
from roiflow.simulator.population import Ads, Ints, Names, Users

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class WorldRequests:
    """B requests in time order. What a platform knows is in the first five fields."""

    number: Longs  # (B,) 0-based within the week
    user_ids: Names  # (B,)
    event_time: Longs  # (B,) microseconds, UTC; never a multiple of known_lag_hours
    placement: Names  # (B,)
    device: Names  # (B,)
    user_index: Ints  # (B,) rows of World.users
    placement_index: Ints  # (B,)
    device_index: Ints  # (B,)

    def take(self, rows: slice) -> "WorldRequests":
        """A contiguous part."""
        return WorldRequests(*(column[rows] for column in vars(self).values()))


@dataclass(frozen=True)
class WorldBehaviours:
    """n organic behaviours in time order."""

    user: Ints  # (n,)
    ad: Ints  # (n,)
    action: Ints  # (n,)
    event_time: Longs  # (n,) microseconds, UTC
    dwell_ms: Longs  # (n,)


@dataclass(frozen=True)
class Response:
    """The true probabilities of showing ads (B, K) to requests (B,)."""

    click: Floats  # (B, K) P(click | looked at)
    conversion: Floats  # (B, K) P(conversion | click)
    revenue: Floats  # (B, K) E[revenue | conversion], micros
    cost: Floats  # (B, K) paid per click, micros

    @property
    def value(self) -> Floats:
        """(B, K) expected revenue minus cost of a look, micros."""
        return self.click * (self.conversion * self.revenue - self.cost)


@dataclass(frozen=True)
class Outcome:
    """What came of n slates of S ads."""

    clicked: Flags  # (n, S)
    cost: Longs  # (n, S) micros, 0 without a click
    converted: Longs  # (m,) the cells of (n, S), row by row, that converted
    delay: Longs  # (m,) microseconds from impression to conversion
    revenue: Longs  # (m,) micros


@dataclass(frozen=True)
class _History:
    """Behaviours of some weeks, CSR by user, each user's in time order."""

    weeks: tuple[Week, Week]  # first and last
    offsets: Longs
    time: Longs
    category: Ints
    weight: Floats


class World:
    """The world of one set of parameters; every method is a function of them and its arguments.

    Raises ParamsError, naming key and value, where no such world can be.
    """

    def __init__(self, params: SimulatorParams) -> None:
        people.refuse_impossible(params)
        self.params = params
        self.first_week = Week.parse(params.first_week)
        self.users: Users = people.draw_users(params)
        self.ads: Ads = people.draw_ads(params)
        self.examination: Floats = (
            np.arange(1, params.slate_size + 1, dtype=np.float64) ** -params.examination_exponent
        )
        self._lag = params.known_lag_hours * MICROS_PER_HOUR
        self._latest: dict[Week, WorldBehaviours] = {}
        self._history: _History | None = None

    def known_time(self, event_time: Longs) -> Longs:
        """The next multiple of known_lag_hours after the event, microseconds."""
        return (event_time // self._lag + 1) * self._lag

    def interest(self, user: Ints, event_time: Longs) -> Floats:
        """Lasting interests (n, C) of users (n,) in the week of a time (n,)."""
        weeks = (event_time - self.first_week.start) // MICROS_PER_WEEK
        angle = (self.params.interest_drift * weeks)[:, None]
        users = self.users
        return (
            users.common[user]
            + np.cos(angle) * users.east[user]
            + np.sin(angle) * users.north[user]
        )

    def _times(self, rng: np.random.Generator, start: int, rate: float) -> tuple[Ints, Longs]:
        """Users and times, in time order, of one day's visits."""
        day = start // MICROS_PER_DAY
        mean = self.users.activity * (rate * people.WEEKDAY_FACTORS[(day + 3) % 7])
        count = rng.poisson(np.where(self.users.joined <= start, mean, 0.0))
        user = np.repeat(np.arange(count.size, dtype=np.int32), count)
        hour = np.searchsorted(np.cumsum(people.HOUR_SHARES)[:-1], rng.random(user.size), "right")
        inside = rng.integers(1, MICROS_PER_HOUR, user.size)
        time = start + hour * MICROS_PER_HOUR + inside
        order = np.argsort(time, kind="stable")
        return user[order], time[order]

    def requests(self, week: Week) -> WorldRequests:
        """Every request of a week."""
        parts = [self._requests_of_day(week.start + day * MICROS_PER_DAY) for day in range(7)]
        user, time, placement, device = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        return WorldRequests(
            number=np.arange(user.size),
            user_ids=self.users.ids[user],
            event_time=time,
            placement=np.array(people.PLACEMENTS)[placement],
            device=np.array(people.DEVICES)[device],
            user_index=user,
            placement_index=placement,
            device_index=device,
        )

    def _requests_of_day(self, start: int) -> tuple[Ints, Longs, Ints, Ints]:
        rng = generator(self.params.seed, Stream.REQUESTS, start // MICROS_PER_DAY)
        user, time = self._times(rng, start, self.params.requests_per_user_day)
        placement = rng.choice(len(people.PLACEMENTS), user.size, p=people.PLACEMENT_SHARES)
        other = rng.choice(len(people.DEVICES), user.size, p=people.DEVICE_SHARES)
        device = np.where(rng.random(user.size) < 0.8, self.users.device[user], other)
        return user, time, placement.astype(np.int32), device.astype(np.int32)

    def behaviours(self, week: Week) -> WorldBehaviours:
        """Every organic behaviour of a week; the stronger the interest, the stronger the action."""
        if week not in self._latest:
            parts = [self._behaviours_of_day(week.start + day * MICROS_PER_DAY) for day in range(7)]
            columns = (np.concatenate(column) for column in zip(*parts, strict=True))
            self._latest = dict(list(self._latest.items())[-1:]) | {week: WorldBehaviours(*columns)}
        return self._latest[week]

    def _behaviours_of_day(self, start: int) -> tuple[Ints, Ints, Ints, Longs, Longs]:
        rng = generator(self.params.seed, Stream.BEHAVIOURS, start // MICROS_PER_DAY)
        user, time = self._times(rng, start, self.params.behaviours_per_user_day)
        interest = self.interest(user, time)
        gumbel = -np.log(-np.log(rng.random(interest.shape)))
        category = np.argmax(interest + gumbel, axis=1)
        order = np.argsort(self.ads.category, kind="stable")
        first = np.searchsorted(self.ads.category[order], np.arange(self.params.categories + 1))
        count = np.diff(first)[category]
        ad = order[first[category] + (rng.random(user.size) * count).astype(np.int64)]
        strength = 0.5 * interest[np.arange(user.size), category] + rng.logistic(size=user.size)
        bounds = np.cumsum(people.ACTION_SHARES)[:-1]
        thresholds = 0.5 + np.log(bounds / (1 - bounds))
        action = np.searchsorted(thresholds, strength)
        dwell = np.exp(8.0 + 0.3 * action + 0.8 * rng.standard_normal(user.size))
        return user, ad.astype(np.int32), action.astype(np.int32), time, dwell.astype(np.int64)

    def intent(self, user: Ints, event_time: Longs) -> Floats:
        """Intent (n, C): importances of the last 7 days' behaviours, halved per half-life."""
        out = np.zeros((user.size, self.params.categories))
        if not user.size:
            return out
        past = self._past(Week.of(int(event_time.min())).plus(-1), Week.of(int(event_time.max())))
        rate = np.log(2) / (self.params.half_life_hours * MICROS_PER_HOUR)
        _add_intent(
            past.offsets, past.time, past.category, past.weight, rate, user, event_time, out
        )
        return out

    def _past(self, first: Week, last: Week) -> _History:
        if self._history is None or self._history.weeks != (first, last):
            parts = []
            week = first
            while week <= last:
                parts.append(self.behaviours(week))
                week = week.plus(1)
            user = np.concatenate([part.user for part in parts])
            order = np.argsort(user, kind="stable")
            action = np.concatenate([part.action for part in parts])[order]
            importance = [self.params.action_importance[name] for name in people.ACTIONS]
            self._history = _History(
                weeks=(first, last),
                offsets=np.searchsorted(user[order], np.arange(self.users.ids.size + 1)),
                time=np.concatenate([part.event_time for part in parts])[order],
                category=self.ads.category[np.concatenate([part.ad for part in parts])[order]],
                weight=np.array(importance, dtype=np.float64)[action],
            )
        return self._history

    def respond(self, requests: WorldRequests, ads: Ints) -> Response:
        """True probabilities of ads (B, K), rows of the catalogue."""
        user, time, device = requests.user_index, requests.event_time, requests.device_index
        interest = self.interest(user, time)
        affinity = self.params.interest_weight * interest
        affinity += self.params.intent_weight * np.log1p(self.intent(user, time))
        hour = time // MICROS_PER_HOUR % 24
        base = (
            _logit(self.params.click_rate)
            + self.users.click[user]
            + people.PLACEMENT_EFFECT[requests.placement_index]
            + people.HOUR_EFFECT[hour]
        )
        category = self.ads.category[ads]
        creative = people.AD_TYPE_ON_DEVICE[self.ads.ad_type[ads], device[:, None]]
        click = base[:, None] + np.take_along_axis(affinity, category, 1) + creative
        conversion = _logit(self.params.conversion_rate) + self.users.conversion[user][:, None]
        return Response(
            click=_sigmoid(click + self.ads.click[ads]),
            conversion=_sigmoid(
                conversion
                + 0.3 * np.take_along_axis(interest, category, 1)
                + self.ads.conversion[ads]
            ),
            revenue=self.ads.price[ads].astype(np.float64),
            cost=np.rint(self.params.cost_share * self.ads.bid[ads]),
        )

    def happen(self, week: Week, requests: WorldRequests, slates: Ints) -> Outcome:
        """What comes of slates (B, S); every draw is addressed by week, request and position."""
        slots = slates.shape[1]
        cell = requests.number[:, None] * slots + np.arange(slots)

        def family(stream: Stream) -> np.uint64:
            return key(self.params.seed, stream, week.start // MICROS_PER_DAY)

        truth = self.respond(requests, slates)
        clicked = uniforms(family(Stream.CLICK), cell) < self.examination * truth.click
        won = clicked & (uniforms(family(Stream.CONVERSION), cell) < truth.conversion)
        sigma = self.params.revenue_sigma
        spread = np.exp(sigma * normals(family(Stream.REVENUE), cell[won]) - sigma**2 / 2)
        return Outcome(
            clicked=clicked,
            cost=np.where(clicked, truth.cost, 0).astype(np.int64),
            converted=np.flatnonzero(won),
            delay=self._delay(uniforms(family(Stream.DELAY), cell[won]), slates[won]),
            revenue=np.rint(truth.revenue[won] * spread).astype(np.int64),
        )

    def _delay(self, uniform: Floats, ads: Ints) -> Longs:
        """Exponential delays, cut at the attribution window, microseconds."""
        mean, window = self.ads.delay[ads], self.params.attribution_days * 24.0
        hours = -mean * np.log1p(uniform * np.expm1(-window / mean))
        return (hours * MICROS_PER_HOUR).astype(np.int64) + 1

    def ad_rows(self, ad_ids: Names) -> Ints:
        """Rows of the catalogue, in the shape of the ids. Raises ContractError, naming the ad."""
        rows = np.minimum(np.searchsorted(self.ads.ids, ad_ids), self.ads.ids.size - 1)
        unknown = self.ads.ids[rows] != ad_ids
        if unknown.any():
            raise ContractError(f"ad {ad_ids[unknown][0]!r} is not in the catalogue")
        return rows.astype(np.int32)

    def user_rows(self, user_ids: Names) -> Ints:
        """Rows of World.users. Raises ContractError naming an unknown one."""
        rows = np.minimum(np.searchsorted(self.users.ids, user_ids), self.users.ids.size - 1)
        unknown = self.users.ids[rows] != user_ids
        if unknown.any():
            raise ContractError(f"user {user_ids[unknown][0]!r} is not in the world")
        return rows.astype(np.int32)


@njit(cache=True)
def _add_intent(
    offsets: Longs,
    time: Longs,
    category: Ints,
    weight: Floats,
    rate: float,
    user: Ints,
    at: Longs,
    out: Floats,
) -> None:
    for row in range(user.size):
        for event in range(offsets[user[row] + 1] - 1, offsets[user[row]] - 1, -1):
            age = at[row] - time[event]
            if age > MICROS_PER_WEEK:
                break
            if age > 0:
                out[row, category[event]] += weight[event] * np.exp(-rate * age)


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))
