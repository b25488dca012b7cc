"""Requests to slates: the one path behind HTTP, the simulated weeks and offline replay.

A slate costs one round trip to the online store, one pass over the catalogue for pre-selection, one
run of the user encoder and one of the scorer for the top K; the policy samples from those. Nothing
here imports torch, MLflow, scikit-learn or pandas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roiflow.candidates import selector as candidates
from roiflow.catalogue.eligibility import eligible as may_be_shown
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.errors import PackageError
from roiflow.features.plan import CONTEXT_PLACEMENT, Plan, context
from roiflow.features.table import Flags, Floats, Ints, Longs, Requests, Singles
from roiflow.features.vocabulary import Vocabulary
from roiflow.online import given as parity
from roiflow.online import store as online
from roiflow.online.given import Bytes
from roiflow.online.layout import UserStates
from roiflow.online.shelf import Shelf, known_ads
from roiflow.online.store import AdStates, MemoryStore, OnlineStore
from roiflow.policy import plackett_luce
from roiflow.policy.candidate_sets import CandidateSets, of_predictions
from roiflow.ranking import blend, recalibration, serving_form
from roiflow.ranking.protocol import Predictions
from roiflow.ranking.recalibration import Recalibrations
from roiflow.ranking.serving_form import Histories, People
from roiflow.serving import draws
from roiflow.serving.package import CANDIDATES, PLAN, VOCABULARY, Package
from roiflow.serving.slates import RequestContexts, Slates

CHUNK_PAIRS = 1 << 16
"""Request-ad pairs that pre-selection works on at a time."""

RUN_ROWS = 32
"""Requests that a network runs on at a time: more of them, and what its layers hand on falls out of
the cache (178 take a third longer a request)."""


EVERY = slice(None)


@dataclass(frozen=True)
class _SideTables:
    """Side tables of one batch: `profile` is by row of the batch, not by user."""

    attributes: Ints
    profile: Ints


@dataclass(frozen=True)
class Considered:
    """Requests (B,) of one hour with their candidates, before a slate is drawn."""

    batch: RequestContexts
    shelf: Shelf
    users: UserStates
    row: Longs  # (B, K) rows of the catalogue
    requests: Requests  # (B, K), ads as the models know them
    sets: CandidateSets  # (B, K)
    logits: Floats  # (B, K)
    degraded: bool
    """Made without online features."""


class Memories:
    """What the encoder made of histories, kept until they change.

    A user asks many times between two behaviours, and the encoder is half of a request's cost.
    """

    def __init__(self, encode: Callable[[Histories], Singles], width: int) -> None:
        """`width` columns are kept, the last."""
        self.most = 1 << 13  # beyond it all are forgotten
        self._encode, self._width = encode, width
        self._kept: dict[bytes, Singles] = {}

    def __call__(self, history: Histories) -> Singles:
        """Memories (B, width, D) of histories (B, L), of one L at all times."""
        names = [row.tobytes() for row in serving_form.bytes_of(history)]
        if len(self._kept) + len(names) > self.most:
            self._kept.clear()
        new = {name: at for at, name in enumerate(names) if name not in self._kept}
        if new:
            made = self._encode(history.take(np.array(list(new.values()))))
            for name, memory in zip(new, made, strict=True):
                self._kept[name] = memory[-self._width :].copy()
        found = [self._kept[name] for name in names]
        out = np.zeros((len(found), self._width, found[0].shape[1]), np.float32)
        # Right-aligned, as histories are; before them stands nothing that is looked at.
        for row, memory in zip(out, found, strict=True):
            row[-memory.shape[0] :] = memory
        return out


class Models:
    """The four models of a package, as functions of requests with features."""

    def __init__(
        self,
        package: Package,
        recalibrations: Recalibrations = recalibration.NONE,
        *,
        remembers: bool = False,
    ) -> None:
        """Raises PackageError where parts of the package do not fit each other.

        One that remembers encodes a history once for all requests that it meets it at; what it
        gives then depends, in the last bit, on the requests before.
        """
        about = package.description
        self.digest = package.digest
        self.about, self.plan = about, Plan.read(package.folder / PLAN)
        self.vocabulary = Vocabulary.read(package.folder / VOCABULARY)
        self.sizes = serving_form.Sizes.of(about.sizes, about.profile_names)
        self._selector = candidates.load(package.folder / CANDIDATES)
        self._encoder, self._scorer = package.user_encoder, package.scorer
        self._policy = package.policy
        width = about.history_length
        self._memories = Memories(self._encode, width) if remembers else None
        self.recalibrations = recalibrations
        """Beside the package: put in anew while it serves."""
        self._check(package)

    def _check(self, package: Package) -> None:
        about = self.about
        # The parts come from several stages, and columns are read by place: in another order every
        # model would still answer, and wrongly.
        pairs: tuple[tuple[str, Sequence[str], Sequence[str]], ...] = (
            ("dense features", self.plan.dense_names, about.dense_names),
            ("profile attributes", self.plan.profile_names, about.profile_names),
            (
                "pre-selection's dense features",
                self._selector.design.dense_names,
                about.dense_names,
            ),
        )
        for what, found, expected in pairs:
            if tuple(found) != tuple(expected):
                wrong = f"{what} are {list(found)}, the manifest says {list(expected)}"
                raise PackageError(f"{package.folder}: {wrong}")

    def select(
        self, requests: Requests, people: People, attributes: Ints
    ) -> tuple[Longs, Predictions]:
        """Columns (B, k) of the top k candidates of `requests` (B, A), best first.

        With what pre-selection expects of each of them (B, k). `attributes` (ads, 5) are by dense
        index.
        """
        # Profiles come with the request, not by dense index: an online user may be newer than the
        # package's tables, so the batch's own rows stand in for the users.
        rows = replace(requests, user=np.arange(requests.user.size, dtype=np.int32))
        expected = self._selector.score(_SideTables(attributes, people.profile), rows)
        columns = candidates.best(self._selector.values(expected, rows), self.about.top_k)
        return columns, expected.at(columns)

    def selected(self, requests: Requests, people: People, attributes: Ints) -> Predictions:
        """What pre-selection expects of candidates that others chose (B, K); as for `predict`."""
        # As in `select`; and attributes come with the candidates, too: each is an ad of its own.
        count = np.arange(requests.ad.size, dtype=np.int32).reshape(requests.ad.shape)
        rows = replace(
            requests,
            user=np.arange(requests.user.size, dtype=np.int32),
            ad=np.where(requests.ad >= 0, count, requests.ad),
        )
        tables = _SideTables(attributes.reshape(-1, attributes.shape[-1]), people.profile)
        return self._selector.score(tables, rows)

    def predict(
        self, requests: Requests, people: People, attributes: Ints, selected: Predictions
    ) -> Predictions:
        """Predictions (B, K), by what is in force.

        `attributes` (B, K, 5) of the candidates; `selected` is what pre-selection expects of them.
        """
        own = self._predict_parts(requests, people, attributes)
        share = self._policy.selector_share
        mixed = blend.mean(own, selected, share) if share else own
        return self.recalibrations.apply(mixed, requests.event_time)

    def _predict_parts(self, requests: Requests, people: People, attributes: Ints) -> Predictions:
        """The package's own calibrated predictions (B, K)."""
        # As at the door, where there is nothing to order and put back.
        if requests.user.size == 1:
            return self._predict(requests, people, attributes)
        return serving_form.in_parts(
            requests,
            people.history.length,
            RUN_ROWS,
            lambda rows: self._predict(requests.take(rows), people.take(rows), attributes[rows]),
        )

    def _predict(self, requests: Requests, people: People, attributes: Ints) -> Predictions:
        # The encoder reads further back than the candidates look: its last columns are theirs.
        recent = people.history.cut(self.about.history_length)
        feed = serving_form.scorer_inputs(
            requests, replace(people, history=recent), attributes, self.sizes
        )
        if self._memories is not None:
            memory = self._memories(people.history)
        else:
            different, which = serving_form.distinct(people.history.cut(self.about.encode_length))
            memory = self._encode(different)[which]
        feed["memory"] = memory[:, -recent.ad.shape[1] :]
        (output,) = self._scorer.run([serving_form.SCORER_OUTPUT], feed)
        return serving_form.predictions(output, requests.ad >= 0)

    def _encode(self, history: Histories) -> Singles:
        """Memories (B, L, D) of histories; L is no less than the longest one's, nor than needed."""
        history = history.cut(self.about.encode_length)
        feed = serving_form.encoder_inputs(history, self.sizes)
        memory: Singles = self._encoder.run([serving_form.ENCODER_OUTPUT], feed)[0]
        return memory

    def candidate_sets(self, requests: Requests, predictions: Predictions) -> CandidateSets:
        """What is expected of each candidate (B, K)."""
        return of_predictions(requests, predictions, self.about.cost_shares)

    def logits(self, sets: CandidateSets) -> Floats:
        """Plackett-Luce logits (B, K)."""
        return self._policy.logits(sets)


