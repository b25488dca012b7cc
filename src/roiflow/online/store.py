"""The same features online: user states and item counters in a key-value store.

Everything is kept by these keys, so that one round trip reads all that a request needs:

    user:<user_id>               layout.py
    hour:<h>, day:<d>            what each ad had in that hour or day of known_time (item_rows.py)
    spend:<h>                    what each ad was charged in that hour of known_time (spend.py)
    impression:<impression_id>   whose a later click or conversion is
    waiting:<impression_id>      clicks and conversions that came before their impression
    layout, as_of                version of the values, newest known_time that was taken in
    loading                      who fills the store from a snapshot, while it does
    catalogue                    what can be shown, on which terms (shelf.py)
    catalogue_version            moves with it, so that it is read again only then

A request adds up the closed hours of its day, and whole days before those.
What has been passed to `update` is known: pass events when they become known, before the first
request after that. A store is for one thread; writers in several processes exclude each other.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import uuid4

import numpy as np
import pyarrow as pa

from roiflow.catalogue.catalogue import Catalogue, known
from roiflow.catalogue.updates import UPDATES
from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR
from roiflow.errors import ContractError, ServiceError
from roiflow.features import kernels
from roiflow.features.plan import Plan, frozen
from roiflow.features.spec import ATTRIBUTION_DAYS
from roiflow.features.table import Ints, Longs, Singles
from roiflow.features.vocabulary import Vocabulary
from roiflow.online import item_rows, layout, spend
from roiflow.online.layout import UserStates
from roiflow.online.shelf import Shelf, version
from roiflow.online.updates import Batch, Changes

STORED_HISTORIES = 4
"""A store keeps this many history lengths of behaviours: enough for encoders of 4 layers."""

LAYOUT_KEY, AS_OF_KEY = "layout", "as_of"
LOADING_KEY, LOADING_SECONDS = "loading", 3_600
CATALOGUE_KEY, VERSION_KEY = "catalogue", "catalogue_version"
CATALOGUE = "catalogue"
"""Among the tables of an update: rows of catalogue.updates.UPDATES."""

_HEAD = (LAYOUT_KEY, AS_OF_KEY, VERSION_KEY)
_DAY_SECONDS = 86_400

Value = bytes | None
Tables = Mapping[str, pa.Table]
Writes = Sequence[tuple[Mapping[str, bytes], int]]
"""Values by key, with the seconds to keep them (0: for ever)."""


@dataclass(frozen=True)
class AdStates:
    """Counters of every item-side entity over the closed hours before `hour`."""

    hour: int  # hours since the epoch
    counts: Longs  # (rows of Plan.item_cells, 4) impressions, clicks, conversions, revenue (micros)
    as_of: int = -1
    """The store's watermark when they were read; the counters are final from `hour` on."""
    degraded: bool = False
    spent: Longs | None = None
    """(ads,) micros that ads were charged in the closed hours of the day; None: nobody knows."""

    @property
    def final(self) -> bool:
        """Whether nothing more can become known in the closed hours."""
        return self.as_of >= self.hour * MICROS_PER_HOUR


class OnlineStore(Protocol):
    """What serving needs of a store."""

    def read(self, user_ids: Sequence[str], as_of: int) -> UserStates:
        """States of users (B,), in one round trip; defaults for a user that was never seen.

        Where the store cannot be reached or is empty every user has the defaults and `degraded`
        is set.
        `as_of` (microseconds, UTC) is the time of the requests.
        """
        ...

    def ad_states(self, as_of: int) -> AdStates:
        """Item counters of the closed hours before as_of; no round trip right after `read`."""
        ...

    @property
    def shelf(self) -> Shelf:
        """What can be shown, as of the last `read`: where the store was away, as before."""
        ...

    def update(self, tables: Tables, stamp: int | None = None) -> bool:
        """New rows of impressions, clicks, conversions, behaviours, users, in the order known.

        And changes of the catalogue, as CATALOGUE.
        """
        ...


