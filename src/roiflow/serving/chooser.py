"""A served package as the one that fills the simulated world's slates, and what it did so from."""

import numpy as np
import pyarrow as pa

from roiflow import columns as c
from roiflow.catalogue.catalogue import known, succession
from roiflow.catalogue.updates import UPDATES
from roiflow.data.events import ADS, AS_OF, FEATURES, P_CLICK, P_CONVERSION, RECALIBRATION, VECTOR
from roiflow.data.schemas import TIME
from roiflow.data.served_features import SERVED
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.errors import ContractError
from roiflow.online import given as parity
from roiflow.online.store import CATALOGUE, OnlineStore
from roiflow.serving.recalibrate import Recalibrator
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.tables import WorldTables, request_ids
from roiflow.simulator.world import World


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
        self.policy_version = recommender.policy_version
        self.arm = "stable"
        self._recommender, self._store, self._world = recommender, store, world
        self._week: Week | None = None
        self._coming = UPDATES.empty_table()
        self._row = np.zeros(0, np.int32)
        self._served: list[pa.Table] = []
        self._recalibrator = recalibrator

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Rows of the world's catalogue (B, S) and propensities (B, S).

        What the package draws hangs on the requests' ids, as behind the door, and not on `rng`.
        """
        del rng
        if not requests.number.size:
            slots = self._world.slate_size
            return np.zeros((0, slots), np.int32), np.zeros((0, slots))
        first = int(requests.event_time[0])
        week = Week.of(first)
        if self._recalibrator:
            self._recalibrator.renew(first // MICROS_PER_HOUR * MICROS_PER_HOUR)
        world_row = self._rows_at(week, first // MICROS_PER_HOUR * MICROS_PER_HOUR)
        contexts = RequestContexts(
            request_ids(week, requests.number, 1).to_pylist(),
            self._world.user_ids[requests.user_index].tolist(),
            requests.event_time,
            requests.placement.tolist(),
            requests.device.tolist(),
        )
        slates, degraded = self._recommender.recommend(contexts, self._store, eligible[world_row])
        # At the door a slate without features is better than none; a world that is served so would
        # be evidence of nothing.
        if degraded:
            raise ContractError(f"{self.policy_version}: the online store could not be read")
        if (slates.row < 0).any():
            row = int(np.flatnonzero((slates.row < 0).any(axis=1))[0])
            raise ContractError(
                f"request {requests.number[row]}: only {eligible[world_row].sum()} ads of the "
                f"catalogue can be shown, fewer than {slates.row.shape[1]} slots"
            )
        evidence = self._evidence(contexts, slates)
        self._served.append(evidence)
        if self._recalibrator:
            self._recalibrator.serve(evidence)
        return world_row[slates.row], slates.propensity

    def _rows_at(self, week: Week, hour: int) -> Ints:
        """The world's rows of the store's catalogue, in which what has come by the hour is."""
        if week != self._week:
            self._week = week
            self._store.read([], week.start)
            ads = WorldTables(self._world, week).ads()
            self._coming = succession(self._store.shelf.catalogue, ads, week.start)
        news = known(self._coming) <= hour
        if news.any():
            self._store.update({CATALOGUE: self._coming.filter(pa.array(news))})
            self._coming = self._coming.filter(pa.array(~news))
            names = np.array(self._store.shelf.catalogue.ad_id.to_pylist())
            self._row = self._world.ad_rows(week, names)
        return self._row

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

    @property
    def served(self) -> pa.Table:
        """What the slates so far were made from; rows of data.served_features.SERVED."""
        return pa.concat_tables([SERVED.empty_table(), *self._served])

    def observe(self, tables: Tables) -> None:
        """What has just become known goes into the store."""
        self._store.update(tables)
        if self._recalibrator:
            self._recalibrator.observe(tables)
