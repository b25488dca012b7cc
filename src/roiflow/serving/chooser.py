"""A served package as the one that fills the simulated world's slates, and what it did so from."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from roiflow import columns as c
from roiflow.catalogue.catalogue import succession, upserts
from roiflow.data.events import ADS, AS_OF, FEATURES, P_CLICK, P_CONVERSION, RECALIBRATION, VECTOR
from roiflow.data.schemas import TIME
from roiflow.data.served_features import SERVED
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError
from roiflow.features.table import Longs
from roiflow.online import given as parity
from roiflow.online.shelf import Shelf
from roiflow.online.store import CATALOGUE, OnlineStore
from roiflow.serving.recalibrate import Recalibrator
from roiflow.serving.recommender import Considered, Recommender
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.tables import By, request_ids
from roiflow.simulator.world import World

STABLE, CANARY = "stable", "canary"
"""The arms of the log."""


class ServedChooser:
    """The simulator's SlateChooser: the recommender, and the store that learns what is known."""

    learns = True

    def __init__(
        self,
        recommender: Recommender,
        store: OnlineStore,
        world: World,
        recalibrator: Recalibrator | None = None,
    ) -> None:
        """Without a recalibrator the package's predictions stay as they are."""
        self.policy_version, self.slots = recommender.policy_version, world.slate_size
        self._recommender, self._store, self._world = recommender, store, world
        self._rows: tuple[Week, Shelf, Ints] | None = None
        self._served: list[pa.Table] = []
        self._recalibrator = recalibrator

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Rows of the world's catalogue (B, S) and propensities (B, S).

        What the package draws hangs on the requests' ids, as behind the door, and not on `rng`.
        """
        del rng
        shape = requests.number.size, self.slots
        rows, propensity = np.zeros(shape, np.int32), np.zeros(shape)
        if requests.number.size:
            self.renew(int(requests.event_time[0]))
        for at, found in self.consider(requests, eligible):
            rows[at], propensity[at] = self.fill(found, np.arange(at.size))
        return rows, propensity

    def renew(self, now: int) -> None:
        """Recalibrate where it is time, before requests of the hour of `now`, microseconds."""
        if self._recalibrator:
            self._recalibrator.renew(now // MICROS_PER_HOUR * MICROS_PER_HOUR)

    def consider(
        self, requests: WorldRequests, eligible: Flags
    ) -> Iterator[tuple[Longs, Considered]]:
        """Requests of a week in parts: where they are among them (B,), and their candidates."""
        if not requests.number.size:
            return
        week = Week.of(int(requests.event_time[0]))
        contexts = self._contexts(week, requests)
        for at in self._recommender.parts(contexts, self._store):
            open_ = eligible[self.world_rows(week)]
            found = self._recommender.consider(contexts.take(at), self._store, open_)
            # At the door a slate without features is better than none; a world that is served so
            # would be evidence of nothing.
            if found.degraded:
                raise ContractError(f"{self.policy_version}: the online store could not be read")
            yield at, found

    def fill(self, found: Considered, rows: Longs) -> tuple[Ints, Floats]:
        """Draw slates of some requests, at least one, and log what they were made from.

        Rows of the world's catalogue (B, S) and propensities (B, S).
        """
        slates = self._recommender.draw(found, rows)
        if (slates.row < 0).any():
            row = rows[np.flatnonzero((slates.row < 0).any(axis=1))[0]]
            left = int((found.requests.ad[row] >= 0).sum())
            raise ContractError(
                f"request {found.batch.request_ids[row]}: only {left} ads of the catalogue can be "
                f"shown, fewer than {slates.row.shape[1]} slots"
            )
        evidence = self._evidence(found.batch.take(rows), slates)
        self._served.append(evidence)
        if self._recalibrator:
            self._recalibrator.serve(evidence)
        week = Week.of(int(found.batch.event_time[0]))
        return self.world_rows(week)[slates.row], slates.propensity

    def world_rows(self, week: Week) -> Ints:
        """The world's rows (A,) of the store's catalogue."""
        shelf = self._store.shelf
        if self._rows is None or self._rows[0] != week or self._rows[1] is not shelf:
            names = np.array(shelf.catalogue.ad_id.to_pylist(), np.str_)
            self._rows = week, shelf, self._world.ad_rows(week, names)
        return self._rows[2]

    def _contexts(self, week: Week, requests: WorldRequests) -> RequestContexts:
        return RequestContexts(
            request_ids(week, requests.number, 1).to_pylist(),
            self._world.user_ids[requests.user_index].tolist(),
            requests.event_time,
            requests.placement.tolist(),
            requests.device.tolist(),
        )

    def _evidence(self, contexts: RequestContexts, slates: Slates) -> pa.Table:
        names = contexts.request_ids
        whole = [parity.sampled(name, self._recommender.feature_sample) for name in names]
        rows = {
            c.REQUEST: names,
            c.USER: contexts.user_ids,
            c.EVENT_TIME: pa.array(contexts.event_time).cast(TIME),
            c.PLACEMENT: contexts.placement,
            c.DEVICE: contexts.device,
            c.POLICY_VERSION: [self.policy_version] * len(names),
            ADS: slates.ad_ids.tolist(),
            P_CLICK: slates.click.tolist(),
            P_CONVERSION: slates.conversion.tolist(),
            AS_OF: slates.as_of,
            FEATURES: parity.hashes(slates.vectors),
            VECTOR: [
                vector.tobytes() if kept else None
                for kept, vector in zip(whole, slates.vectors, strict=True)
            ],
            RECALIBRATION: slates.recalibration.tolist(),
        }
        return pa.table(rows, schema=SERVED)

    def by(self, requests: WorldRequests) -> By:
        """Itself."""
        return By.one(STABLE, self.policy_version, requests.number.size)

    def changes(self, ads: pa.Table) -> pa.Table:
        """What ads that have just become known change."""
        start = pc.min(ads[c.KNOWN_TIME].cast(pa.int64())).as_py()
        if start is None or start != Week.of(start).start:
            return upserts(ads)
        self._store.read([], start)
        return succession(self._store.shelf.catalogue, ads, start)

    @property
    def served(self) -> pa.Table:
        """What the slates so far were made from; rows of data.served_features.SERVED."""
        return pa.concat_tables([SERVED.empty_table(), *self._served])

    def observe(self, tables: Tables) -> None:
        """What has just become known goes into the store, and changes of the catalogue before it.

        Ads that are known at the start of a week are all there are then: others have ended.
        """
        self._store.update(tables | {CATALOGUE: self.changes(tables["ads"])})
        if self._recalibrator:
            self._recalibrator.observe(tables)