class Values(Protocol):
    """Bytes by key. Every method raises ServiceError where the server cannot be reached."""

    def get(self, keys: Sequence[str]) -> list[Value]:
        """One round trip; None where there is no such key."""
        ...

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:
        """Keep each for `seconds` (0: for ever)."""
        ...

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        """All of `writes` or none, and only while `key` has the expected value.

        Raises ServiceError where it has another one.
        """
        ...


def dense(
    plan: Plan,
    users: UserStates,
    ads: AdStates,
    *,
    event_time: Longs,
    placement: Ints,
    ad: Ints,
    price: Longs,
    bid: Longs,
) -> Singles:
    """Features of requests (B,) and candidates (B, K) -> (B, K, F), as the offline engine's.

    All requests are in hour `ads.hour`. Where `ad` is -1 the features are 0.
    """
    out = np.zeros((*ad.shape, len(plan.specs)), np.float32)
    time, ad = frozen(event_time), frozen(ad)
    kernels.user_states_pass(
        time, ad, users.bucket_offsets, users.bucket_day, users.bucket_ad, users.bucket_category,
        users.bucket_counts, plan.ad_attributes, plan.user_cells, plan.rates, kernels.LOGS, out,
    )  # fmt: skip
    kernels.item_states_pass(
        ad, frozen(placement), ads.counts, plan.ad_attributes, plan.item_cells, plan.rates,
        kernels.LOGS, out,
    )  # fmt: skip
    last = np.where(users.history_length > 0, users.history_time[:, -1], -1)
    plan.values(event_time, last, ad=ad, price=price, bid=bid, out=out)
    return out


