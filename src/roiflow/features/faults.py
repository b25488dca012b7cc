"""Why served features differ from recomputed ones: known faults, each tried as a hypothesis.

A hypothesis says what serving was given if its fault had happened. It is tried on slates that
differ, and on some that do not, which it must leave alone; one that explains nearly all is named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.features.engine import Engine, ItemLog, UserLog
from roiflow.features.findings import Sampled
from roiflow.features.parity import Inputs, hashes, pack
from roiflow.features.plan import clock, frozen
from roiflow.features.replay import (
    Content,
    Replayed,
    Setting,
    Slates,
    as_served,
    engine,
    given,
    stored,
    taken,
)
from roiflow.features.table import Flags, Floats, Longs, Singles

BACK_FILL = "back-fill"
DROPPED_HOUR = "dropped hour"
TIME_ZONE = "time-zone shift"
VOCABULARY = "vocabulary shift"
STATISTICS = "statistics"
UNEXPLAINED = "unexplained"

ENOUGH = 0.95
"""A hypothesis is believed if it explains this share of the slates that differ."""

TRIED = 200
"""Slates that differ, and as many that do not, on which a hypothesis is tried."""

FIRST = 16
"""On so many of them it must hold before it is tried on the others."""

HOURS_BACK = 72
"""Hours before the first difference that are looked at for one that is missing."""

CLOCK_HOURS = [sign * hours for hours in range(1, 15) for sign in (1, -1)]
CLOSE = 1e-4
"""Relative difference up to which a recomputed rate is the served one."""


@dataclass(frozen=True)
class Explanation:
    """A fault that would have given what was served."""

    name: str
    explains: float
    """Share of the slates that differ, of those it was tried on."""
    size: str


@dataclass(frozen=True)
class _Case:
    """Slates on which hypotheses are tried."""

    replayed: Replayed
    different: Sampled
    former: Content
    rows: Longs  # slates that differ
    others: Longs  # slates that do not

    @property
    def setting(self) -> Setting:
        return self.replayed.setting

    @property
    def content(self) -> Content:
        return self.replayed.content

    def slates(self, rows: Longs) -> Slates:
        return taken(self.replayed.slates, rows)

    def explained(self, make: Callable[[Slates], Inputs]) -> float:
        """The share of differing slates that a hypothesis gives; 0 where it spoils others."""
        if _equal(make, self.slates(self.rows[:FIRST])) < ENOUGH / 2:
            return 0.0
        if self.others.size and _equal(make, self.slates(self.others)) < ENOUGH:
            return 0.0
        return _equal(make, self.slates(self.rows))

    def without(self, content: Content, setting: Setting) -> float:
        """The share that other rows of the lake explain."""
        counted, events = engine(setting, content), stored(content.events, setting)
        return self.explained(
            lambda slates: given(setting, counted, events, slates, as_served(slates))
        )


def _equal(make: Callable[[Slates], Inputs], slates: Slates) -> float:
    found = np.array(hashes(pack(make(slates))), object)
    return float(np.mean(found == slates.hash))


def explain(replayed: Replayed, different: Sampled, former: Content) -> dict[str, Any]:
    """The fault that explains what differs, or `unexplained`, with what was tried.

    `former` is what an earlier pull held of the weeks before the served one.
    """
    rows, others = replayed.differing, np.flatnonzero(replayed.final & replayed.same)
    if not rows.size:
        return {"name": UNEXPLAINED, "explains": 0.0, "size": "", "tried": {}}
    case = _Case(replayed, different, former, _some(rows), _some(others))
    tried: dict[str, float] = {}
    best = Explanation(UNEXPLAINED, 0.0, "")
    for hypothesis in (_back_fill, _time_zone, _statistics, _vocabulary, _missing_hour):
        for found in hypothesis(case):
            tried[found.name] = max(tried.get(found.name, 0.0), round(found.explains, 4))
            if found.explains >= ENOUGH and found.explains > best.explains:
                best = found
        if best.explains >= ENOUGH:
            break
    return {"name": best.name, "explains": best.explains, "size": best.size, "tried": tried}


def _some(rows: Longs) -> Longs:
    return (
        rows[np.unique(np.linspace(0, rows.size - 1, TRIED).astype(np.int64))]
        if rows.size
        else rows
    )


def _back_fill(case: _Case) -> Iterator[Explanation]:
    """Rows whose known_time is from before, which an earlier pull of their week did not hold."""
    now, then, start = case.content, case.former, case.setting.start
    masks = [
        (known >= start) | np.isin(one, other)
        for known, one, other in zip(
            (now.rows.known_time, now.conversions.known_time, now.events.known_time),
            _keys(now),
            _keys(then),
            strict=True,
        )
    ]
    came = [int(np.count_nonzero(~mask)) for mask in masks]
    if any(came):
        explains = case.without(now.kept(*masks), case.setting)
        names = ("impressions", "conversions", "behaviours")
        size = ", ".join(
            f"{count:,} {name}" for count, name in zip(came, names, strict=True) if count
        )
        yield Explanation(BACK_FILL, explains, f"{size} that an earlier pull did not hold")
    yield from _late_behaviours(case)


def _keys(content: Content) -> tuple[NDArray[np.uint64], ...]:
    """A number for each impression, conversion and behaviour, the same in every pull."""
    rows, sold, events = content.rows, content.conversions, content.events
    shown = _mixed(rows.request, rows.position, rows.known_time)
    return (
        shown,
        _mixed(shown[sold.row].view(np.int64), sold.known_time, sold.revenue),
        _mixed(
            content.behaving, events.ad, events.category, events.action, events.event_time,
            events.known_time,
        ),
    )  # fmt: skip


def _mixed(*values: NDArray[Any]) -> NDArray[np.uint64]:
    mixed = np.zeros(values[0].size, np.uint64)
    for value in values:
        mixed = (mixed ^ value.astype(np.int64).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _late_behaviours(case: _Case) -> Iterator[Explanation]:
    """Behaviours that sampled histories lack although they were known by then."""
    found, events = case.different, case.content.events
    behaving = case.content.behaving
    gone = np.zeros(events.ad.size, np.bool_)
    for row in range(found.slates.user.size):
        mine = np.flatnonzero(behaving == found.slates.user[row])
        held = set(_behaviours(found.served, row))
        oldest = min((time for time, *_ in held), default=0)
        lacked = {
            one for one in _behaviours(found.expected, row) if one not in held and one[0] > oldest
        }
        for at in mine.tolist() if lacked else ():
            one = tuple(
                int(v[at]) for v in (events.event_time, events.ad, events.category, events.action)
            )
            gone[at] |= one in lacked and events.known_time[at] <= found.slates.as_of[row]
    if gone.any():
        every = np.ones(case.content.rows.user.size, np.bool_)
        sold = np.ones(case.content.conversions.row.size, np.bool_)
        explains = case.without(case.content.kept(every, sold, ~gone), case.setting)
        users = np.unique(behaving[gone]).size
        size = f"{np.count_nonzero(gone):,} behaviours of {users:,} users that histories lack"
        yield Explanation(BACK_FILL, explains, size)


def _behaviours(inputs: Inputs, row: int) -> list[tuple[int, ...]]:
    columns = (
        inputs.history_time,
        inputs.history_ad,
        inputs.history_category,
        inputs.history_action,
    )
    rows = zip(*(values[row].tolist() for values in columns), strict=True)
    return [one for one in rows if any(one)]


def _missing_hour(case: _Case) -> Iterator[Explanation]:
    """One hour of events that never reached the store: the hours before the first difference."""
    slates = case.replayed.slates
    first = int(slates.as_of[case.replayed.differing].min()) // MICROS_PER_HOUR
    there = np.unique(
        np.concatenate([case.content.known_times, case.content.events.known_time])
        // MICROS_PER_HOUR
    )
    candidates = there[(there <= first) & (there > first - HOURS_BACK)][::-1]
    early = replace(case, rows=_earliest(case.replayed))
    for hour in candidates.tolist():
        content = without_hour(case.content, hour)
        if early.without(content, case.setting) >= ENOUGH:
            explains = case.without(content, case.setting)
            lost = case.content.rows.user.size - content.rows.user.size
            when = np.datetime64(hour, "h")
            behaved = case.content.events.ad.size - content.events.ad.size
            size = f"{when}:00 UTC, {lost:,} impressions and {behaved:,} behaviours"
            yield Explanation(DROPPED_HOUR, explains, size)
            return


def _earliest(replayed: Replayed) -> Longs:
    rows = replayed.differing
    return rows[np.argsort(replayed.slates.event_time[rows], kind="stable")[:FIRST]]


def without_hour(content: Content, hour: int) -> Content:
    """Without what became known in one hour."""

    def outside(known: Longs) -> Flags:
        return known // MICROS_PER_HOUR != hour

    rows = content.rows
    lost = rows.clicked & (rows.click_known >= 0) & ~outside(rows.click_known)
    unclicked = replace(
        rows,
        clicked=rows.clicked & ~lost,
        click_known=np.where(lost, -1, rows.click_known),
    )
    return replace(content, rows=unclicked).kept(
        outside(rows.known_time),
        outside(content.conversions.known_time),
        outside(content.events.known_time),
    )


def _time_zone(case: _Case) -> Iterator[Explanation]:
    """The request's clock is some hours off, for the calendar features alone or for all."""
    counted = engine(case.setting, case.content)
    events = stored(case.content.events, case.setting)
    for hours in CLOCK_HOURS:

        def calendar(slates: Slates, hours: int = hours) -> Inputs:
            inputs = given(case.setting, counted, events, slates, as_served(slates))
            return with_calendar(case.setting, inputs, slates, hours)

        def whole(slates: Slates, hours: int = hours) -> Inputs:
            return with_clock(case.setting, counted, case.content, slates, hours)

        for make, what in ((calendar, "hour and weekday"), (whole, "the request's time")):
            explains = case.explained(make)
            if explains > 0:
                yield Explanation(TIME_ZONE, explains, f"{what} {hours:+d} h")


