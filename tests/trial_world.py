"""A world of trials whose truth is known: slates drawn from two policies, in numpy alone.

Requests are of contexts, each with its own click rates; a user multiplies them by a number of his
own, so that his requests hang together. What a policy earns is a sum over contexts of marginals
times what positions bring: exact, so that a challenger can be made that is worth so much more.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from roiflow.artefacts.evaluation import TrialEstimate
from roiflow.artefacts.trial import Look, Phase, Trial
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.evaluation.estimators.delta import ArmsOnLog, evidence
from roiflow.evaluation.looks import look_of, verdict
from roiflow.evaluation.slates import Slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, position_marginals, target_on_log
from roiflow.experiment.assignment import in_canary
from roiflow.features.table import Floats, Longs
from roiflow.labels.examination import Examination
from roiflow.params import CanaryParams, EvaluateParams
from roiflow.policy import plackett_luce
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.ranking.value import CostShares
from tests.trials import TRIAL, WEEK

CONTEXTS, ADS, SLOTS = 400, 8, 3
LOOKS = np.array([1.0, 0.62, 0.46])
CONVERSION = 0.5
SHARES = CostShares(0.0, 1.0, 0.0)
Share = tuple[float, float]
"""Of the canary: in the first day, and to the week's end."""

USERS = [f"user-{number}" for number in range(2000)]


@dataclass(frozen=True)
class TrialWorld:
    """Contexts with ads, and a champion that knows some of it."""

    click: Floats  # (CONTEXTS, ADS) P(click | looked at)
    price: Floats  # (ADS,) micros, mean revenue of a conversion
    bid: Floats  # (ADS,) micros a click
    guess: Floats  # (CONTEXTS, ADS) what the models say of `click`
    champion: Floats  # (CONTEXTS, ADS) logits
    noise: Floats  # (CONTEXTS, ADS) what a newly fitted model thinks otherwise

    @classmethod
    def of(cls, seed: int) -> "TrialWorld":
        """Another seed, another world."""
        rng = np.random.default_rng([seed, 1])
        click = 0.25 * np.exp(0.6 * rng.normal(size=(CONTEXTS, ADS)) - 0.18)
        price = 4e6 * np.exp(0.3 * rng.normal(size=ADS))
        bid = 0.4 * CONVERSION * price * np.exp(0.2 * rng.normal(size=ADS))
        guess = click * np.exp(0.3 * rng.normal(size=click.shape))
        worth = guess * (CONVERSION * price - bid)
        logits = 2.0 * (worth - worth.mean()) / worth.std()
        return cls(click, price, bid, guess, logits, 0.7 * rng.normal(size=click.shape))

    @cached_property
    def worth(self) -> Floats:
        """(CONTEXTS, ADS) micros at a position that is looked at."""
        found: Floats = self.click * (CONVERSION * self.price - self.bid)
        return found

    def value(self, logits: Floats) -> float:
        """Micros a request of a policy (CONTEXTS, ADS): exact."""
        shares = position_marginals(logits, SLOTS, 0, np.random.default_rng(0))
        return float(np.einsum("csa,s,ca->", shares, LOOKS, self.worth) / CONTEXTS)

    def challenger(self, lift: float) -> Floats:
        """Logits of a newly fitted policy whose true value is (1 + lift) x the champion's."""
        wanted, better = (1.0 + lift) * self.value(self.champion), self.worth / self.worth.std()

        def logits(step: float) -> Floats:
            return self.champion + self.noise + step * (better - better.mean())

        step = brentq(lambda at: self.value(logits(at)) - wanted, -4.0, 8.0, xtol=1e-10)
        return logits(step)


@dataclass(frozen=True)
class Week:
    """Slates of a week on trial, as served by the phases that it began with."""

    time: Longs  # (B,)
    users: list[str]  # (B,)
    arms: ArmsOnLog


