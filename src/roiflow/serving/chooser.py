"""A served package as the one that fills the simulated world's slates, and what it did so from."""

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
from roiflow.online import given as parity
from roiflow.online.shelf import Shelf
from roiflow.online.store import CATALOGUE, OnlineStore
from roiflow.serving.recalibrate import Recalibrator
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.tables import request_ids
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
        if not requests.number.size:
            slots = self._world.slate_size
            return np.zeros((0, slots), np.int32), np.zeros((0, slots))
        first = int(requests.event_time[0])
        week = Week.of(first)
        if self._recalibrator:
            self._recalibrator.renew(first // MICROS_PER_HOUR * MICROS_PER_HOUR)
        world_row = self._rows_of(week)
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

    def _rows_of(self, week: Week) -> Ints:
        """The world's rows of the store's catalogue."""
        shelf = self._store.shelf
        if self._rows is None or self._rows[0] != week or self._rows[1] is not shelf:
            names = np.array(shelf.catalogue.ad_id.to_pylist(), np.str_)
            self._rows = week, shelf, self._world.ad_rows(week, names)
        return self._rows[2]

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
