"""Who fills slates in the ad world: chance, the logging policy, greedy ones, the oracle."""

import numpy as np

from roiflow.compiled import compiled
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import ContractError
from roiflow.simulator.noise import (
    Floats,
    Longs,
    Stream,
    bits_of,
    key,
    normals,
    uniform,
)
from roiflow.simulator.population import Flags, Ints, WorldRequests
from roiflow.simulator.response import Response, goes_on
from roiflow.simulator.tables import By
from roiflow.simulator.world import World

ATTEMPTS = 64
"""Draws of one slot before the weights of the ads above it are taken out by a scan."""
CANCELLED = 1e-6
"""Where so small a share of the weight is left, a difference of sums no longer tells it."""
CHUNK_CELLS = 1 << 21


def conditional_propensities(logits: Floats, slates: Ints, eligible: Flags | None = None) -> Floats:
    """Plackett-Luce probability of each ad (B, S) given the ads above it; logits (A,) or (B, A).

    Ads that are not eligible (A,) have weight 0.
    """
    # Less the largest, so that no weight overflows; it cancels out.
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    if eligible is not None:
        weight = weight * eligible
    rows = np.arange(slates.shape[0])
    chosen = weight[slates] if logits.ndim == 1 else weight[rows[:, None], slates]
    above = np.cumsum(chosen, axis=1) - chosen
    # What is left for the last ads is a difference, and rounding may leave it below the weight.
    return np.minimum(chosen / (weight.sum(axis=-1)[..., None] - above), 1.0)