def with_calendar(setting: Setting, inputs: Inputs, slates: Slates, hours: int) -> Inputs:
    """With hour and weekday of a clock that is some hours ahead."""
    time = slates.event_time + hours * MICROS_PER_HOUR
    hour, weekday = clock(time)
    other = np.zeros_like(inputs.dense)
    shown = np.maximum(slates.ad, 0)
    setting.plan.values(
        time, time, ad=slates.ad, price=setting.price[shown], bid=setting.bid[shown], out=other
    )
    names = setting.plan.dense_names
    columns = [at for at, name in enumerate(names) if name.startswith(("hour_", "weekday_"))]
    dense, around = inputs.dense.copy(), inputs.context.copy()
    dense[:, :, columns] = other[:, :, columns]
    around[:, 2], around[:, 3] = hour, weekday
    return replace(inputs, dense=dense, context=around)


def with_clock(
    setting: Setting, counted: Engine, content: Content, slates: Slates, hours: int
) -> Inputs:
    """What a store gives at another time than the request's, slate by slate."""
    parts = [
        _at_clock(setting, counted, content, taken(slates, np.array([row])), hours)
        for row in range(slates.user.size)
    ]
    names = vars(parts[0])
    return Inputs(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in names})


def _at_clock(
    setting: Setting, counted: Engine, content: Content, slate: Slates, hours: int
) -> Inputs:
    """One slate, from what its store held: nothing later than as_of, but all of that."""
    log, items = counted.user_log, counted.item_log
    user, as_of = int(slate.user[0]), int(slate.as_of[0])
    time = slate.event_time + hours * MICROS_PER_HOUR
    start, end = log.offsets[user : user + 2]
    end = start + np.searchsorted(log.known_time[start:end], as_of, "right")
    mine = slice(start, end)
    known = np.minimum(log.known_time[mine], time[0] - 1)
    one = UserLog(
        frozen(np.array([0, known.size])),
        frozen(known),
        frozen(log.ad[mine]),
        frozen(log.category[mine]),
        frozen(log.kind[mine]),
    )
    prefix = np.searchsorted(items.hour, as_of // MICROS_PER_HOUR, "right")
    there = ItemLog(frozen(items.hour[:prefix]), frozen(items.rows[:prefix]))
    plan = replace(counted.plan, sizes={**counted.plan.sizes, "user": 1})
    usual = given(setting, counted, stored(content.events, setting), slate, np.array([as_of + 1]))
    last = np.where(usual.history_ad.any(axis=1), usual.history_time[:, -1], -1)
    shown = np.maximum(slate.ad, 0)
    dense = Engine(plan, one, there).dense(
        np.zeros(1, np.int32),
        time,
        slate.placement,
        last,
        ad=slate.ad,
        price=setting.price[shown],
        bid=setting.bid[shown],
        until=np.maximum(time, as_of + 1),
    )
    hour, weekday = clock(time)
    around = np.column_stack([usual.context[:, :2], hour, weekday]).astype(np.int32)
    return replace(usual, dense=dense, context=around)


def _vocabulary(case: _Case) -> Iterator[Explanation]:
    """Served indices of users, ads, categories and actions are a function of the expected ones."""
    served, expected = case.different.served, case.different.expected
    if not case.different.rows.size:
        return
    rows, moved = np.ones(case.different.rows.size, np.bool_), []
    rows &= (served.history_time == expected.history_time).all(axis=1)
    for kind, name in (
        ("user", "user"),
        ("ad", "history_ad"),
        ("category", "history_category"),
        ("action", "history_action"),
    ):
        one, other = (getattr(part, name).reshape(rows.size, -1) for part in (expected, served))
        there = (
            np.broadcast_to(expected.history_action > 0, one.shape) if kind != "user" else one > 0
        )
        image = _image(one[there], other[there])
        rows &= (np.where(there, image[one], other) == other).all(axis=1)
        changed = np.flatnonzero((image >= 0) & (image != np.arange(image.size)))
        if changed.size:
            moved.append((kind, changed, image[changed] - changed))
    if moved:
        yield Explanation(VOCABULARY, float(rows.mean()), "; ".join(_moved(*one) for one in moved))


def _image(one: NDArray[Any], other: NDArray[Any]) -> Longs:
    """For each index of `one` the index that `other` most often has beside it; -1 for none."""
    image = np.full(int(one.max(initial=0)) + 1, -1, np.int64)
    pairs, counts = np.unique(np.column_stack([one, other]), axis=0, return_counts=True)
    for at in np.argsort(counts, kind="stable"):
        image[pairs[at, 0]] = pairs[at, 1]
    return image


def _moved(kind: str, changed: Longs, by: Longs) -> str:
    if (by == by[0]).all():
        return f"{changed.size:,} indices of kind {kind} are off by {by[0]:+d}"
    return f"{changed.size:,} indices of kind {kind} stand for others"


def _statistics(case: _Case) -> Iterator[Explanation]:
    """Rates smoothed with other priors, or values scaled with other statistics."""
    if not case.different.rows.size:
        return
    plan = _other_priors(case)
    if plan is not None:
        setting = replace(case.setting, plan=plan)
        slates, events = case.different.slates, stored(case.content.events, setting)
        counted = engine(setting, case.content)
        found = given(setting, counted, events, slates, as_served(slates))
        size = (
            f"prior strength {plan.prior_strength:.4g}, ctr {plan.ctr:.4g}, cvr {plan.cvr:.4g}, "
            f"value {plan.value:.4g}"
        )
        yield Explanation(STATISTICS, _close(found.dense, case.different.served.dense), size)
    yield from _scaled(case, np.zeros(case.different.rows.size, np.int64), "")
    hour = case.different.slates.event_time // MICROS_PER_HOUR
    yield from _scaled(case, hour, " of each hour's batch")


def _close(found: Singles, served: Singles) -> float:
    """The share of slates whose every value is the served one, nearly."""
    near = np.abs(found - served) <= CLOSE * (1 + np.abs(served))
    return float(near.all(axis=(1, 2)).mean())


def _other_priors(case: _Case) -> Any:
    """The plan with the priors that served values show; None where they are the plan's own."""
    plan, served = case.setting.plan, case.different.served.dense
    expected = case.different.expected.dense
    aggregates = np.array([spec.aggregate for spec in plan.specs])
    empty = {
        "ctr": np.float32(plan.ctr),
        "cvr": np.float32(plan.cvr),
        "value": np.float32(np.log1p(plan.value / 1e6)),
    }
    found: dict[str, float] = {}
    for name, default in empty.items():
        columns = aggregates == name
        seen = served[:, :, columns][expected[:, :, columns] == default]
        if seen.size:
            values, counts = np.unique(seen, return_counts=True)
            found[name] = float(values[np.argmax(counts)])
    if "value" in found:
        found["value"] = float(np.expm1(found["value"]) * 1e6)
    changed = {
        name: value
        for name, value in found.items()
        if abs(value - getattr(plan, name)) > CLOSE * getattr(plan, name)
    }
    strength = _strength(case, found.get("ctr", plan.ctr))
    if abs(strength / plan.prior_strength - 1) > 10 * CLOSE:
        changed["prior_strength"] = strength
    if not changed:
        return None
    return replace(
        plan,
        prior_strength=changed.get("prior_strength", plan.prior_strength),
        ctr=changed.get("ctr", plan.ctr),
        cvr=changed.get("cvr", plan.cvr),
        value=changed.get("value", plan.value),
    )


def _strength(case: _Case, mean: float) -> float:
    """The strength s for which (clicks + s mean) / (impressions + s) are the served rates."""
    setting, slates = case.setting, case.different.slates
    plan, events = setting.plan, stored(case.content.events, case.setting)
    columns = [at for at, spec in enumerate(plan.specs) if spec.aggregate == "ctr"]
    low, high = (
        given(other, engine(other, case.content), events, slates, as_served(slates))
        .dense[:, :, columns]
        .astype(np.float64)
        for other in (replace(setting, plan=replace(plan, ctr=value)) for value in (0.0, 1.0))
    )
    rate = case.different.served.dense[:, :, columns].astype(np.float64)
    weight = high - low  # s / (impressions + s)
    there = (weight > 0) & (weight < 0.9) & (np.abs(rate - mean) > 0.02 * mean)
    if not there.any():
        return plan.prior_strength
    impressions = plan.prior_strength / weight[there] - plan.prior_strength
    clicks = low[there] * (impressions + plan.prior_strength)
    strengths = (clicks - rate[there] * impressions) / (rate[there] - mean)
    found = float(np.median(strengths))
    return found if found > 0 else plan.prior_strength


def _scaled(case: _Case, batch: Longs, of: str) -> Iterator[Explanation]:
    """Each dense feature of a batch is a straight line of what it should be."""
    served = case.different.served.dense.astype(np.float64)
    expected = case.different.expected.dense.astype(np.float64)
    slots = case.different.slates.ad >= 0
    good, lines = np.zeros(batch.size, np.bool_), 0
    for one in np.unique(batch):
        rows = np.flatnonzero(batch == one)
        there = slots[rows]
        x, y = expected[rows][there], served[rows][there]
        line, fits = _lines(x, y)
        lines += line
        inside = np.zeros(slots[rows].shape, np.bool_)
        inside[there] = fits
        good[rows] = (inside | ~there).all(axis=1)
    if lines:
        size = f"{lines:,} features scaled by other statistics{of}"
        yield Explanation(STATISTICS, float(good.mean()), size)


def _lines(x: Floats, y: Floats) -> tuple[int, Flags]:
    """(n, F) twice -> how many columns lie on a line other than y = x, and which rows lie on all.

    A column of fewer than 4 different values must have one value for each of them.
    """
    fits, lines = np.ones(x.shape[0], np.bool_), 0
    for column in range(x.shape[1]):
        one, other = x[:, column], y[:, column]
        near = np.abs(one - other) <= CLOSE * (1 + np.abs(other))
        spread = np.unique(one).size
        if not near.all() and spread >= 4:
            slope, shift = np.polyfit(one, other, 1)
            near = np.abs(slope * one + shift - other) <= 10 * CLOSE * (1 + np.abs(other))
            lines += bool(near.mean() >= ENOUGH)
        elif not near.all():
            for value in np.unique(one):
                same = one == value
                near[same] = np.ptp(other[same]) <= CLOSE * (1 + np.abs(other[same]))
        fits &= near
    return lines, fits
