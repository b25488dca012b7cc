"""A planted population of any size: every parameter is a function of the seed and its address.

Users have interests in categories that turn with the scenario, and an intent that follows their
recent behaviours and fades with a half-life. They come in sessions, each about one category more
than about others, join and leave; ads come every week, live for some weeks, and wear out. Nothing
of this depends on what is shown, so the expected value of a slate has a closed form.

Users are drawn in shards: a population over one shard is a part of the whole one.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from roiflow.compiled import compiled
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.params import SimulatorParams
from roiflow.simulator import auction
from roiflow.simulator import population as people
from roiflow.simulator.noise import (
    Floats,
    Longs,
    Singles,
    Stream,
    bits_of,
    coarse_normals,
    generator,
    key,
    normal_quantiles,
    normals,
    uniform,
    uniforms,
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
from roiflow.simulator.scenarios.effects import Effects, ends
from roiflow.simulator.visits import Sessions, Visits, Words, draw_visits

SHARD_EVENTS = 450_000
"""About so many events of a week are drawn at a time."""
SHARD_REQUESTS = 10_000_000
"""Request numbers of a week go up by so many from shard to shard."""
NEWCOMER_WEEKS = 52
"""Users join for so many weeks after the first."""

ACTION_SHARES = np.array([0.60, 0.22, 0.08, 0.06, 0.04])
AGES = ("18-24", "25-34", "35-44", "45-54", "55+")
AGE_SHARES = (0.16, 0.28, 0.24, 0.18, 0.14)
MEMBERSHIPS = ("none", "plus", "prime")
MEMBERSHIP_SHARES = (0.55, 0.3, 0.15)
MEMBERSHIP_EFFECT = np.array([-0.2, 0.2, 0.6])
"""Log odds of a conversion."""
REGIONS = ("north", "east", "south", "west")
AGE_INTEREST = 0.5
"""Share of the variance of interests that the age band explains is its square."""
INTEREST_ON_CONVERSION = 0.3
INTEREST_ON_ACTION = 0.5
HOLIDAY_TRAFFIC = 1.3
HOLIDAY_CONVERSION = 0.25
"""Log odds of a conversion."""
BOT_VISITS = 10.0


@dataclass(frozen=True)
class Users:
    """The hidden state of U users and C categories."""

    activity: Singles  # (U,) factor on the mean rates, mean 1
    joined: Longs  # (U,) microseconds
    left: Longs  # (U,) microseconds
    common: Singles  # (U, C) part of the interests that stays
    east: Singles  # (U, C) the part that turns is cos(angle) east + sin(angle) north
    north: Singles  # (U, C)
    click: Floats  # (U,) log odds
    conversion: Floats  # (U,) log odds
    device: Ints  # (U,) the usual one
    age: Ints  # (U,)
    membership: Ints  # (U,)
    region: Ints  # (U,)


def user_count(params: SimulatorParams) -> int:
    """Everybody who is there at first or ever joins."""
    synthetic = params.synthetic
    return synthetic.users + round(synthetic.newcomers * synthetic.users) * NEWCOMER_WEEKS


def shard_users(params: SimulatorParams) -> int:
    """Users of a shard."""
    rates = params.synthetic
    events = rates.behaviours_per_user_day + params.slate_size * rates.requests_per_user_day
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
        return _draw_users(self.params, self.part, self.first_week)

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
            self._ads = dict(list(self._ads.items())[-1:])
            self._ads[address] = _draw_ads(self.params, week, effects, share)
        return self._ads[address]

    def interest(self, angle: float) -> Singles:
        """Lasting interests (U, C) when they have turned by an angle."""
        if angle not in self._interest:
            state = self.state
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
        placement, device = _contexts(bits, user, self.state.device)
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
        tables = _alias_by_category(self.ads(week, effects), week.start, self.categories.size)
        interest = self.interest(effects.turn)
        shares, days = _cumulated(interest), []
        for day in weekdays:
            start = week.start + day * MICROS_PER_DAY
            visits = self._visits(Stream.BEHAVIOURS, start, rate, effects)
            days.append(
                _decide(
                    visits.order, visits.user, visits.time, visits.bits, visits.session,
                    interest, shares, self.params.synthetic.session_intent, *tables,
                    _ACTION_BOUNDS, _logistic_quantiles(), _dwell_table(),
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
        return _odds(
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
            before = week.plus(-1)
            if before >= self.first_week.plus(-1):
                parts = [self._tail(before, self._effects(before)), *parts]
            importance = self.params.synthetic.action_importance
            weight = np.array([importance[name] for name in people.ACTIONS])
            category = self.ads(week, effects).category
            offsets = np.zeros(len(self.part) + 1, np.int64)
            for part in parts:
                _count(part.user, offsets)
            np.cumsum(offsets, out=offsets)
            size = int(offsets[-1])
            made = _History(
                offsets, np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size)
            )
            free = offsets[:-1].copy()
            for part in parts:
                _place(
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


def _draw_users(params: SimulatorParams, part: range, first_week: Week) -> Users:
    synthetic, seed = params.synthetic, params.seed
    numbers = np.arange(part.start, part.stop)
    categories = synthetic.categories

    def draw(what: int) -> Floats:
        return uniforms(key(seed, Stream.USERS, what), numbers)

    def pick(what: int, shares: tuple[float, ...]) -> Ints:
        return np.searchsorted(np.cumsum(shares)[:-1], draw(what), "right").astype(np.int32)

    age, membership = pick(0, AGE_SHARES), pick(1, MEMBERSHIP_SHARES)
    by_age = generator(seed, Stream.USERS, 99).standard_normal((len(AGES), categories))
    own = np.float32(np.sqrt(1 - AGE_INTEREST**2))
    turning = (
        coarse_normals(key(seed, Stream.INTERESTS), part.start, len(part), 2 * categories) * own
    )
    joined = _joined_week(synthetic.users, synthetic.newcomers, numbers)
    if synthetic.churn:
        tenure = np.log(uniforms(key(seed, Stream.TENURE), numbers)) / np.log1p(-synthetic.churn)
        left = np.maximum(joined, 0) + 1 + np.minimum(tenure, 10_000).astype(np.int64)
    else:
        left = np.full(numbers.size, 100_000)
    width = MICROS_PER_WEEK
    return Users(
        activity=_gamma(synthetic.activity_shape, draw(2)),
        joined=first_week.start + joined * width,
        left=first_week.start + left * width,
        common=(AGE_INTEREST * by_age).astype(np.float32)[age],
        east=np.ascontiguousarray(turning[:, :categories]),
        north=np.ascontiguousarray(turning[:, categories:]),
        click=0.3 * normals(key(seed, Stream.USERS, 3), numbers),
        conversion=MEMBERSHIP_EFFECT[membership]
        + 0.3 * normals(key(seed, Stream.USERS, 4), numbers),
        device=pick(5, people.DEVICE_SHARES),
        age=age,
        membership=membership,
        region=(draw(6) * len(REGIONS)).astype(np.int32),
    )


def _joined_week(at_first: int, share: float, numbers: Longs) -> Longs:
    """Weeks after the first at which users (n,) join; -53 for those who are there before."""
    a_week = max(1, round(share * at_first))
    return np.where(numbers < at_first, -53, 1 + (numbers - at_first) // a_week)


def _gamma(shape: float, uniform: Floats) -> Singles:
    """Gamma quantiles of mean 1, from a table of 65,536."""
    table = _gamma_quantiles(shape)
    out: Singles = table[(uniform * table.size).astype(np.int64)]
    return out


@lru_cache(maxsize=8)
def _gamma_quantiles(shape: float) -> Singles:
    from scipy.special import gammaincinv

    middles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    table: Singles = (gammaincinv(shape, middles) / shape).astype(np.float32)
    return table


def _draw_ads(params: SimulatorParams, week: Week, effects: Effects, share: float) -> Ads:
    """Ads are numbered as they come, so a later week only appends; budgets are of a share."""
    synthetic, seed = params.synthetic, params.seed
    start = Week.parse(params.first_week)
    passed = max(0, (week.start - start.start) // MICROS_PER_WEEK)
    count = synthetic.ads + passed * synthetic.new_ads_per_week
    number, categories = np.arange(count), synthetic.categories

    def normal(what: int) -> Floats:
        return normals(key(seed, Stream.ADS, what), number)

    def draw(what: int) -> Floats:
        return uniforms(key(seed, Stream.ADS, what), number)

    rng = generator(seed, Stream.CATEGORIES)
    level = np.exp(rng.permutation(np.linspace(-1.0, 1.0, categories)))
    category_conversion = 0.35 * rng.standard_normal(categories)
    shortest, longest = params.delay_hours
    delay = rng.permutation(np.geomspace(shortest, longest, categories))
    ranks = rng.permutation(categories)
    category = ranks[number % categories]
    brand = 3 * category + (draw(0) * 3).astype(np.int64)
    brand_click = 0.2 * rng.standard_normal(3 * categories)
    advertisers = max(1, synthetic.ads // 5)
    advertiser = (draw(1) * advertisers).astype(np.int64)
    campaign = 2 * advertiser + (draw(2) * 2).astype(np.int64)
    price = synthetic.price_median * level[category] * np.exp(synthetic.price_sigma * normal(3))
    price = people.micros(price)
    odds = params.conversion_rate / (1 - params.conversion_rate)
    expected = price / (1 + np.exp(-category_conversion[category]) / odds)
    born = np.where(
        number < synthetic.ads,
        0,
        1 + (number - synthetic.ads) // max(1, synthetic.new_ads_per_week),
    )
    first = start.start + born * MICROS_PER_WEEK
    age_days = 7 + (draw(4) * 358).astype(np.int64)
    lifetime = np.ceil(-synthetic.ad_weeks * np.log(draw(5))).astype(np.int64)
    last = first + np.minimum(lifetime, 100_000) * MICROS_PER_WEEK
    last = np.where(number < min(synthetic.ads, params.slate_size), np.iinfo(np.int64).max, last)
    last = ends(effects, advertiser, first, last)
    creative = (week.start - first) // MICROS_PER_WEEK + age_days // 7
    worn = np.log2(1 + creative % synthetic.creative_weeks)
    popularity = (1 + number // categories) ** -synthetic.popularity_exponent
    bid = auction.bids(params.auction, params.click_rate, expected, normal(6))
    shows = synthetic.users * synthetic.requests_per_user_day * params.slate_size / synthetic.ads
    return Ads(
        ids=names("a", count, width=6),
        campaign=names("k", 2 * advertisers)[campaign],
        advertiser=names("v", advertisers)[advertiser],
        brand=names("b", 3 * categories)[brand],
        category=category.astype(np.int32),
        ad_type=np.searchsorted((0.6, 0.85), draw(7), "right").astype(np.int32),
        price=people.micros(price * effects.price / 1e6),
        bid=bid,
        budget=auction.budgets(
            params.auction, bid, params.click_rate, shows * effects.budget * share, normal(8)
        ),
        market=auction.market(params.auction, params.click_rate, expected),
        created_at=first - np.where(born == 0, age_days, 0) * MICROS_PER_DAY,
        first=first,
        last=last,
        click=brand_click[brand] + 0.35 * normal(9) - synthetic.fatigue * worn,
        conversion=category_conversion[category] + 0.35 * normal(10),
        delay=delay[category],
        weight=np.asarray(popularity, np.float64),
    )


def _numbers(user: Ints, first: int, width: int) -> Longs:
    """Names of requests in time order: the user's shard, then the rank within it."""
    shard = (user.astype(np.int64) + first) // width
    low, high = (int(shard.min()), int(shard.max())) if shard.size else (0, 0)
    number = np.empty(user.size, np.int64)
    for one in range(low, high + 1):
        own = np.flatnonzero(shard == one)
        number[own] = one * SHARD_REQUESTS + np.arange(own.size)
    return number