class FeatureStore:
    """An OnlineStore over any Values. `history` behaviours are read of each user."""

    def __init__(self, plan: Plan, vocabulary: Vocabulary, history: int, values: Values) -> None:
        self.capacity = STORED_HISTORIES * plan.history_length
        if not 1 <= history <= self.capacity:
            raise ContractError(
                f"history of {history} behaviours: a store keeps 1 to {self.capacity}"
            )
        self.history, self.values = history, values
        self._shelf = Shelf.bare(plan, vocabulary)
        self._version: Value = None
        self._rows: dict[str, Longs] = {}
        self._counted = plan
        self._ads = AdStates(-1, _no_counts(plan), degraded=True)

    @property
    def shelf(self) -> Shelf:
        """See OnlineStore."""
        return self._shelf

    @property
    def plan(self) -> Plan:
        """The package's, with rows for newer ads."""
        return self._shelf.plan

    @property
    def vocabulary(self) -> Vocabulary:
        """The package's, with newer ads."""
        return self._shelf.vocabulary

    def read(self, user_ids: Sequence[str], as_of: int) -> UserStates:
        """See OnlineStore. Raises ServiceError where the store holds another layout."""
        hour = as_of // MICROS_PER_HOUR
        periods = self._stale(hour)
        keys = [*_HEAD, *(f"user:{name}" for name in user_ids), *periods]
        attributes = len(self.plan.profile_names)
        try:
            found = self.values.get(keys)
            catalogue = self._moved(found[2])
        except ServiceError:
            self._ads = replace(self._ads, as_of=-1, degraded=True)
            return layout.unpack([None] * len(user_ids), self.history, attributes, degraded=True)
        self._check(found[0])
        self._take(catalogue)
        watermark = _number(found[1])
        first = len(_HEAD) + len(user_ids)
        states = found[len(_HEAD) : first]
        self._refresh(hour, watermark, dict(zip(periods, found[first:], strict=True)))
        _check_values(states)
        users = layout.unpack(
            states, self.history, attributes, as_of=watermark, degraded=watermark < 0
        )
        self._forget_newer(users)
        return users

    def _forget_newer(self, users: UserStates) -> None:
        """A store may serve an older model beside a newer one: what is newer than the plan is 0."""
        sizes = self.plan.sizes
        forget_newer(users.user, sizes["user"])
        for column, name in enumerate(self.plan.profile_names):
            forget_newer(users.profile[:, column], sizes[f"profile:{name}"])
        for indices in (users.history_ad, users.bucket_ad):
            forget_newer(indices, sizes["ad"])
        for indices in (users.history_category, users.bucket_category):
            forget_newer(indices, sizes["category"])
        forget_newer(users.history_action, sizes["action"])

    def ad_states(self, as_of: int) -> AdStates:
        """See OnlineStore. Where the store cannot be reached: the last counters, degraded."""
        hour = as_of // MICROS_PER_HOUR
        if self._ads.hour != hour or self._ads.degraded:
            periods = self._stale(hour)
            try:
                found = self.values.get([LAYOUT_KEY, AS_OF_KEY, *periods])
            except ServiceError:
                self._ads = replace(self._ads, as_of=-1, degraded=True)
                return self._ads
            self._check(found[0])
            self._refresh(hour, _number(found[1]), dict(zip(periods, found[2:], strict=True)))
        return self._ads

    def watermark(self) -> int | None:
        """The newest known_time taken in, microseconds; None for an empty store.

        Raises ServiceError where the store cannot be reached or holds another layout.
        """
        found = self.values.get([LAYOUT_KEY, AS_OF_KEY])
        self._check(found[0])
        return None if found[1] is None else int(found[1])

    def catalogue(self) -> Catalogue:
        """What can be shown, as it is now. Raises ServiceError where the store is away."""
        self._take(self._moved(self.values.get([VERSION_KEY])[0]))
        return self._shelf.catalogue

    def update(self, tables: Tables, stamp: int | None = None, after: int | None = None) -> bool:
        """Take in a batch, whole or not at all; False where the store has it already.

        It has it where its watermark is not before `stamp` (microseconds; every row of the batch
        is known at or before it), so a batch may be sent again. Clicks and conversions of an
        impression that is not there yet wait for it. Raises ServiceError where the store cannot
        be reached, where its watermark is not `after` (it lost what it had) if that is given, or
        where another writer moves the watermark meanwhile.
        """
        # Read, compute, then write over the watermark that was read. It is the only thing that two
        # writers contend for: every value that a batch changes is the watermark's, so nothing else
        # has to be compared.
        found = self.values.get(_HEAD)
        self._check(found[0])
        self._take(self._moved(found[2]))
        watermark = _number(found[1])
        # Sent again, after an answer that did not arrive.
        if stamp is not None and watermark >= stamp:
            return False
        if after is not None and watermark != after:
            raise ServiceError(moved(AS_OF_KEY, str(after).encode(), found[1]))
        # Before the rest: an ad may be shown for the first time in the batch that brings it.
        changed = tables.get(CATALOGUE, UPDATES.empty_table())
        news = changed.num_rows > 0
        shelf = self._shelf.merged(changed) if news else self._shelf
        batch = Batch.of(shelf.plan, shelf.vocabulary, tables)
        changes = batch.changes(dict(zip(batch.keys, self.values.get(batch.keys), strict=True)))
        # The watermark moves without a change, too: it says what is known to the store, not what it
        # holds.
        newest = max(watermark, changes.known, *known(changed).tolist())
        newest = newest if stamp is None else stamp
        written = self._writes(changes, newest) if newest >= 0 else []
        kept = as_kept(shelf) if news else {}
        self.values.commit(AS_OF_KEY, found[1], [*written, (kept, 0)])
        if news:
            self._shelf, self._version = shelf, kept[VERSION_KEY]
        return True

    def _moved(self, found: Value) -> Value:
        """The store's catalogue, where its version is not the one that is had; one round trip."""
        # An emptied store has none: what was known of what can be shown stays.
        if found is None or found == self._version:
            return None
        return self.values.get([CATALOGUE_KEY])[0]

    def _take(self, catalogue: Value) -> None:
        if catalogue is not None:
            # Its own version and not the one that was seen: it may have moved again since.
            self._shelf, self._version = self._shelf.read(catalogue), version(catalogue)

    def _writes(self, changes: Changes, newest: int) -> Writes:
        keys = [f"user:{name}" for name in changes.user_ids]
        periods = [*changes.hours, *changes.days, *changes.spent]
        found = self.values.get([*keys, *periods])
        old = found[: len(keys)]
        _check_values(old)
        profile = layout.unpack(old, 1, len(self.plan.profile_names)).profile
        profile[changes.profiled] = changes.profile
        merged = layout.merge(
            old,
            changes.user,
            profile,
            changes.rows,
            capacity=self.capacity,
            today=newest // MICROS_PER_DAY,
            max_days=self.plan.max_days,
        )
        before = dict(zip(periods, found[len(keys) :], strict=True))
        counted = changes.hours | changes.days
        totals = {key: item_rows.add(before[key], rows) for key, rows in counted.items()}
        totals |= {key: spend.add(before[key], rows) for key, rows in changes.spent.items()}
        return [
            (changes.impressions | changes.waiting, self.impression_seconds),
            (dict(zip(keys, merged, strict=True)), self.user_seconds),
            (
                {period: totals[period] for period in (*changes.hours, *changes.spent)},
                self.hour_seconds,
            ),
            ({period: totals[period] for period in changes.days}, self.day_seconds),
            ({LAYOUT_KEY: self.layout, AS_OF_KEY: str(newest).encode()}, 0),
        ]

    def load(self, writes: Iterable[tuple[Mapping[str, bytes], int]], as_of: int) -> None:
        """Put values in chunks, `as_of` last; what was there before stays.

        Raises ServiceError where the store lost what it was given on the way, or where another
        writer began to load it.
        """
        self._check(self.values.get([LAYOUT_KEY])[0])
        # A server that comes back empty in the middle would keep the last chunks and lose the
        # first: what was put before all of them must still be there at the end.
        token = uuid4().bytes
        self.values.put({LOADING_KEY: token}, LOADING_SECONDS)
        for chunk, seconds in writes:
            self.values.put(chunk, seconds)
        # Last, since a store without as_of counts as empty: a load that was cut off is done again.
        last = {LAYOUT_KEY: self.layout, AS_OF_KEY: str(as_of).encode()}
        self.values.commit(LOADING_KEY, token, [(last, 0)])
        self._rows.clear()
        self._ads = AdStates(-1, self._ads.counts, degraded=True)
        self._take(self._moved(self.values.get([VERSION_KEY])[0]))

    @property
    def layout(self) -> bytes:
        """Version of the values, behaviours kept, days kept, profile attributes."""
        plan = self.plan
        return json.dumps(
            {
                "layout": layout.LAYOUT,
                "history": self.capacity,
                "days": plan.max_days,
                "profile": list(plan.profile_names),
            }
        ).encode()

    @property
    def user_seconds(self) -> int:
        """A user without an event for so long is forgotten."""
        return 2 * (self.plan.max_days + 1) * _DAY_SECONDS

    @property
    def hour_seconds(self) -> int:
        """An hour is kept until its day is over, and a while longer."""
        return 3 * _DAY_SECONDS

    @property
    def day_seconds(self) -> int:
        """A day is kept while the longest window may need it."""
        return (self.plan.max_days + 2) * _DAY_SECONDS

    @property
    def impression_seconds(self) -> int:
        """An impression waits so long for its conversion, and a conversion for its impression."""
        return (ATTRIBUTION_DAYS + 1) * _DAY_SECONDS

    def _check(self, found: Value) -> None:
        if found is not None and found != self.layout:
            raise ServiceError(
                f"the online store has layout {found.decode(errors='replace')}, "
                f"this model reads {self.layout.decode()}: load its snapshot into an empty store"
            )

    def _stale(self, hour: int) -> list[str]:
        """Hours and days to fetch before counters of `hour` can be told."""
        ads = self._ads
        if ads.hour == hour and ads.final and not ads.degraded:
            return []
        # Hours and days that were over before the last look cannot change any more and are kept in
        # memory: most requests ask Redis for their users alone.
        open_hour = ads.as_of // MICROS_PER_HOUR  # what became known since may be of this hour on
        return [
            key
            for key, start, hours in _periods(hour, self.plan.max_days)
            if key not in self._rows or start + hours > open_hour
        ]

    def _refresh(self, hour: int, watermark: int, found: Mapping[str, Value]) -> None:
        ads, plan = self._ads, self.plan
        there = plan is self._counted and ads.hour == hour and not ads.degraded
        if there and (ads.final or ads.as_of == watermark):
            return
        # Counters of all ads are made anew once an hour, and as often as the watermark moves while
        # the hour before may still get rows. A difference to the last ones would be less to add and
        # much to get wrong.
        periods = item_rows.periods(hour, self.plan.max_days)
        read = self._rows | {key: _read(key, value) for key, value in found.items()}
        self._rows = {key: read[key] for key, _, _ in _periods(hour, self.plan.max_days)}
        counts = _no_counts(plan)
        cells, attributes = plan.item_cells, plan.ad_attributes
        for key, start, _ in periods:
            if self._rows[key].size:
                inside = item_rows.windows(cells.days, hour, start)
                # Of a copy: an ad that has no row now may have one with the next catalogue.
                rows = self._rows[key].copy()
                for column, kind in enumerate(("ad", "placement")):
                    forget_newer(rows[:, column], plan.sizes[kind])
                kernels.item_counts(counts, inside, rows, attributes, cells)
        self._counted = plan
        spent = spend.summed([self._rows[key] for key in spend.keys(hour)], plan.sizes["ad"])
        empty = watermark < 0
        self._ads = AdStates(
            hour, counts, watermark, degraded=empty, spent=None if empty else spent
        )