class PlackettLuce:
    """Slates drawn without replacement from logits that are the same for every request.

    The noise is addressed by week, request and slot, so slates do not depend on chunks.
    """

    learns = False

    def __init__(
        self, world: World, policy_version: str, noise: float = 0.0, temperature: float = np.inf
    ) -> None:
        """Logits are what an ad's own click and conversion odds are, with noise, tempered."""
        self.policy_version = policy_version
        self._world, self._noise, self._temperature = world, noise, temperature
        self._logits: dict[Week, Floats] = {}

    def logits(self, week: Week) -> Floats:
        """(A,)."""
        if week not in self._logits:
            ads = self._world.ads(week)
            # Addressed by the ad's row, which it keeps: what the policy believes of an ad stays all
            # weeks.
            family = key(self._world.params.seed, Stream.POPULARITY)
            noise = self._noise * normals(family, np.arange(ads.ids.size))
            self._logits[week] = (ads.click + ads.conversion + noise) / self._temperature
        return self._logits[week]

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Slates (B, S) and propensities (B, S).

        Raises ContractError where fewer ads than slots have any weight.
        """
        del rng
        slots = self._world.slate_size
        if not requests.number.size:
            return np.zeros((0, slots), np.int32), np.zeros((0, slots))
        week = Week.of(int(requests.event_time[0]))
        logits = self.logits(week)
        # Less the largest of those that are eligible, or the weights of all of them may be 0.
        top = logits[eligible].max(initial=-np.inf)
        weight = np.where(eligible, np.exp(np.minimum(logits - top, 0.0)), 0.0)
        if np.count_nonzero(weight) < slots:
            raise ContractError(
                f"{self.policy_version}, week {week}: {np.count_nonzero(weight)} of {weight.size} "
                f"ads can be shown, fewer than {slots} slots"
            )
        family = key(self._world.params.seed, Stream.LOGGING, week.start // MICROS_PER_DAY)
        return _draw(family, requests.number, weight, np.cumsum(weight), slots)

    def by(self, requests: WorldRequests) -> By:
        """Itself."""
        return By.one(self.policy_version, self.policy_version, requests.number.size)

    def observe(self, tables: Tables) -> None:
        """Learns nothing."""


def random_policy(world: World) -> PlackettLuce:
    """Every slate is equally likely."""
    return PlackettLuce(world, "random")


def logging_policy(world: World) -> PlackettLuce:
    """Past orders per impression, known up to noise: popular ads are shown more often."""
    params = world.params
    return PlackettLuce(world, "logging", params.popularity_noise, params.logging_temperature)


class Greedy:
    """The ads of highest true `score` of a look, highest first: by default clicks, at any price."""

    learns = False

    def __init__(self, world: World, policy_version: str = "clicks") -> None:
        self.policy_version = policy_version
        self._world = world

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Slates (B, S), each with probability 1."""
        del rng
        rows = np.flatnonzero(eligible).astype(np.int32)
        count = requests.number.size
        # Every ad is scored for every request, so memory is bounded by pairs and not by requests.
        step = max(1, CHUNK_CELLS // max(1, rows.size))
        parts = [np.zeros((0, self._world.slate_size), np.int32)]
        for at in range(0, count, step):
            some = requests.take(slice(at, min(at + step, count)))
            every = np.broadcast_to(rows, (some.number.size, rows.size))
            parts.append(rows[self.best(self._world.respond(some, every))])
        slates = np.concatenate(parts)
        return slates, np.ones(slates.shape)

    def best(self, response: Response) -> Longs:
        """Columns (B, S) of the slate."""
        return top(response.click, self._world.slate_size)

    def by(self, requests: WorldRequests) -> By:
        """Itself."""
        return By.one(self.policy_version, self.policy_version, requests.number.size)

    def observe(self, tables: Tables) -> None:
        """Knows everything already."""


class Oracle(Greedy):
    """The slate of highest expected revenue minus cost under the true probabilities, exactly.

    Where a look does not depend on the other ads, the best ads come best first. In a cascade an
    exchange of neighbours shows that the best slate is sorted by value / (1 - P(going on)), and the
    set follows by dynamic programming over that order (Kempe and Mahdian, 2008).
    """

    def __init__(self, world: World) -> None:
        super().__init__(world, "oracle")

    def best(self, response: Response) -> Longs:
        """Columns (B, S) of the slate."""
        slots, params = self._world.slate_size, self._world.params.examination
        if params.model == "position_based":
            return top(response.value, slots)
        return _best_cascade(response.value, goes_on(params, response.click), slots)


def _best_cascade(value: Floats, on: Floats, slots: int) -> Longs:
    """Best slates (B, S) of ads with values of a look (B, A) and P(going on) (B, A)."""
    count, ads = value.shape
    order = np.argsort(-value / np.maximum(1 - on, 1e-12), axis=1, kind="stable")
    value, on = np.take_along_axis(value, order, 1), np.take_along_axis(on, order, 1)
    on = np.maximum(on, np.finfo(np.float64).tiny)  # 0 would make a slate out of too few ads
    # best[b, k] is the value of the best k ads among those from `ad` on, once somebody looks at the
    # first of them. From the last ad back, since what follows an ad is worth P(going on) of itself.
    best = np.full((count, slots + 1), -np.inf)
    best[:, 0] = 0.0
    taken = np.zeros((ads, count, slots + 1), np.bool_)
    for ad in range(ads - 1, -1, -1):
        with_it = value[:, ad, None] + on[:, ad, None] * best[:, :-1]
        taken[ad, :, 1:] = with_it >= best[:, 1:]
        best[:, 1:] = np.maximum(best[:, 1:], with_it)
    # Then forward along the choices that were best. Exactly `slots` are taken, even ads of negative
    # value: a slate is full.
    left, rows = np.full(count, slots), np.arange(count)
    out = np.empty((count, slots), np.int64)
    for ad in range(ads):
        took = np.flatnonzero(taken[ad, rows, left] & (left > 0))
        out[took, slots - left[took]] = order[took, ad]
        left[took] -= 1
    return out


def top(scores: Floats, slots: int) -> Longs:
    """Columns (B, S) of the highest scores of each row (B, A), highest first."""
    # A maximum for each slot, as slots are few and ads many; of equal scores the first ad is taken.
    left, rows = scores.copy(), np.arange(scores.shape[0])
    out = np.empty((scores.shape[0], slots), dtype=np.int64)
    for slot in range(slots):
        out[:, slot] = left.argmax(axis=1)
        left[rows, out[:, slot]] = -np.inf
    return out


@compiled(nogil=True)
def _draw(
    family: np.uint64, numbers: Longs, weight: Floats, cumulated: Floats, slots: int
) -> tuple[Ints, Floats]:
    """Draw again what is in the slate already: the same as leaving it out."""
    slates = np.empty((numbers.size, slots), np.int32)
    propensity = np.empty((numbers.size, slots))
    total = cumulated[-1]
    for row in range(numbers.size):
        above = 0.0
        for slot in range(slots):
            # What weight is left is a difference, until so little is left that it would cancel.
            left = total - above
            if left < CANCELLED * total:
                left = _left(weight, slates[row, :slot])
            attempt, ad = 0, -1
            while ad < 0:
                number = (numbers[row] * slots + slot) * (ATTEMPTS + 1) + attempt
                share = uniform(bits_of(family, number))
                # An ad that is in the slate already is drawn again (Plackett-Luce by rejection);
                # after many tries, where few ads have nearly all weight, the rest is scanned.
                if attempt < ATTEMPTS:
                    ad = _at_height(cumulated, share * total)
                else:
                    ad = _scan(weight, slates[row, :slot], share * left)
                attempt += 1
                for earlier in range(slot):
                    if slates[row, earlier] == ad:
                        ad = -1
                        break
                if ad >= 0 and weight[ad] == 0.0:
                    ad = -1
            slates[row, slot] = ad
            propensity[row, slot] = min(1.0, weight[ad] / left)
            above += weight[ad]
    return slates, propensity


@compiled(nogil=True)
def _at_height(cumulated: Floats, height: float) -> int:
    """The first ad whose cumulated weight is above a height, or the last one."""
    low, high = 0, cumulated.size - 1
    while low < high:
        middle = (low + high) // 2
        if cumulated[middle] > height:
            high = middle
        else:
            low = middle + 1
    return low


@compiled(nogil=True)
def _left(weight: Floats, out: Ints) -> float:
    """The weights without those of the ads `out`, summed afresh."""
    left = 0.0
    for ad in range(weight.size):
        free = True
        for one in out:
            free = free and one != ad
        if free:
            left += weight[ad]
    return left


@compiled(nogil=True)
def _scan(weight: Floats, out: Ints, height: float) -> int:
    """The ad at a height of the cumulated weights without the ads `out`."""
    last = -1
    for ad in range(weight.size):
        free = weight[ad] > 0.0
        for one in out:
            free = free and one != ad
        if free:
            last = ad
            height -= weight[ad]
            if height <= 0.0:
                return ad
    return last