def served(
    world: TrialWorld, challenger: Floats, rng: np.random.Generator, requests: int, share: Share
) -> Week:
    """A week of so many requests on average; the canary's `share` is first small, then large."""
    lively = rng.gamma(1.5, 1.0 / 1.5, len(USERS))
    user = rng.choice(len(USERS), rng.poisson(requests), p=lively / lively.sum())
    time = WEEK.start + np.sort(rng.integers(0, 168 * MICROS_PER_HOUR, user.size))
    taste = rng.gamma(4.0, 0.25, len(USERS))[user]
    context = rng.integers(0, CONTEXTS, user.size)
    shares = Trial(str(WEEK), "c", "a", "", phases(share), ()).share_at(time)
    users = [USERS[one] for one in user.tolist()]
    # Another salt each week, as the edge has it.
    canary = in_canary(users, f"{rng.integers(2**40)}:", shares)
    policies = world.champion[context], challenger[context]
    logits = np.where(canary[:, None], policies[1], policies[0])
    slates = _filled(world, logits, context, taste, rng)
    slates = replace(slates, user=(user + 1).astype(np.int32), canary=canary)
    old, new = (_target(world, slates, one, context) for one in policies)
    return Week(time, users, ArmsOnLog(slates, shares, canary, old, new))


def phases(share: Share) -> tuple[Phase, ...]:
    """A day of the small share, then the large one."""
    later = WEEK.start + 24 * MICROS_PER_HOUR
    return Phase(WEEK.start, share[0], "start"), Phase(later, share[1], "ramp")


def _filled(
    world: TrialWorld, logits: Floats, context: Longs, taste: Floats, rng: np.random.Generator
) -> Slates:
    ad = plackett_luce.best(logits + rng.gumbel(size=logits.shape), SLOTS).astype(np.int32)
    shape = ad.shape
    chance = np.minimum(taste[:, None] * world.click[context[:, None], ad], 1.0) * LOOKS
    clicked = rng.random(shape) < chance
    sold = clicked & (rng.random(shape) < CONVERSION)
    amount = world.price[ad] * np.exp(0.4 * rng.normal(size=shape) - 0.08)
    return Slates(
        row=np.arange(context.size),
        user=np.ones(context.size, np.int32),
        ad=ad,
        position=np.broadcast_to(np.arange(1, SLOTS + 1, dtype=np.int32), shape),
        present=np.ones(shape, bool),
        clicked=clicked,
        revenue=np.where(sold, amount, 0.0),
        cost=np.where(clicked, world.bid[ad], 0.0),
        propensity=plackett_luce.conditional_propensities(logits, ad.astype(np.int64)),
        expected=np.where(clicked, CONVERSION, 0.0),
        known=np.ones(shape),
        canary=np.zeros(context.size, bool),
    )


def _target(world: TrialWorld, slates: Slates, logits: Floats, context: Longs) -> TargetOnLog:
    shape = (context.size, ADS)
    click = world.guess[context]
    sets = CandidateSets(
        request=slates.row,
        user=slates.user,
        ad=np.broadcast_to(np.arange(ADS, dtype=np.int32), shape),
        click=click,
        conversion=CONVERSION * click,
        revenue=np.broadcast_to(world.price, shape),
        expected_cost=click * world.bid,
        bid=np.broadcast_to(world.bid.astype(np.int64), shape),
        price=np.broadcast_to(world.price.astype(np.int64), shape),
    )
    week = LoggedWeek.served(Examination(LOOKS), np.zeros(ADS, np.int32))
    return target_on_log(slates, sets, logits, SHARES, week, 0, np.random.default_rng(0))


def trial_of(
    week: Week, share: Share, params: CanaryParams, limits: EvaluateParams
) -> tuple[Trial, TrialEstimate]:
    """Looks as they come, and the evidence of all slates until the week or a look ended it."""
    planned, looks = phases(share), list[Look]()

    def until(end: int) -> TrialEstimate:
        return evidence(week.arms.take(week.time < end), limits, 1.0)

    for hour in range(params.start_hours, params.last_look_hours + 1, params.look_hours):
        now = WEEK.start + hour * MICROS_PER_HOUR
        found = until(now)
        looks.append(look_of(found, now, looks, params))
        phase = verdict(looks[-1], found, params)
        if phase:
            kept = tuple(one for one in planned if one.since < now)
            return replace(TRIAL, phases=(*kept, phase), looks=tuple(looks)), found
    return replace(TRIAL, phases=planned, looks=tuple(looks)), until(WEEK.end)
