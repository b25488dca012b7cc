"""An ad world whose truth is known.

Users have interests in categories that turn slowly, and an intent that follows their recent
behaviours and fades with a half-life. A request shows a slate; position k is looked at with
probability 1 / k^exponent (position-based model, Richardson et al., 2007), an ad that is looked at
is clicked with a logistic probability, a click converts with another one after an exponential
delay, and revenue is log-normal around the price. The advertiser pays a share of the bid per click.

Behaviours do not depend on what is shown, so the expected value of a slate has a closed form.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.schemas import ADS, BEHAVIOURS, CONVERSIONS, IMPRESSIONS, TIME, USERS
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_WEEK, Week
from roiflow.errors import ContractError, PropensityError
from roiflow.params import SimulatorParams
from roiflow.simulator import population as people
from roiflow.simulator.noise import Floats, Longs, Stream, generator, key, normals, uniforms
from roiflow.simulator.population import Ads, Ints, Names, Users

Progress = Callable[[float, str], None]
"""Told the done fraction and what is being done."""

MEMORY = 4
"""Weeks of behaviours that are kept."""


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


class SlateChooser(Protocol):
    """What fills slates: the logging policy, the oracle, a served model."""

    policy_version: str
    arm: str

    def choose(self, requests: WorldRequests, rng: np.random.Generator) -> "tuple[Ints, Floats]":
        """Ads (B, S), rows of the catalogue, and propensities (B, S), each given the ads above."""
        ...

    def observe(self, tables: Tables) -> None:
        """Impressions, behaviours and conversions that have just become known."""
        ...


@dataclass(frozen=True)
class WeekRun:
    """What a served week left behind."""

    tables: Tables  # rows that became known in the week, and its two snapshots
    pending: Tables  # impressions, behaviours and conversions that the next week gets to know


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
        self._behaviours: OrderedDict[Week, WorldBehaviours] = OrderedDict()
        importance = [params.action_importance[action] for action in people.ACTIONS]
        self._importance = np.array(importance, dtype=np.float64)

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
        if week not in self._behaviours:
            parts = [self._behaviours_of_day(week.start + day * MICROS_PER_DAY) for day in range(7)]
            columns = zip(*parts, strict=True)
            self._behaviours[week] = WorldBehaviours(*(np.concatenate(x) for x in columns))
            while len(self._behaviours) > MEMORY:
                self._behaviours.popitem(last=False)
        return self._behaviours[week]

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
        week, last = Week.of(int(event_time.min())).plus(-1), Week.of(int(event_time.max()))
        parts = []
        while week <= last:
            parts.append(self.behaviours(week))
            week = week.plus(1)
        who = np.concatenate([part.user for part in parts])
        order = np.argsort(who, kind="stable")
        offsets = np.searchsorted(who[order], np.arange(self.users.ids.size + 1))
        category = self.ads.category[np.concatenate([part.ad for part in parts])[order]]
        weight = self._importance[np.concatenate([part.action for part in parts])[order]]
        time = np.concatenate([part.event_time for part in parts])[order]
        rate = np.log(2) / (self.params.half_life_hours * MICROS_PER_HOUR)
        _add_intent(offsets, time, category, weight, rate, user, event_time, out)
        return out

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

    def run_week(
        self,
        week: Week,
        chooser: SlateChooser,
        carried: Tables,
        progress: Progress | None = None,
        chunk_hours: int | None = None,
    ) -> WeekRun:
        """Let `chooser` fill the week's slates, in chunks of known_lag_hours unless told otherwise.

        `carried` is what earlier weeks left pending. Before each chunk the chooser observes what
        has become known. Raises PropensityError or ContractError, naming the request, where the
        chooser's answer is not a slate.
        """
        step = (chunk_hours or self.params.known_lag_hours) * MICROS_PER_HOUR
        requests = self.requests(week)
        starts = np.arange(week.start, week.end, step)
        first = np.searchsorted(requests.event_time, np.append(starts, week.end))
        log = _Log(carried, self.behaviour_table(week))
        for chunk, start in enumerate(starts.tolist()):
            chooser.observe(log.news(start))
            part = requests.take(slice(first[chunk], first[chunk + 1]))
            rng = generator(self.params.seed, Stream.CHOOSER, start // MICROS_PER_HOUR)
            ads, propensity = chooser.choose(part, rng)
            self._check(week, part, ads, propensity)
            impressions, conversions = self._happen(week, part, ads, propensity, chooser)
            log.add(impressions=impressions, conversions=conversions)
            if progress:
                progress((chunk + 1) / starts.size, f"{week} by {chooser.policy_version}")
        return log.close(week, {"ads": self.ad_table(week), "users": self.user_table(week)})

    def _check(self, week: Week, requests: WorldRequests, ads: Ints, propensity: Floats) -> None:
        shape = (requests.number.size, self.params.slate_size)
        if ads.shape != shape or propensity.shape != shape:
            raise ContractError(
                f"week {week}: slates {ads.shape} with propensities {propensity.shape}, "
                f"expected {shape}"
            )
        ordered = np.sort(ads, axis=1)
        wrong = (ordered[:, 0] < 0) | (ordered[:, -1] >= self.ads.ids.size)
        wrong |= (np.diff(ordered, axis=1) == 0).any(axis=1)
        for row in np.flatnonzero(wrong)[:1]:
            raise ContractError(
                f"week {week}, request {requests.number[row]}: ads {ads[row].tolist()} are not "
                f"{shape[1]} different rows of a catalogue of {self.ads.ids.size}"
            )
        outside = ~((propensity > 0) & (propensity <= 1)).all(axis=1)
        for row in np.flatnonzero(outside)[:1]:
            raise PropensityError(
                f"week {week}, request {requests.number[row]}: {propensity[row].tolist()} outside "
                "(0, 1]"
            )

    def _happen(
        self,
        week: Week,
        requests: WorldRequests,
        ads: Ints,
        propensity: Floats,
        chooser: SlateChooser,
    ) -> tuple[pa.Table, pa.Table]:
        """Impressions and conversions of slates; every draw is addressed by its impression."""
        slots = self.params.slate_size
        cell = requests.number[:, None] * slots + np.arange(slots)

        def family(stream: Stream) -> np.uint64:
            return key(self.params.seed, stream, week.start // MICROS_PER_DAY)

        truth = self.respond(requests, ads)
        clicked = uniforms(family(Stream.CLICK), cell) < self.examination * truth.click
        converted = clicked & (uniforms(family(Stream.CONVERSION), cell) < truth.conversion)
        time = np.repeat(requests.event_time, slots)
        flat, won = ads.ravel(), np.flatnonzero(converted)
        request_id = _ids(week, requests.number)
        impression_id = _ids(week, requests.number, slots)
        bid = self.ads.bid[flat]
        impressions = {
            c.EVENT_TIME: time,
            c.KNOWN_TIME: self.known_time(time),
            c.REQUEST: request_id.take(pa.array(np.repeat(np.arange(requests.number.size), slots))),
            c.IMPRESSION: impression_id,
            c.USER: _take(self.users.ids, np.repeat(requests.user_index, slots)),
            c.AD: _take(self.ads.ids, flat),
            c.POSITION: np.tile(np.arange(1, slots + 1, dtype=np.int32), requests.number.size),
            c.SLATE_SIZE: np.full(flat.size, slots, dtype=np.int32),
            c.PLACEMENT: _take(
                np.array(people.PLACEMENTS), np.repeat(requests.placement_index, slots)
            ),
            c.DEVICE: _take(np.array(people.DEVICES), np.repeat(requests.device_index, slots)),
            c.BID: bid,
            c.COST: np.where(clicked.ravel(), truth.cost.ravel(), 0).astype(np.int64),
            c.PROPENSITY: propensity.ravel(),
            c.POLICY_VERSION: _repeat(chooser.policy_version, flat.size),
            c.ARM: _repeat(chooser.arm, flat.size),
            c.CLICKED: clicked.ravel(),
        }
        late = self._delay(
            uniforms(family(Stream.DELAY), cell.ravel()[won]), self.ads.delay[flat[won]]
        )
        when = time[won] + late
        sigma = self.params.revenue_sigma
        spread = np.exp(sigma * normals(family(Stream.REVENUE), cell.ravel()[won]) - sigma**2 / 2)
        conversions = {
            c.EVENT_TIME: when,
            c.KNOWN_TIME: self.known_time(when),
            c.IMPRESSION: impression_id.take(pa.array(won)),
            c.REVENUE: np.rint(truth.revenue.ravel()[won] * spread).astype(np.int64),
        }
        return _table(impressions, IMPRESSIONS), _table(conversions, CONVERSIONS)

    def _delay(self, uniform: Floats, mean_hours: Floats) -> Longs:
        """Exponential delays, cut at the attribution window, microseconds."""
        window = self.params.attribution_days * 24.0
        hours = -mean_hours * np.log1p(-uniform * -np.expm1(-window / mean_hours))
        return (hours * MICROS_PER_HOUR).astype(np.int64) + 1

    def behaviour_table(self, week: Week) -> pa.Table:
        """Behaviours that happened in a week, in the contract's schema."""
        rows = self.behaviours(week)
        return _table(
            {
                c.EVENT_TIME: rows.event_time,
                c.KNOWN_TIME: self.known_time(rows.event_time),
                c.USER: _take(self.users.ids, rows.user),
                c.AD: _take(self.ads.ids, rows.ad),
                c.CATEGORY: _take(self._categories(), self.ads.category[rows.ad]),
                c.ACTION: _take(np.array(people.ACTIONS), rows.action),
                c.DWELL_MS: rows.dwell_ms,
            },
            BEHAVIOURS,
        )

    def _categories(self) -> Names:
        return people.names("c", self.params.categories)

    def ad_table(self, week: Week) -> pa.Table:
        """The week's catalogue; no ad has a budget limit."""
        ads = self.ads
        start = np.full(ads.ids.size, week.start)
        return _table(
            {
                c.EVENT_TIME: start,
                c.KNOWN_TIME: start,
                c.AD: ads.ids,
                c.CAMPAIGN: ads.campaign,
                c.ADVERTISER: ads.advertiser,
                c.CATEGORY: self._categories()[ads.category],
                c.BRAND: ads.brand,
                c.AD_TYPE: np.array(people.AD_TYPES)[ads.ad_type],
                c.PRICE: ads.price,
                c.BID: ads.bid,
                c.DAILY_BUDGET: pa.nulls(ads.ids.size, pa.int64()),
                c.CREATED_AT: ads.created_at,
            },
            ADS,
        )

    def user_table(self, week: Week) -> pa.Table:
        """Users who have joined by the week, with their profile."""
        here = np.flatnonzero(self.users.joined <= week.start)
        start = np.full(here.size, week.start)
        profile = {
            "age": np.array(people.AGES)[self.users.age[here]],
            "membership": np.array(people.MEMBERSHIPS)[self.users.membership[here]],
            "region": np.array(people.REGIONS)[self.users.region[here]],
        }
        schema = USERS
        for name in profile:
            schema = schema.append(pa.field(name, pa.string(), False))
        known = {c.EVENT_TIME: start, c.KNOWN_TIME: start, c.USER: self.users.ids[here]}
        return _table(known | profile, schema)

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


