"""A planted population of any size: every parameter is a function of the seed and its address.

Users have interests in categories that turn with the scenario, and an intent that follows their
recent behaviours and fades with a half-life. They come in sessions, each about one category more
than about others, join and leave; ads come every week, live for some weeks, and wear out. Nothing
of this depends on what is shown, so the expected value of a slate has a closed form.

Users are drawn in shards: a population over one shard is a part of the whole one.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.params import SimulatorParams
from roiflow.simulator import population as people
from roiflow.simulator.noise import (
    Floats,
    Longs,
    Singles,
    Stream,
    key,
)
from roiflow.simulator.population import (
    Ads,
    Flags,
    Ints,
    Names,
    WorldBehaviours,
    WorldRequests,
    names,
)
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.scenarios.effects import Effects
from roiflow.simulator.synthetic_draws import (
    AGES,
    MEMBERSHIPS,
    REGIONS,
    Users,
    draw_ads,
    draw_users,
)
from roiflow.simulator.synthetic_passes import (
    ACTION_BOUNDS,
    alias_by_category,
    contexts,
    count_by_user,
    cumulated_shares,
    decide,
    dwell_table,
    log_odds_of,
    logistic_quantiles,
    place_by_user,
)
from roiflow.simulator.visits import Sessions, Visits, draw_visits

SHARD_EVENTS = 450_000
"""About so many events of a week are drawn at a time."""
SHARD_REQUESTS = 10_000_000
"""Request numbers of a week go up by so many from shard to shard."""
NEWCOMER_WEEKS = 52
"""Users join for so many weeks after the first."""

HOLIDAY_TRAFFIC = 1.3
HOLIDAY_CONVERSION = 0.25
"""Log odds of a conversion."""
BOT_VISITS = 10.0


def user_count(params: SimulatorParams) -> int:
    """Everybody who is there at first or ever joins."""
    synthetic = params.synthetic
    return synthetic.users + round(synthetic.newcomers * synthetic.users) * NEWCOMER_WEEKS


def shard_users(params: SimulatorParams) -> int:
    """Users of a shard."""
    rates = params.synthetic
    events = rates.behaviours_per_user_day + params.slate_size * rates.requests_per_user_day
    # Not too few users: each shard repeats what is the same for all, the ads above all.
    return max(1000, round(SHARD_EVENTS / (7 * events)))


def shards(params: SimulatorParams) -> list[range]:
    """Ranges of user numbers that are drawn apart."""
    count, width = user_count(params), shard_users(params)
    return [range(at, min(at + width, count)) for at in range(0, count, width)]


class SyntheticPopulation:
    """Users `part` of the planted population, all of them unless told otherwise."""

    last_week: Week | None = None

    def __init__(self, params: SimulatorParams, part: range | None = None) -> None:
        self.params = params
        self.first_week = Week.parse(params.first_week)
        self.part = part or range(user_count(params))
        self.categories: Names = names("c", params.synthetic.categories)
        self._ads: dict[tuple[Week, float, float, object], Ads] = {}
        self._weeks: dict[Week, WorldBehaviours] = {}
        self._tails: dict[Week, WorldBehaviours] = {}
        self._histories: dict[Week, _History] = {}
        self._interest: dict[float, Singles] = {}

    @cached_property
    def user_ids(self) -> Names:
        """(U,), sorted."""
        width = len(str(user_count(self.params)))
        return names("u", len(self.part), self.part.start + 1, width)

    @cached_property
    def state(self) -> Users:
        """The hidden state of the users."""
        return draw_users(self.params, self.part, self.first_week)

    def bots(self, share: float) -> Flags:
        """Which users (U,) are bots where a share of all are."""
        return people.bots(self.params.seed, self.part.start, len(self.part), share)

    def users(self, week: Week) -> tuple[Ints, dict[str, Names]]:
        """Rows of those who have joined and not left by the week's start, and their profile."""
        here = np.flatnonzero(self._present(week.start)).astype(np.int32)
        state = self.state
        return here, {
            "age": np.array(AGES)[state.age[here]],
            "membership": np.array(MEMBERSHIPS)[state.membership[here]],
            "region": np.array(REGIONS)[state.region[here]],
        }

    def _present(self, start: int) -> Flags:
        return (self.state.joined <= start) & (start < self.state.left)

    def ads(self, week: Week, effects: Effects) -> Ads:
        """Every ad up to the week."""
        address = (week, effects.price, effects.budget, effects.stopped)
        if address not in self._ads:
            share = len(self.part) / user_count(self.params)
            # Two are kept: a week's history reaches into the one before, whose ads it needs.
            self._ads = dict(list(self._ads.items())[-1:])
            self._ads[address] = draw_ads(self.params, week, effects, share)
        return self._ads[address]

    def interest(self, angle: float) -> Singles:
        """Lasting interests (U, C) when they have turned by an angle."""
        if angle not in self._interest:
            state = self.state
            # float32 factors: a double would turn two large arrays into doubles.
            turned = (
                np.float32(np.cos(angle)) * state.east + np.float32(np.sin(angle)) * state.north
            )
            self._interest = dict(list(self._interest.items())[-1:])
            self._interest[angle] = state.common + turned
        return self._interest[angle]

    def _visits(self, stream: Stream, start: int, rate: float, effects: Effects) -> Visits:
        """One day's visits of every shard of the part, in time order."""
        synthetic, day = self.params.synthetic, start // MICROS_PER_DAY
        weekday = (day + 3) % 7
        factor = people.WEEKDAY_FACTORS[weekday] * effects.traffic[weekday]
        factor *= HOLIDAY_TRAFFIC if is_holiday(synthetic.holidays, day) else 1.0
        mean = self.state.activity * np.float32(rate * factor / synthetic.session_events)
        # A user who is not there has mean 0 and draws nothing; the others' draws stay the same.
        mean *= self._present(start)
        if effects.bots:
            bot = self.bots(effects.bots)
            mean = np.where(bot, np.float32(BOT_VISITS) * mean, mean)
        return draw_visits(
            key(self.params.seed, stream, day), self.part.start, mean, self._sessions, start
        )

    @cached_property
    def _sessions(self) -> Sessions:
        synthetic = self.params.synthetic
        return Sessions(
            events=synthetic.session_events,
            gap=synthetic.session_minutes * 60e6,
            hours=np.cumsum(people.HOUR_SHARES),
            grid=self.params.known_lag_hours * MICROS_PER_HOUR,
        )

    def requests(self, week: Week, effects: Effects) -> WorldRequests:
        """Every request of a week."""
        rate = self.params.synthetic.requests_per_user_day
        visits = [
            self._visits(Stream.REQUESTS, week.start + day * MICROS_PER_DAY, rate, effects)
            for day in range(7)
        ]
        user, time, bits = (
            np.concatenate([getattr(one, name)[one.order] for one in visits])
            for name in ("user", "time", "bits")
        )
        placement, device = contexts(bits, user, self.state.device)
        return WorldRequests(
            number=_numbers(user, self.part.start, shard_users(self.params)),
            event_time=time,
            user_index=user,
            placement_index=placement,
            device_index=device,
        )

    def behaviours(self, week: Week, effects: Effects) -> WorldBehaviours:
        """Every organic behaviour of a week; the stronger the interest, the stronger the action."""
        if week not in self._weeks:
            self._weeks = {week: self._days(week, range(7), effects)}
            late = week.end - self.params.synthetic.intent_days * MICROS_PER_DAY
            from_late = int(np.searchsorted(self._weeks[week].event_time, late))
            self._tails = dict(list(self._tails.items())[-1:])
            # A copy: a view would keep the whole week in memory.
            self._tails[week] = self._weeks[week].take(slice(from_late, None)).copy()
        return self._weeks[week]

    def _tail(self, week: Week, effects: Effects) -> WorldBehaviours:
        """The last intent_days of a week."""
        if week not in self._tails:
            days = range(7 - self.params.synthetic.intent_days, 7)
            return self._days(week, days, effects)
        return self._tails[week]

    def _days(self, week: Week, weekdays: range, effects: Effects) -> WorldBehaviours:
        rate = self.params.synthetic.behaviours_per_user_day
        ads = self.ads(week, effects)
        interest = self.interest(effects.turn)
        shares, days = cumulated_shares(interest), []
        for day in weekdays:
            start = week.start + day * MICROS_PER_DAY
            # By the day: users come upon a new ad by themselves from the next midnight on.
            tables = alias_by_category(ads, start, self.categories.size)
            visits = self._visits(Stream.BEHAVIOURS, start, rate, effects)
            days.append(
                decide(
                    visits.order, visits.user, visits.time, visits.bits, visits.session,
                    interest, shares, self.params.synthetic.session_intent, *tables,
                    ACTION_BOUNDS, logistic_quantiles(), dwell_table(),
                )
            )  # fmt: skip
        user, ad, action, time, dwell = (np.concatenate(one) for one in zip(*days, strict=True))
        return WorldBehaviours(user, ad, action, time, dwell)

    def log_odds(
        self, requests: WorldRequests, ads: Ads, rows: Ints, effects: Effects
    ) -> tuple[Floats, Floats]:
        """See Population.log_odds."""
        params, synthetic, state = self.params, self.params.synthetic, self.state
        if not requests.number.size:
            return np.zeros(rows.shape), np.zeros(rows.shape)
        week = Week.of(int(requests.event_time[0]))
        history = self._history(week, effects)
        day = requests.event_time // MICROS_PER_DAY
        holiday = np.array(
            [is_holiday(synthetic.holidays, int(at)) for at in range(day[0], day[-1] + 1)]
        )
        weekday = effects.conversion[(day + 3) % 7]
        extra = weekday + HOLIDAY_CONVERSION * holiday[day - day[0]]
        user = requests.user_index
        hour = requests.event_time // MICROS_PER_HOUR % 24
        base = (
            people.logit(params.click_rate)
            + state.click[user]
            + people.PLACEMENT_EFFECT[requests.placement_index]
            + people.HOUR_EFFECT[hour]
        )
        won = people.logit(params.conversion_rate) + state.conversion[user] + extra
        return log_odds_of(
            user, requests.event_time, requests.device_index, base, won,
            self.interest(effects.turn), params.interest_weight, params.intent_weight,
            history.offsets, history.time, history.category, history.grown, self._fading,
            week.start, synthetic.intent_days * MICROS_PER_DAY,
            np.ascontiguousarray(rows), ads.category, ads.ad_type,
            ads.click, ads.conversion, people.AD_TYPE_ON_DEVICE,
        )  # fmt: skip

    @property
    def _fading(self) -> float:
        """Of intent, per microsecond."""
        return float(np.log(2) / (self.params.synthetic.half_life_hours * MICROS_PER_HOUR))

    def _history(self, week: Week, effects: Effects) -> "_History":
        if week not in self._histories:
            parts = [self.behaviours(week, effects)]
            # The first week has a week before it too, of behaviours alone, so that intent is not 0
            # at its start.
            before = week.plus(-1)
            if before >= self.first_week.plus(-1):
                parts = [self._tail(before, self._effects(before)), *parts]
            importance = self.params.synthetic.action_importance
            weight = np.array([importance[name] for name in people.ACTIONS])
            category = self.ads(week, effects).category
            # A counting sort by user. Parts come in time order and so do rows in them, so each
            # user's events are in time order without a comparison.
            offsets = np.zeros(len(self.part) + 1, np.int64)
            for part in parts:
                count_by_user(part.user, offsets)
            np.cumsum(offsets, out=offsets)
            size = int(offsets[-1])
            made = _History(
                offsets, np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size)
            )
            free = offsets[:-1].copy()
            for part in parts:
                place_by_user(
                    part.user, part.event_time, part.ad, part.action, category, weight,
                    self._fading, week.start, free, made.time, made.category, made.grown,
                )  # fmt: skip
            self._histories = {week: made}
        return self._histories[week]

    def _effects(self, week: Week) -> Effects:
        return SCENARIOS[self.params.scenario].effects(self.params, week)


@dataclass(frozen=True)
class _History:
    """Behaviours of some days, CSR by user, each user's in time order."""

    offsets: Longs
    time: Longs
    category: Ints
    grown: Floats
    """An action's importance times exp(rate x (time - the week's start)): fades alike for all."""


def is_holiday(holidays: list[str], day: int) -> bool:
    """Whether a day since the epoch is one of MM-DD."""
    return str(np.datetime64(day, "D"))[5:] in holidays


def _numbers(user: Ints, first: int, width: int) -> Longs:
    """Names of requests in time order: the user's shard, then the rank within it."""
    # By shard, so that a part numbers its requests as the whole population does.
    shard = (user.astype(np.int64) + first) // width
    low, high = (int(shard.min()), int(shard.max())) if shard.size else (0, 0)
    number = np.empty(user.size, np.int64)
    for one in range(low, high + 1):
        own = np.flatnonzero(shard == one)
        number[own] = one * SHARD_REQUESTS + np.arange(own.size)
    return number