_ACTION_BOUNDS = 0.5 + np.log(np.cumsum(ACTION_SHARES)[:-1] / (1 - np.cumsum(ACTION_SHARES)[:-1]))


@lru_cache(maxsize=1)
def _logistic_quantiles() -> Singles:
    share = (np.arange(4096) + 0.5) / 4096
    table: Singles = np.log(share / (1 - share)).astype(np.float32)
    return table


@lru_cache(maxsize=1)
def _dwell_table() -> Longs:
    """Milliseconds (actions, 4096): log-normal, longer for stronger actions."""
    normal = normal_quantiles()[8::16].astype(np.float64)
    action = np.arange(len(people.ACTIONS))[:, None]
    return np.exp(8.0 + 0.3 * action + 0.8 * normal).astype(np.int64)


def _cumulated(interest: Singles) -> Singles:
    """Cumulated shares (U, C) of the categories that users turn to."""
    weight = np.exp(interest)
    total = np.cumsum(weight, axis=1)
    shares: Singles = total / total[:, -1:]
    return shares


def _alias_by_category(ads: Ads, at: int, categories: int) -> tuple[Longs, Ints, Singles, Ints]:
    """Alias tables of the ads of each category (Walker, 1977): live ones, or all where none lives.

    Ads `order` of category c are at [first[c], first[c + 1]); entry e stays with probability
    chance[e] and is entry other[e] otherwise.
    """
    live = (ads.first <= at) & (at < ads.last)
    lively = np.bincount(ads.category[live], minlength=categories) > 0
    rows = np.flatnonzero(live | ~lively[ads.category])
    order = rows[np.argsort(ads.category[rows], kind="stable")].astype(np.int32)
    first = np.searchsorted(ads.category[order], np.arange(categories + 1))
    chance, other = _alias(first, ads.weight[order])
    return first, order, chance, other