DELAYED = {"impressions": IMPRESSIONS, "behaviours": BEHAVIOURS, "conversions": CONVERSIONS}
"""Tables whose rows may become known after their week."""


def nothing() -> Tables:
    """The delayed tables without a row."""
    return {name: schema.empty_table() for name, schema in DELAYED.items()}


class _Log:
    """Events of a running week: those that wait to become known, and those that are known."""

    def __init__(self, carried: Tables, behaviours: pa.Table) -> None:
        self._waiting = {name: carried[name] for name in DELAYED}
        self._known: dict[str, list[pa.Table]] = {name: [] for name in DELAYED}
        self.add(behaviours=behaviours)

    def add(self, **tables: pa.Table) -> None:
        """Events that have happened."""
        for name, table in tables.items():
            self._waiting[name] = pa.concat_tables([self._waiting[name], table])

    def news(self, until: int) -> Tables:
        """Rows that became known up to and including `until` and were no news before."""
        fresh = {name: between(table, 0, until + 1) for name, table in self._waiting.items()}
        for name, table in fresh.items():
            self._known[name].append(table)
            if table.num_rows:
                self._waiting[name] = between(self._waiting[name], until + 1, None)
        return fresh

    def close(self, week: Week, snapshots: Tables) -> WeekRun:
        """The week's partition, and what waits for the next one."""
        self.news(week.end - 1)
        known = {name: ordered(name, parts) for name, parts in self._known.items()}
        waiting = {name: ordered(name, [table]) for name, table in self._waiting.items()}
        return WeekRun(known | snapshots, waiting)


