"""A ranker alone as the one that fills the simulated world's slates: the best values, greedily.

It answers on the log of a week that another policy served: features are as known at each request,
from the same engine as in training. What users do of their own accord is the same whoever serves;
counted impressions, clicks and conversions are those of the policy that served.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from roiflow.candidates.selector import RevenueModel
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import Week
from roiflow.errors import ContractError
from roiflow.features.engine import Asked, Engine, last_times
from roiflow.features.history import history_slices
from roiflow.features.plan import Plan, context
from roiflow.features.table import Features, Floats, Ints, Requests
from roiflow.features.vocabulary import Vocabulary
from roiflow.policy.candidate_sets import CHUNK_BYTES
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.value import CostShares, expected_cost
from roiflow.simulator.population import Flags, Names, WorldRequests
from roiflow.simulator.tables import By
from roiflow.simulator.world import World

KEPT = 4
"""Parts of requests, of bounded memory each (`CHUNK_BYTES`)."""


@dataclass(frozen=True)
class KnownWeek:
    """The last week of a feature table, of which any request of the world can be asked."""

    world: World
    features: Features
    engine: Engine
    vocabulary: Vocabulary
    kept: dict[tuple[int, int], Requests] = field(default_factory=dict, repr=False, compare=False)
    """What was asked for last, by first number and size: rankers are asked one after the other."""

    @property
    def week(self) -> Week:
        """The week."""
        return Week.parse(self.features.catalogues[-1].week)

    def counted_as(self, plan: Plan) -> "KnownWeek":
        """With the priors of another run, which that run's models expect."""
        # These four alone: sizes and attributes stay those of the features that the indices are of.
        names = ("ctr", "cvr", "value", "prior_strength")
        same = {name: getattr(plan, name) for name in names}
        engine = replace(self.engine, plan=replace(self.engine.plan, **same))
        return replace(self, engine=engine, kept={})

    def world_rows(self) -> Ints:
        """The world's row of each ad of the week's catalogue (a,); -1 without a name of its own."""
        ad = self.features.catalogues[-1].ad
        # The feature table numbers ads by its vocabulary, the world by its week's catalogue; the id
        # is what they share.
        rows = np.full(ad.size, -1, np.int32)
        ids = self.vocabulary.ids("ad").take(pa.array(ad[ad > 0] - 1))
        rows[ad > 0] = self.world.ad_rows(self.week, np.array(ids.to_pylist(), np.str_))
        return rows

    def requests(self, asked: WorldRequests) -> Requests:
        """The week's catalogue for each request (B, a), with features as known at its time.

        Kept while several rankers are asked about the same requests, which are in the order of
        their numbers: to count what was known is half of what a ranker costs.
        """
        place = int(asked.number[0]), asked.number.size
        if place not in self.kept:
            for old in list(self.kept)[: 1 - KEPT]:
                del self.kept[old]
            self.kept[place] = self._requests(asked)
        return self.kept[place]

    def _requests(self, asked: WorldRequests) -> Requests:
        table, events, catalogue = self.features, self.features.events, self.features.catalogues[-1]
        time = asked.event_time
        user, placement, device = (
            self._index(kind, names)
            for kind, names in (
                ("user", self.world.user_ids[asked.user_index]),
                ("placement", asked.placement),
                ("device", asked.device),
            )
        )
        # Cut at the request's own time: the table holds the whole week, and what the user did later
        # would be known in advance.
        start, end = history_slices(
            user, time, events.offsets, events.known_time, table.history_length
        )
        return self.engine.over(
            catalogue,
            Asked(asked.number, user, time, start, end, context(placement, device, time)),
            last_times(events, start, end),
        )

    def _index(self, kind: str, names: Names) -> Ints:
        return self.vocabulary.index(kind, pa.array(names, pa.string()))


class RankerChooser:
    """The simulator's SlateChooser: each request gets the ads of the highest predicted values."""

    learns = False

    def __init__(
        self,
        ranker: Ranker,
        known: KnownWeek,
        shares: CostShares,
        *,
        revenue: RevenueModel | None = None,
        cost_weight: float = 1.0,
    ) -> None:
        """`revenue` stands in for E[revenue | conversion] of a ranker that does not tell ads apart.

        A value is revenue minus `cost_weight` x cost.
        """
        self.policy_version = ranker.name
        self._ranker, self._known, self._shares = ranker, known, shares
        self._revenue, self._cost_weight = revenue, cost_weight
        self._world_rows = known.world_rows()

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Rows of the world's catalogue (B, S), each with probability 1.

        Raises ContractError where fewer ads than slots are both in the catalogue and eligible.
        """
        del rng
        slots = self._known.world.slate_size
        # Row -1 reads the last ad's flag, which the first condition drops.
        usable = (self._world_rows >= 0) & eligible[self._world_rows]
        if usable.sum() < slots:
            raise ContractError(
                f"{self.policy_version}: {usable.sum()} ads can be shown, fewer than {slots} slots"
            )
        # An empty part first, or an hour without a request would have nothing to join.
        parts = [np.zeros((0, slots), np.int32)]
        for part in self._chunks(requests):
            value = np.where(usable, self.values(part), -np.inf)
            # Stable, so that ties go to the lower row on every machine.
            best = np.argsort(-value, axis=1, kind="stable")[:, :slots]
            parts.append(self._world_rows[best])
        slates = np.concatenate(parts)
        return slates, np.ones(slates.shape)

    def _chunks(self, requests: WorldRequests) -> Iterator[Requests]:
        """Requests of bounded memory."""
        # Bounded by the dense float32 features of all the ads, which are most of a request.
        step = max(1, CHUNK_BYTES // (4 * self._world_rows.size * self._columns))
        for start in range(0, requests.number.size, step):
            yield self._known.requests(requests.take(slice(start, start + step)))

    @property
    def _columns(self) -> int:
        return max(1, len(self._known.features.dense_names))

    def values(self, requests: Requests) -> Floats:
        """Predicted revenue minus cost_weight x predicted cost of each ad, micros (B, a)."""
        found = self._ranker.score(self._known.features, requests)
        revenue = self._revenue.revenue(requests.price) if self._revenue else found.revenue
        cost = expected_cost(found, requests.bid, self._shares)
        return np.asarray(found.conversion.astype(np.float64) * revenue - self._cost_weight * cost)

    def by(self, requests: WorldRequests) -> By:
        """Itself."""
        return By.one(self.policy_version, self.policy_version, requests.number.size)

    def observe(self, tables: Tables) -> None:
        """The log it answers from is complete."""
