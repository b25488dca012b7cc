"""What serving was given, computed again from the lake by the offline engine.

A store had taken in all that was known at a slate's `as_of` and nothing later; so is the user side
counted here. The item side counts closed hours: it is compared where nothing became known between
`as_of` and the request's full hour, since such rows were not there yet when the slate was made.

Two vocabularies matter: the snapshot that a store began with has the indices and ads' attributes
of the run that wrote it, later rows those of the package that served. What is newer than the
package is out of vocabulary for both, but each user's rows stay their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data.events import ADS, AS_OF, FEATURES, VECTOR
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError
from roiflow.features import kernels
from roiflow.features.engine import Engine, ItemLog, UserLog, last_times
from roiflow.features.history import history_slices, sort_rows
from roiflow.features.plan import CONTEXT_PLACEMENT, Plan, context, frozen
from roiflow.features.rows import (
    Behaved,
    Conversions,
    Rows,
    Window,
    by_user,
    micros,
    read_events,
    read_impressions,
)
from roiflow.features.table import Events, Flags, Ints, Longs
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import engine_of
from roiflow.online.given import Inputs, Shape, hashes, pack

CHUNK = 1 << 14
"""Slates that are worked on at a time."""

Arrays = TypeVar("Arrays")


@dataclass(frozen=True)
class Setting:
    """The package that served, and the snapshot that its store began with."""

    plan: Plan
    """The package's, with rows for the ads that its store has met beside."""
    learnt: Plan
    """The package's, as its models know it."""
    shape: Shape
    vocabulary: Vocabulary
    """Of the snapshot's run, with users who came later."""
    known_users: int
    """Rows of the snapshot's users; the store had nothing of others before it began."""
    attributes: Ints  # (ads, 5) of the snapshot's run
    profile: Ints  # (users, P) of the snapshot
    start: int
    """The snapshot's as_of, microseconds."""
    catalogue_known: Longs  # (k,) when each catalogue became known, in order
    price: Longs  # (k, ads) micros, by row of the plan
    bid: Longs  # (k, ads) micros

    @property
    def wide(self) -> Plan:
        """The plan, with the vocabulary and the attributes of the snapshot's run."""
        kinds = {kind: self.vocabulary.size(kind) for kind in self.vocabulary.kinds}
        return replace(self.plan, sizes={**self.plan.sizes, **kinds}, attributes=self.attributes)

    def terms(self, slates: "Slates") -> tuple[Longs, Longs]:
        """Price and bid (B, S) of the shown ads."""
        # As the store had taken in the catalogue, whatever the slate's own time.
        then = np.searchsorted(self.catalogue_known, slates.as_of, side="right") - 1
        at = np.maximum(then, 0)[:, None], np.maximum(slates.ad, 0)
        return self.price[at], self.bid[at]

    @property
    def narrow(self) -> Plan:
        """The plan, with a row for every user."""
        sizes = {**self.plan.sizes, "user": self.vocabulary.size("user")}
        return replace(self.plan, sizes=sizes)


@dataclass(frozen=True)
class Content:
    """The lake's rows, in the indices of the setting's vocabulary."""

    rows: Rows
    conversions: Conversions
    events: Events

    @classmethod
    def read(cls, folder: Path, vocabulary: Vocabulary) -> "Content":
        """The validated weeks of a folder. Raises ContractError."""
        window = Window(folder)
        rows, conversions = read_impressions(window, vocabulary)
        return cls(rows, conversions, read_events(window, vocabulary, vocabulary.size("user")))

    def kept(self, shown: Flags, sold: Flags, behaved: Flags) -> "Content":
        """Only some rows of each kind; a conversion goes with its impression."""
        number = np.cumsum(shown) - 1
        sold = sold & shown[self.conversions.row]
        conversions = taken(self.conversions, sold)
        row = number[conversions.row].astype(np.int64)
        events = _sliced(self.events, behaved)
        return Content(taken(self.rows, shown), replace(conversions, row=row), events)

    @cached_property
    def known_times(self) -> Longs:
        """When each row that an item counts became known, sorted."""
        rows, sold = self.rows, self.conversions
        clicks = np.maximum(rows.click_known, rows.known_time)[rows.click_known >= 0]
        bought = np.maximum(sold.known_time, sold.shown_known)
        return np.sort(np.concatenate([rows.known_time, clicks, bought]))

    @property
    def behaving(self) -> Ints:
        """Whose each behaviour is (events,)."""
        offsets = self.events.offsets
        return np.repeat(np.arange(offsets.size - 1, dtype=np.int32), np.diff(offsets))


def taken(values: Arrays, rows: Flags | Longs) -> Arrays:
    """Some rows of a dataclass of arrays."""
    return type(values)(**{f.name: getattr(values, f.name)[rows] for f in fields(values)})  # type: ignore[arg-type]