def between(table: pa.Table, start: int, end: int | None) -> pa.Table:
    """Rows that became known in [start, end), or from `start` on."""
    known = pc.cast(table[c.KNOWN_TIME], pa.int64())
    inside = pc.greater_equal(known, start)
    if end is not None:
        inside = pc.and_(inside, pc.less(known, end))
    return table.filter(inside).combine_chunks()


def ordered(name: str, parts: list[pa.Table]) -> pa.Table:
    """One table of the parts; impressions and behaviours come in time order, conversions do not."""
    table = pa.concat_tables(parts).combine_chunks()
    if name != "conversions":
        return table
    by = [(c.KNOWN_TIME, "ascending"), (c.EVENT_TIME, "ascending"), (c.IMPRESSION, "ascending")]
    return table.sort_by(by).combine_chunks()


@njit(cache=True)
def _add_intent(  # noqa: PLR0917
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


def _take(values: Names, rows: NDArray[np.integer]) -> pa.Array:
    return pa.array(values).take(pa.array(rows))


def _repeat(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def _ids(week: Week, numbers: Longs, slots: int = 0) -> pa.Array:
    """`2026-W04-00000012` (n,), or with slots `2026-W04-00000012-1` and so on (n * slots,)."""
    head = np.frombuffer(f"{week}-".encode(), dtype=np.uint8)
    fields = [np.tile(head, (numbers.size, 1)), _digits(numbers, 8)]
    if slots:
        fields = [np.repeat(np.concatenate(fields, axis=1), slots, axis=0)]
        position = np.tile(np.arange(1, slots + 1), numbers.size)
        fields.append(np.full((position.size, 1), ord("-"), dtype=np.uint8))
        fields.append(_digits(position, len(str(slots))))
    text = np.ascontiguousarray(np.concatenate(fields, axis=1))
    offsets = np.arange(text.shape[0] + 1, dtype=np.int32) * np.int32(text.shape[1])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    return pa.Array.from_buffers(pa.string(), text.shape[0], buffers)


def _digits(numbers: Longs, width: int) -> NDArray[np.uint8]:
    """Decimal digits (n, width) as characters."""
    powers = 10 ** np.arange(width - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def _table(values: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        column = values[field.name]
        if isinstance(column, np.ndarray):
            column = pa.array(column)
            if field.type == TIME:
                column = column.cast(pa.int64()).view(TIME)
        arrays.append(column)
    return pa.table(arrays, schema=schema)