@compiled(nogil=True)
def _alias(first: Longs, weight: Floats) -> tuple[Singles, Ints]:
    chance = np.ones(weight.size, np.float32)
    other = np.arange(weight.size).astype(np.int32)
    for block in range(first.size - 1):
        low, high = first[block], first[block + 1]
        count = high - low
        if count == 0:
            continue
        share = weight[low:high] / weight[low:high].sum() * count
        small, large = np.empty(count, np.int64), np.empty(count, np.int64)
        smalls, larges = 0, 0
        for row in range(count):
            if share[row] < 1.0:
                small[smalls] = row
                smalls += 1
            else:
                large[larges] = row
                larges += 1
        while smalls and larges:
            smalls -= 1
            less, more = small[smalls], large[larges - 1]
            chance[low + less] = share[less]
            other[low + less] = low + more
            share[more] -= 1.0 - share[less]
            if share[more] < 1.0:
                larges -= 1
                small[smalls] = more
                smalls += 1
    return chance, other


@compiled(nogil=True)
def _decide(
    order: Longs,
    user: Ints,
    time: Longs,
    bits: Words,
    session: Words,
    interest: Singles,
    cumulated: Singles,
    stay: float,
    first: Longs,
    ads: Ints,
    chance: Singles,
    other: Ints,
    bounds: Floats,
    logistic: Singles,
    dwell: Longs,
) -> tuple[Ints, Ints, Ints, Longs, Longs]:
    """User, ad, action, time and dwell of visits, in their order."""
    count, categories = order.size, cumulated.shape[1]
    out_user, out_ad = np.empty(count, np.int32), np.empty(count, np.int32)
    out_action, out_time = np.empty(count, np.int32), np.empty(count, np.int64)
    out_dwell = np.empty(count, np.int64)
    for row in range(order.size):
        visit = order[row]
        who, word = user[visit], bits[visit]
        about = uniform(bits_of(word, 0))
        share = uniform(session[visit]) if about < stay else (about - stay) / (1.0 - stay)
        category = 0
        while category < categories - 1 and share >= cumulated[who, category]:
            category += 1
        low, size = first[category], first[category + 1] - first[category]
        entry = low + np.int64(((word & np.uint64(0xFFFFFFFF)) * np.uint64(size)) >> np.uint64(32))
        if np.float64((word >> np.uint64(32)) & np.uint64(0xFFFF)) / 65536.0 >= chance[entry]:
            entry = other[entry]
        rest = bits_of(word, 1)
        strength = INTEREST_ON_ACTION * interest[who, category]
        strength += logistic[rest & np.uint64(0xFFF)]
        kind = 0
        while kind < bounds.size and strength > bounds[kind]:
            kind += 1
        out_user[row] = who
        out_ad[row] = ads[entry]
        out_action[row] = kind
        out_time[row] = time[visit]
        out_dwell[row] = dwell[kind, (rest >> np.uint64(12)) & np.uint64(0xFFF)]
    return out_user, out_ad, out_action, out_time, out_dwell