def _sliced(log: Any, keep: Flags) -> Any:
    """Some rows of a CSR log."""
    before = np.concatenate([[0], np.cumsum(keep)])
    names = (f.name for f in fields(log) if f.name != "offsets")
    rows = {name: frozen(getattr(log, name)[keep]) for name in names}
    return type(log)(offsets=frozen(before[log.offsets].astype(np.int64)), **rows)


def engine(setting: Setting, content: Content) -> Engine:
    """What counts, in the package's indices."""
    # Counted once, in the wide vocabulary of the snapshot's run, then each index made what the
    # package has for it: what it does not know is 0 there. Behaviours keep the category that they
    # came with; what was shown since the start has its category from the package's own attributes,
    # as the stream's updates give it.
    wide = engine_of(
        setting.wide, setting.vocabulary, content.rows, content.conversions, content.events
    )
    sizes, log, items = setting.plan.sizes, wide.user_log, wide.item_log
    ad = _within(log.ad, sizes["ad"])
    late = (log.known_time >= setting.start) & ~_of_behaviour(log.kind)
    own = setting.plan.attributes[ad, kernels.CATEGORY]
    category = np.where(late, own, _within(log.category, sizes["category"])).astype(np.int32)
    of_user = replace(log, ad=frozen(ad), category=frozen(category))
    rows = items.rows.copy()
    for column, kind in enumerate(("ad", "placement")):
        rows[:, column] = _within(rows[:, column], sizes[kind])
    keep = _there(log.offsets, log.known_time, setting)
    user_log: UserLog = _sliced(of_user, keep)
    return Engine(setting.narrow, user_log, ItemLog(items.hour, frozen(rows)))


def _of_behaviour(kind: NDArray[np.uint8]) -> Flags:
    return (kind == kernels.BEHAVIOUR) | (kind == kernels.INTENT)


def _within(index: NDArray[Any], size: int) -> NDArray[Any]:
    return np.where(index < size, index, 0).astype(index.dtype)


def _there(offsets: Longs, known_time: Longs, setting: Setting) -> Flags:
    """Whether a store had the rows (m,) of a log: all but those of later users before it began."""
    user = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    return (user < setting.known_users) | (known_time >= setting.start)


@dataclass(frozen=True)
class Slates:
    """Served slates (B,), ordered by user, then time."""

    request: NDArray[Any]  # ids
    user: Ints  # of the setting's vocabulary
    event_time: Longs
    as_of: Longs
    placement: Ints
    device: Ints
    ad: Ints  # (B, S), -1 in an empty slot
    hash: NDArray[Any]
    vector: NDArray[Any]  # bytes, or None where only the hash was kept

    @classmethod
    def of(cls, served: pa.Table, setting: Setting) -> "Slates":
        """Rows of data.served_features.SERVED; those without features are left out."""
        table = served.filter(pc.is_valid(served[FEATURES]))
        vocabulary, sizes, slots = setting.vocabulary, setting.plan.sizes, setting.shape.slots

        def index(kind: str, name: str) -> Ints:
            return vocabulary.index(kind, table[name])

        user, time = index("user", c.USER), micros(table[c.EVENT_TIME])
        lookup = vocabulary.lookup("ad") | {"": -1}
        names: list[list[str]] = table[ADS].to_pylist()
        ad = [[lookup.get(name, 0) for name in [*row, *[""] * slots][:slots]] for row in names]
        order, _ = sort_rows(user, vocabulary.size("user"), time)
        slates = cls(
            request=_objects(table[c.REQUEST]),
            user=user,
            event_time=time,
            as_of=np.asarray(pc.fill_null(table[AS_OF], -1)),
            placement=_within(index("placement", c.PLACEMENT), sizes["placement"]),
            device=_within(index("device", c.DEVICE), sizes["device"]),
            ad=_within(np.array(ad, np.int32).reshape(-1, slots), sizes["ad"]),
            hash=_objects(table[FEATURES]),
            vector=_objects(table[VECTOR]),
        )
        return taken(slates, order)

    @property
    def sampled(self) -> Flags:
        """Which have their vectors."""
        return np.array([vector is not None for vector in self.vector], np.bool_)

    @property
    def hour(self) -> Longs:
        """Start of each request's hour, microseconds."""
        return self.event_time // MICROS_PER_HOUR * MICROS_PER_HOUR


def _objects(column: pa.ChunkedArray) -> NDArray[Any]:
    out = np.empty(len(column), object)
    out[:] = column.to_pylist()
    return out


def as_served(slates: Slates) -> Longs:
    """Up to when each slate's store had taken in rows (B,): those known before this."""
    return np.minimum(slates.event_time, slates.as_of + 1)


