"""A served package as the one that fills the simulated world's slates."""

import numpy as np

from roiflow.data.sources.protocol import Tables
from roiflow.errors import ContractError
from roiflow.features.online import OnlineStore
from roiflow.serving.recommender import Recommender
from roiflow.serving.slates import RequestContexts
from roiflow.simulator.noise import Floats
from roiflow.simulator.population import Ints
from roiflow.simulator.world import World, WorldRequests


class ServedChooser:
    """The simulator's SlateChooser: the recommender, and the store that learns what is known."""

    def __init__(self, recommender: Recommender, store: OnlineStore, world: World) -> None:
        self.policy_version = recommender.policy_version
        self.arm = "stable"
        self._recommender, self._store = recommender, store
        names = np.array(recommender.models.ads.ad_id)
        self._world_row = world.ad_rows(names)

    def choose(self, requests: WorldRequests, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """Rows of the world's catalogue (B, S) and propensities (B, S)."""
        contexts = RequestContexts(
            requests.user_ids.tolist(),
            requests.event_time,
            requests.placement.tolist(),
            requests.device.tolist(),
        )
        slates, degraded = self._recommender.recommend(contexts, self._store, rng)
        if degraded:
            raise ContractError(f"{self.policy_version}: the online store could not be read")
        if (slates.row < 0).any():
            row = int(np.flatnonzero((slates.row < 0).any(axis=1))[0])
            raise ContractError(
                f"request {requests.number[row]}: only {len(self._world_row)} ads can be shown, "
                f"fewer than {slates.row.shape[1]} slots"
            )
        return self._world_row[slates.row], slates.propensity

    def observe(self, tables: Tables) -> None:
        """What has just become known goes into the store."""
        self._store.update(tables)