@compiled(nogil=True)
def _contexts(bits: Words, user: Ints, usual: Ints) -> tuple[Ints, Ints]:
    placement, device = np.empty(user.size, np.int32), np.empty(user.size, np.int32)
    for row in range(user.size):
        word = bits[row]
        share = np.float64(word & np.uint64(0xFFFF)) / 65536.0
        placement[row] = (share >= PLACED[0]) + (share >= PLACED[1])
        same = np.float64((word >> np.uint64(16)) & np.uint64(0xFFFF)) / 65536.0
        share = np.float64((word >> np.uint64(32)) & np.uint64(0xFFFF)) / 65536.0
        other = (share >= USED[0]) + (share >= USED[1])
        device[row] = usual[user[row]] if same < 0.8 else other
    return placement, device


PLACED = (people.PLACEMENT_SHARES[0], people.PLACEMENT_SHARES[0] + people.PLACEMENT_SHARES[1])
USED = (people.DEVICE_SHARES[0], people.DEVICE_SHARES[0] + people.DEVICE_SHARES[1])


@compiled(nogil=True)
def _count(user: Ints, offsets: Longs) -> None:
    """Add how often each user occurs, one place on."""
    for who in user:
        offsets[who + 1] += 1


@compiled(nogil=True)
def _place(
    user: Ints,
    time: Longs,
    ad: Ints,
    action: Ints,
    category_of: Ints,
    weight_of: Floats,
    rate: float,
    origin: int,
    free: Longs,
    out_time: Longs,
    out_category: Ints,
    out_grown: Floats,
) -> None:
    """Put each user's events where they are free, in the order in which they come."""
    for row in range(user.size):
        place = free[user[row]]
        free[user[row]] = place + 1
        out_time[place] = time[row]
        out_category[place] = category_of[ad[row]]
        out_grown[place] = weight_of[action[row]] * np.exp(rate * (time[row] - origin))