def _periods(hour: int, max_days: int) -> list[item_rows.Period]:
    """The closed periods that a request in an hour adds up: of counters, and of what was spent."""
    today = hour // 24 * 24
    spent = [(key, today + past, 1) for past, key in enumerate(spend.keys(hour))]
    return [*item_rows.periods(hour, max_days), *spent]


def _read(key: str, value: Value) -> Longs:
    return spend.read(value) if key.startswith("spend:") else item_rows.read(value)


def _no_counts(plan: Plan) -> Longs:
    return np.zeros((int(plan.item_cells.base[-1]), kernels.ITEM_COUNTS), np.int64)


def as_kept(shelf: Shelf) -> dict[str, bytes]:
    """A catalogue by its keys, for `load`."""
    value = shelf.value()
    return {CATALOGUE_KEY: value, VERSION_KEY: version(value)}


def _number(value: Value) -> int:
    return -1 if value is None else int(value)


def _check_values(states: list[Value]) -> None:
    other = layout.other_layout(states)
    if other is not None:
        raise ServiceError(f"a user's value has layout {other}, this code reads {layout.LAYOUT}")


def forget_newer(indices: Ints | Longs, size: int) -> None:
    """In place: indices that a vocabulary of `size` rows does not have become 0."""
    indices[indices >= size] = 0


@dataclass
class MemoryValues:
    """Values in this process. They are not forgotten."""

    content: dict[str, bytes] = field(default_factory=dict)

    def get(self, keys: Sequence[str]) -> list[Value]:
        """See Values."""
        return [self.content.get(key) for key in keys]

    def put(self, pairs: Mapping[str, bytes], seconds: int) -> None:  # noqa: ARG002
        """See Values; `seconds` is not used."""
        self.content.update(pairs)

    def commit(self, key: str, expected: Value, writes: Writes) -> None:
        """See Values."""
        if self.content.get(key) != expected:
            raise ServiceError(moved(key, expected, self.content.get(key)))
        for pairs, seconds in writes:
            self.put(pairs, seconds)


def moved(key: str, expected: Value, found: Value) -> str:
    """What `commit` says where another writer was there first."""
    return f"another writer moved {key!r} from {expected!r} to {found!r}: nothing was written"


class MemoryStore(FeatureStore):
    """A store in this process: for offline replay and the simulated weeks."""

    def __init__(self, plan: Plan, vocabulary: Vocabulary, history: int) -> None:
        super().__init__(plan, vocabulary, history, MemoryValues())
