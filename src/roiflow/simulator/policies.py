"""Who fills slates in the ad world: chance, the logging policy, the oracle."""

import numpy as np

from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.simulator.noise import Floats, Longs, Stream, generator, key, uniforms
from roiflow.simulator.population import Ints
from roiflow.simulator.world import Response, World, WorldRequests


def conditional_propensities(logits: Floats, slates: Ints) -> Floats:
    """Plackett-Luce probability of each ad (B, S) given the ads above it; logits (B, A) or (A,)."""
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weight = np.array(np.broadcast_to(weight, (slates.shape[0], weight.shape[-1])))
    rows, out = np.arange(slates.shape[0]), np.empty(slates.shape)
    for slot in range(slates.shape[1]):
        chosen = slates[:, slot]
        out[:, slot] = weight[rows, chosen] / weight.sum(axis=1)
        weight[rows, chosen] = 0.0
    return out


class PlackettLuce:
    """Slates drawn from fixed logits (A,) by the Gumbel trick (Kool et al., 2019).

    The noise is addressed by week, request and ad, so slates do not depend on chunks.
    """

    def __init__(
        self, world: World, logits: Floats, policy_version: str, stream: Stream = Stream.LOGGING
    ) -> None:
        self.policy_version = policy_version
        self.arm = policy_version
        self.logits = logits
        self._seed, self._stream, self._slots = world.params.seed, stream, world.params.slate_size

    def choose(self, requests: WorldRequests, rng: np.random.Generator) -> tuple[Ints, Floats]:  # noqa: ARG002
        """Slates (B, S) and propensities (B, S)."""
        if not requests.number.size:
            return np.zeros((0, self._slots), np.int32), np.zeros((0, self._slots))
        week = Week.of(int(requests.event_time[0]))
        ads = self.logits.size
        cell: Longs = requests.number[:, None] * ads + np.arange(ads)
        noise = uniforms(key(self._seed, self._stream, week.start // MICROS_PER_DAY), cell)
        slates = _top(self.logits - np.log(-np.log(noise)), self._slots)
        return slates, conditional_propensities(self.logits, slates)

    def observe(self, tables: Tables) -> None:
        """Learns nothing."""


def random_policy(world: World) -> PlackettLuce:
    """Every slate is equally likely."""
    return PlackettLuce(world, np.zeros(world.ads.ids.size), "random")


def logging_policy(world: World) -> PlackettLuce:
    """Past orders per impression, known up to noise: popular ads are shown more often."""
    ads, params = world.ads, world.params
    rng = generator(params.seed, Stream.POPULARITY)
    noise = params.popularity_noise * rng.standard_normal(ads.ids.size)
    popularity = ads.click + ads.conversion + noise
    return PlackettLuce(world, popularity / params.logging_temperature, "logging")


class Oracle:
    """The slate of highest expected revenue minus cost under the true probabilities."""

    policy_version = "oracle"
    arm = "oracle"

    def __init__(self, world: World) -> None:
        self._world = world

    def choose(self, requests: WorldRequests, rng: np.random.Generator) -> tuple[Ints, Floats]:  # noqa: ARG002
        """Slates (B, S), each with probability 1."""
        count, slots = self._world.ads.ids.size, self._world.params.slate_size
        every = np.broadcast_to(np.arange(count, dtype=np.int32), (requests.number.size, count))
        slates = _top(self.score(self._world.respond(requests, every)), slots)
        return slates, np.ones(slates.shape)

    def score(self, response: Response) -> Floats:
        """What is maximised (B, A); another oracle may maximise another good."""
        return response.value

    def observe(self, tables: Tables) -> None:
        """Knows everything already."""


def _top(scores: Floats, slots: int) -> Ints:
    """The `slots` highest of each row (B, A), highest first; a few passes beat a partition."""
    left, rows = scores.copy(), np.arange(scores.shape[0])
    out = np.empty((scores.shape[0], slots), dtype=np.int32)
    for slot in range(slots):
        out[:, slot] = left.argmax(axis=1)
        left[rows, out[:, slot]] = -np.inf
    return out