@compiled(nogil=True)
def _odds(
    user: Ints,
    at: Longs,
    device: Ints,
    base: Floats,
    won: Floats,
    interest: Singles,
    interest_weight: float,
    intent_weight: float,
    offsets: Longs,
    time: Longs,
    category: Ints,
    grown: Floats,
    rate: float,
    origin: int,
    reach: int,
    rows: Ints,
    ad_category: Ints,
    ad_type: Ints,
    ad_click: Floats,
    ad_conversion: Floats,
    creative: Floats,
) -> tuple[Floats, Floats]:
    click, conversion = np.empty(rows.shape), np.empty(rows.shape)
    recent = np.empty(interest.shape[1])
    for row in range(user.size):
        who = user[row]
        recent[:] = 0.0
        for event in range(offsets[who + 1] - 1, offsets[who] - 1, -1):
            age = at[row] - time[event]
            if age > reach:
                break
            if age > 0:
                recent[category[event]] += grown[event]
        fade = np.exp(-rate * (at[row] - origin))
        for place in range(rows.shape[1]):
            ad = rows[row, place]
            about = ad_category[ad]
            intent = np.log1p(fade * recent[about]) if recent[about] > 0.0 else 0.0
            click[row, place] = (
                base[row]
                + interest_weight * interest[who, about]
                + intent_weight * intent
                + creative[ad_type[ad], device[row]]
                + ad_click[ad]
            )
            conversion[row, place] = (
                won[row] + INTEREST_ON_CONVERSION * interest[who, about] + ad_conversion[ad]
            )
    return click, conversion