class Recommender:
    """Slates over a store's catalogue, from its features and the package's models."""

    def __init__(self, package: Package, *, remembers: bool = False) -> None:
        """See Models."""
        self.models = Models(package, remembers=remembers)
        self.digest = package.digest
        self.policy_version = package.digest[:12]
        self.slate_size = package.description.slate_size
        self._named: tuple[Shelf, NDArray[Any]] | None = None
        self._vector = vector_shape(package)
        self.feature_sample = package.description.feature_sample

    @property
    def history(self) -> int:
        """Behaviours that must be read of each user."""
        return self.models.about.encode_length

    def memory_store(self) -> MemoryStore:
        """A store in this process that fits the package."""
        return MemoryStore(self.models.plan, self.models.vocabulary, self.history)

    def recommend(
        self,
        batch: RequestContexts,
        store: OnlineStore,
        eligible: Flags | None = None,
    ) -> tuple[Slates, bool]:
        """Slates of B requests, and whether they were made without online features.

        The same request to the same package gets the same slate, as long as its features and its
        catalogue are the same (draws.py).
        What has ended or spent its money is not shown, as the store says, or where `eligible` (A,)
        is given, as that does: whoever fills a world's slates knows its money better than a store.
        Slots for which nothing is left are empty.
        Requests of different hours are read apart, since item counters stand still in an hour.
        """
        parts = self.parts(batch, store)
        if len(parts) == 1:
            return self._recommend(batch, store, eligible)
        found = [self._recommend(batch.take(rows), store, eligible) for rows in parts]
        back = np.argsort(np.concatenate(parts), kind="stable")
        return stacked([slates for slates, _ in found], back), any(bad for _, bad in found)

    def parts(self, batch: RequestContexts, store: OnlineStore) -> list[Longs]:
        """Rows of requests that are worked on at once: of one hour, and of bounded memory."""
        # Requests of the door come one by one and go straight on; a simulated week brings hours of
        # them.
        if batch.event_time.size <= 1:
            return [np.arange(batch.event_time.size)]
        hours = batch.event_time // MICROS_PER_HOUR
        order = np.argsort(hours, kind="stable")
        chunk = max(1, CHUNK_PAIRS // max(1, store.shelf.size))
        by_hour = np.split(order, np.flatnonzero(np.diff(hours[order])) + 1)
        return [rows[at : at + chunk] for rows in by_hour for at in range(0, rows.size, chunk)]

    def _recommend(
        self, batch: RequestContexts, store: OnlineStore, eligible: Flags | None
    ) -> tuple[Slates, bool]:
        """Requests of one hour, few enough to be worked on at once."""
        if not batch.event_time.size:
            return self._empty(0), False
        shelf, users, items = _read(batch, store)
        if not shelf.size:
            return self._empty(batch.event_time.size), users.degraded
        found = self.expect(batch, shelf, users, items, eligible)
        return self.draw(found), found.degraded

    def consider(
        self, batch: RequestContexts, store: OnlineStore, eligible: Flags | None
    ) -> Considered:
        """As `expect`, of requests of one hour, few enough to be worked on at once."""
        return self.expect(batch, *_read(batch, store), eligible)

    def draw(self, found: Considered, rows: slice | Longs = EVERY) -> Slates:
        """Slates of some of the requests, at least one."""
        names = found.batch.request_ids
        names = names if isinstance(rows, slice) else [names[row] for row in rows.tolist()]
        # The noise hangs on the request's id and not on a generator: a retry finds its slate again,
        # and the log is enough to draw it once more.
        ad = found.shelf.ad[found.row[rows]]
        noise = draws.gumbel(draws.seeds(self.digest, names), ad)
        choices, propensity = plackett_luce.choose(found.logits[rows], self.slate_size, noise)
        return self._slates(found, rows, choices, propensity)

    def expect(
        self,
        batch: RequestContexts,
        shelf: Shelf,
        users: UserStates,
        items: AdStates,
        eligible: Flags | None = None,
    ) -> Considered:
        """What requests of one hour may be shown, and what to expect of each candidate."""
        users = within(users, shelf.plan, self.models.plan)
        requests = self.requests(batch, shelf, users, items)
        if eligible is None:
            eligible = may_be_shown(
                shelf.catalogue.terms, _spent(shelf, items, batch), batch.event_time, shelf.pacing
            )
        # Before pre-selection: what may not be shown would take places in the top K.
        requests = replace(requests, ad=np.where(eligible, requests.ad, -1).astype(np.int32))
        people = People(users.user, users.profile, _history(users))
        columns, selected = self.models.select(requests, people, shelf.plan.attributes)
        requests = candidates.narrow(requests, columns)
        # To the models an ad is what they have learnt of it; its attributes say the rest.
        known = np.where(requests.ad < 0, requests.ad, known_ads(shelf, self.models.plan)[columns])
        requests = replace(requests, ad=known.astype(np.int32))
        predictions = self.models.predict(requests, people, shelf.attributes[columns], selected)
        sets = self.models.candidate_sets(requests, predictions)
        degraded = users.degraded or items.degraded
        return Considered(
            batch, shelf, users, columns, requests, sets, self.models.logits(sets), degraded
        )

    def requests(
        self, batch: RequestContexts, shelf: Shelf, users: UserStates, items: AdStates
    ) -> Requests:
        """Requests of one hour with every ad of the catalogue and its features.

        Ads are rows of the shelf's plan.
        """
        plan, catalogue = shelf.plan, shelf.catalogue
        around = context(
            self._index("placement", batch.placement),
            self._index("device", batch.device),
            batch.event_time,
        )
        # Views of one row: the catalogue is the same for every request.
        shape = (batch.event_time.size, shelf.size)
        ad: Ints = np.broadcast_to(shelf.ad, shape)
        price: Longs = np.broadcast_to(catalogue.price, shape)
        bid: Longs = np.broadcast_to(catalogue.bid, shape)
        dense: Singles = online.dense(
            plan,
            users,
            items,
            event_time=batch.event_time,
            placement=around[:, CONTEXT_PLACEMENT],
            ad=ad,
            price=price,
            bid=bid,
        )
        # There is no log for them to point into; histories come with the people.
        nothing = np.zeros(shape[0], np.int64)
        return Requests(
            request=np.arange(shape[0]),
            user=users.user,
            event_time=batch.event_time,
            history_start=nothing,
            history_end=nothing,
            context=around,
            ad=ad,
            price=price,
            bid=bid,
            dense=dense,
        )

    def _index(self, kind: str, names: Sequence[str]) -> Ints:
        lookup = self.models.vocabulary.lookup(kind)
        return np.array([lookup.get(name, 0) for name in names], np.int32)

    def _names(self, shelf: Shelf) -> NDArray[Any]:
        """Ads' names (A + 1,), one more at row -1: an empty slot is an index like any other."""
        if self._named is None or self._named[0] is not shelf:
            names = np.array([*shelf.catalogue.ad_id.to_pylist(), ""], dtype=object)
            self._named = shelf, names
        return self._named[1]

    def _slates(
        self, found: Considered, rows: slice | Longs, choices: Longs, propensity: Floats
    ) -> Slates:
        shelf, sets, requests = found.shelf, found.sets.take(rows), found.requests.take(rows)
        shown = choices >= 0
        each, at = np.arange(choices.shape[0])[:, None], np.where(shown, choices, 0)

        def take(values: Any) -> Any:
            return np.where(shown, values[each, at], 0)

        row = np.where(shown, found.row[rows][each, at], -1)
        dense = np.where(shown[:, :, None], requests.dense[each, at], 0)
        return Slates(
            row=row,
            ad_ids=self._names(shelf)[row],
            propensity=propensity,
            click=take(sets.click),
            conversion=take(sets.conversion),
            revenue=take(sets.revenue),
            value=take(sets.value(self.models.about.cost_weight)),
            bid=take(sets.bid),
            as_of=np.full(choices.shape[0], found.users.as_of),
            recalibration=self._in_force(requests.event_time),
            vectors=_vectors(found.users, rows, requests, dense),
        )

    def _in_force(self, event_time: Longs) -> NDArray[Any]:
        """Digests (B,) of the recalibrations; None where there is none."""
        found = np.empty(event_time.size, object)
        found[:] = self.models.recalibrations.digests(event_time)
        return found

    def _empty(self, requests: int) -> Slates:
        """Nothing for each request."""
        none = np.zeros((requests, self.slate_size))
        return Slates(
            row=np.full(none.shape, -1),
            ad_ids=np.full(none.shape, "", dtype=object),
            propensity=none,
            click=none,
            conversion=none,
            revenue=none,
            value=none,
            bid=none.astype(np.int64),
            as_of=np.full(requests, -1),
            recalibration=np.full(requests, None, dtype=object),
            vectors=np.zeros((requests, self._vector.bytes), np.uint8),
        )


def _read(batch: RequestContexts, store: OnlineStore) -> tuple[Shelf, UserStates, AdStates]:
    # Any of the requests: a store goes by their hour alone.
    as_of = int(batch.event_time[-1])
    users = store.read(batch.user_ids, as_of)
    # After the read, which takes in what has become of the catalogue.
    return store.shelf, users, store.ad_states(as_of)


def _spent(shelf: Shelf, items: AdStates, batch: RequestContexts) -> Floats:
    """Micros (A,) that ads have spent of the day of a batch."""
    # Of another hour, or of no store at all: nobody knows, and then nothing more is spent.
    if items.spent is None or items.hour != int(batch.event_time[-1]) // MICROS_PER_HOUR:
        return np.full(shelf.size, np.inf)
    return items.spent[shelf.ad].astype(np.float64)


def within(users: UserStates, counted: Plan, learnt: Plan) -> UserStates:
    """States with 0 for what is newer: than the counters in buckets, than the models in history."""
    return replace(
        users,
        history_ad=_inside(users.history_ad, learnt.sizes["ad"]),
        history_category=_inside(users.history_category, learnt.sizes["category"]),
        bucket_ad=_inside(users.bucket_ad, counted.sizes["ad"]),
        bucket_category=_inside(users.bucket_category, counted.sizes["category"]),
    )


def _inside(index: Ints, size: int) -> Ints:
    return np.where(index < size, index, 0).astype(np.int32)


def _history(users: UserStates) -> Histories:
    return Histories(
        users.history_ad,
        users.history_category,
        users.history_action,
        users.history_time,
        users.history_length.astype(np.int64),
    )


def _vectors(users: UserStates, rows: slice | Longs, requests: Requests, shown: Singles) -> Bytes:
    """What the models were given; `shown` (B, S, F) are the dense features of the shown ads."""
    return parity.pack(
        parity.Inputs(
            users.user[rows],
            users.profile[rows],
            users.history_ad[rows],
            users.history_category[rows],
            users.history_action[rows],
            users.history_time[rows],
            requests.context,
            shown,
        )
    )


def vector_shape(package: Package) -> parity.Shape:
    """Sizes of the vectors that a package's slates have."""
    about = package.description
    return parity.Shape(
        len(about.profile_names), about.encode_length, about.slate_size, about.dense_names
    )


def stacked(parts: Sequence[Slates], order: Longs) -> Slates:
    """Parts as one, its rows in an order."""
    return Slates(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])[order]
            for field in fields(Slates)
        }
    )