def given(
    setting: Setting, counted: Engine, events: Events, slates: Slates, until: Longs
) -> Inputs:
    """What the models would be given with rows known before `until` (B,)."""
    plan, length, profile = setting.plan, setting.shape.history, setting.profile
    # The last L behaviours before `until`, right-aligned: places before the first are cut off by
    # `there` and read row 0, which any log that is not empty has.
    start, end = history_slices(slates.user, until, events.offsets, events.known_time, length)
    at = end[:, None] - length + np.arange(length)
    there = at >= start[:, None]

    def history(values: NDArray[Any], kind: str) -> NDArray[Any]:
        if not values.size:
            return np.zeros(at.shape, values.dtype)
        found = np.where(there, values[np.where(there, at, 0)], 0).astype(values.dtype)
        return _within(found, setting.learnt.sizes[kind]) if kind else found

    known = np.where(slates.user < profile.shape[0], slates.user, 0)
    sizes = [plan.sizes[f"profile:{name}"] for name in plan.profile_names]
    price, bid = setting.terms(slates)
    around = context(slates.placement, slates.device, slates.event_time)
    return Inputs(
        user=_within(slates.user, plan.sizes["user"]),
        profile=np.where(profile[known] < np.array(sizes, np.int32), profile[known], 0).astype(
            np.int32
        ),
        history_ad=history(events.ad, "ad"),
        history_category=history(events.category, "category"),
        history_action=history(events.action, "action"),
        history_time=history(events.event_time, ""),
        context=around,
        dense=counted.dense(
            slates.user,
            slates.event_time,
            around[:, CONTEXT_PLACEMENT],
            last_times(events, start, end),
            ad=slates.ad,
            price=price,
            bid=bid,
            until=until,
        ),
    )


@dataclass(frozen=True)
class Replayed:
    """Slates with what serving was given, and what it should have been given."""

    setting: Setting
    content: Content
    slates: Slates
    final: Flags  # (B,) whether the item side was final, in effect
    same: Flags  # (B,) whether the hashes are equal
    stale: Flags  # (B,) whether training sees another vector, made from all known at event_time

    @property
    def differing(self) -> Longs:
        """Slates of which something that can be compared is different."""
        return np.flatnonzero(self.final & ~self.same)


def replay(setting: Setting, content: Content, slates: Slates) -> Replayed:
    """Compute every slate's vector again, as known to its store and as known at its time."""
    counted, events = engine(setting, content), stored(content.events, setting)
    same, stale = np.zeros((2, slates.user.size), np.bool_)
    for rows in chunks(slates.user.size):
        part = taken(slates, rows)
        then = _hashes(given(setting, counted, events, part, as_served(part)))
        now = _hashes(given(setting, counted, events, part, part.event_time))
        same[rows], stale[rows] = then == part.hash, then != now
    return Replayed(setting, content, slates, final(content, slates), same, stale)


def stored(events: Events, setting: Setting) -> Events:
    """The behaviours that a store had, in its order.

    Those that happened and became known together are ordered by index: of the snapshot's run
    before the start, of the package since.
    """
    there: Events = _sliced(events, _there(events.offsets, events.known_time, setting))
    sizes, late = setting.plan.sizes, there.known_time >= setting.start

    def as_taken(index: Ints, kind: str) -> Ints:
        return np.where(late, _within(index, sizes[kind]), index).astype(np.int32)

    users = there.offsets.size - 1
    taken_in = Behaved(
        np.repeat(np.arange(users, dtype=np.int32), np.diff(there.offsets)),
        as_taken(there.ad, "ad"),
        as_taken(there.category, "category"),
        as_taken(there.action, "action"),
        there.event_time,
        there.known_time,
    )
    return by_user(taken_in, users)


def _hashes(inputs: Inputs) -> NDArray[Any]:
    return np.array(hashes(pack(inputs)), object)


def chunks(size: int) -> Iterable[Longs]:
    """Numbers 0 to size - 1, some at a time."""
    return (np.arange(at, min(at + CHUNK, size)) for at in range(0, size, CHUNK))


def final(content: Content, slates: Slates) -> Flags:
    """Whether no counted row became known between a slate's as_of and its full hour."""
    # Rows of (as_of, full hour) were not in the store yet and count for a replay: a slate that has
    # any would differ by no fault. Two binary searches a slate in place of a join.
    times = content.known_times
    late = np.searchsorted(times, slates.hour) - np.searchsorted(times, slates.as_of, "right")
    return late <= 0


def join_weeks(folder: Path, of: dict[Week, Path]) -> None:
    """Links to weeks of several validated folders as one. Raises ContractError where one lacks."""
    for week, source in of.items():
        for table in ("impressions", "behaviours", "conversions"):
            partition = source / table / f"week={week}"
            if table == "impressions" and not partition.exists():
                raise ContractError(f"{partition}: no such week")
            if partition.exists():
                (folder / table).mkdir(parents=True, exist_ok=True)
                (folder / table / partition.name).symlink_to(partition.absolute())


def with_later_users(vocabulary: Vocabulary, names: Iterable[pa.ChunkedArray]) -> Vocabulary:
    """With users of the columns that it does not have yet, in the order of their names."""
    for column in names:
        found = pc.unique(column)
        new = found.filter(pc.is_null(pc.index_in(found, value_set=vocabulary.ids("user"))))
        new = new.filter(pc.is_valid(new)).sort()
        vocabulary = vocabulary.appended("user", pa.chunked_array([new]))
    return vocabulary
