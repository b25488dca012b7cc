"""Intervals of the evidence that decides, against small worlds whose truth is the sum over slates.

A trial's log is made as in life: users split by the edge's hash, labels as far as they are known at
the week's end, delays learnt from that same week, a model that is wrong about each ad.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy.stats import binom

from roiflow import columns as c
from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.evaluation.estimators.delta import ArmsOnLog, evidence
from roiflow.evaluation.roi import SLATES, estimate_roi
from roiflow.evaluation.slates import Slates, logged_slates
from roiflow.evaluation.target import LoggedWeek, TargetOnLog, target_on_log
from roiflow.evaluation.terms import logged_terms, target_terms
from roiflow.experiment.assignment import in_canary, salt_of
from roiflow.features.table import Features, Flags, Floats, Ints, Outcomes
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.labels.worth import CATEGORY, Delays
from roiflow.params import load_params
from roiflow.policy.candidate_sets import CandidateSets
from roiflow.ranking.value import CostShares
from roiflow.simulator.policies import PlackettLuce
from roiflow.simulator.population import WorldRequests
from roiflow.simulator.run import nothing, run_week
from roiflow.simulator.synthetic import SyntheticPopulation
from roiflow.simulator.tables import By
from roiflow.simulator.world import World
from tests.conftest import Record
from tests.integration.test_ad_world import KINDS, SMALL, USERS, WEEK, truth_of
from tests.worlds import ROOT, STEADY, world_params

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

PARAMS = load_params(ROOT / "params.yaml")
LATER = 14 * MICROS_PER_DAY
"""After the week, when all of its conversions and returns are known."""
FLOOR = PARAMS.fit_labels.min_maturity
PRIOR = 1.0
"""Conversions that draw a category's delays to those of all: a small world has a week, and not the
window's eight, to learn from."""
WRONG = 0.3
"""Standard deviation of the model's error, of the log."""


class Halves:
    """Two policies, each for the users whom the edge sends to it."""

    learns = False
    policy_version = "both"

    def __init__(self, world: World, stable: PlackettLuce, canary: PlackettLuce) -> None:
        self._both = stable, canary
        self._users = in_canary(world.user_ids.tolist(), salt_of(str(WEEK)), 0.5)

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        """Both policies' slates, and of each request the right one's."""
        (ads, chance), (more, other) = (one.choose(requests, eligible, rng) for one in self._both)
        canary = self._users[requests.user_index][:, None]
        return np.where(canary, more, ads), np.where(canary, other, chance)

    def by(self, requests: WorldRequests) -> By:
        """The arms by name."""
        number = self._users[requests.user_index].astype(np.int32)
        return By(((c.STABLE, "stable"), (c.CANARY, "canary")), number)

    def observe(self, tables: dict[str, pa.Table]) -> None:
        """Learns nothing."""


@dataclass(frozen=True)
class Played:
    """A small world's week of both arms."""

    world: World
    log: pa.Table
    sold: pa.Table
    stable: PlackettLuce
    canary: PlackettLuce


def play(law: int, number: int, worlds: int) -> Played:
    """One of the `worlds` worlds of a law, which share its ads."""
    keys = STEADY | SMALL | KINDS[law % len(KINDS)] | {"users": USERS * worlds}
    part = range(USERS * number, USERS * (number + 1))
    people = SyntheticPopulation(world_params(**(keys | {"seed": law})), part)
    world = World(world_params(**(keys | {"seed": 10_000 + law * worlds + number})), people)
    # Without the noise that each world has of its own: the truth is of all worlds of a law.
    stable, canary = (PlackettLuce(world, str(at), temperature=at) for at in (1.0, 0.4))
    run = run_week(world, WEEK, Halves(world, stable, canary), nothing())
    log, sold = (
        pa.concat_tables([part[name] for part in (run.tables, run.pending)])
        for name in ("impressions", "conversions")
    )
    return Played(world, log, sold, stable, canary)


def features_of(played: Played, until: int) -> Features:
    """The log as features hold it, with what is known of its outcomes `until`."""
    world, log, sold = played.world, played.log, played.sold
    row = pc.index_in(sold[c.IMPRESSION], value_set=log[c.IMPRESSION]).to_numpy()
    known, money = _micros(sold[c.KNOWN_TIME]), sold[c.REVENUE].to_numpy()
    order = np.lexsort((known, row))
    n, early = log.num_rows, known < until
    revenue = np.bincount(row[early], money[early], n)
    ads = world.ads(WEEK)
    request = np.unique(log[c.REQUEST].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    impressions = SimpleNamespace(
        request=request,
        user=1 + world.user_rows(np.array(log[c.USER].to_pylist())).astype(np.int32),
        ad=world.ad_rows(WEEK, np.array(log[c.AD].to_pylist())).astype(np.int32),
        event_time=_micros(log[c.EVENT_TIME]),
        position=log[c.POSITION].to_numpy(),
        slate_size=log[c.SLATE_SIZE].to_numpy(),
        context=np.zeros((n, 4), np.int32),
        bid=log[c.BID].to_numpy(),
        cost=log[c.COST].to_numpy(),
        propensity=log[c.PROPENSITY].to_numpy(),
        clicked=log[c.CLICKED].to_numpy(zero_copy_only=False),
        converted=revenue > 0,
        canary=pc.equal(log[c.ARM], c.CANARY).to_numpy(zero_copy_only=False),
        split=np.full(n, TEST, np.uint8),
    )
    attributes = np.zeros((ads.ids.size, 5), np.int32)
    attributes[:, CATEGORY] = ads.category
    names = SimpleNamespace(
        impressions=impressions,
        outcomes=Outcomes(row[order], known[order], money[order]),
        attributes=attributes,
        known_until=(until,) * 4,
        sizes={"category": len(world.population.categories)},
        rows=lambda _: np.arange(n),
    )
    return cast("Features", names)


def _micros(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.int64()).to_numpy()


def arms_of(played: Played, until: int) -> ArmsOnLog:
    """Both policies on the log, its labels as of `until`."""
    world, features = played.world, features_of(played, until)
    fit = PARAMS.fit_labels
    delays = Delays.learn(
        features,
        until,
        segment=-1,
        prior=PRIOR,
        longest_hours=24 * fit.longest_days,
    )
    place = np.arange(world.slate_size)
    look = world.params.examination
    if look.model == "position_based":
        looks = (place + 1.0) ** -look.exponent
    else:
        rate = world.params.click_rate
        looks = (look.after_skip + (look.after_click - look.after_skip) * rate) ** place
    labels = Labels(Examination(np.asarray(looks, np.float64)), (delays,), FLOOR)
    slates = logged_slates(features, labels, np.arange(played.log.num_rows), world.slate_size)
    week = LoggedWeek.of(features, labels)
    share = np.full(slates.row.size, 0.5)
    champion, challenger = (
        _on_log(played, slates, week, policy) for policy in (played.stable, played.canary)
    )
    return ArmsOnLog(slates, share, slates.canary, champion, challenger)


def _on_log(played: Played, slates: Slates, week: LoggedWeek, policy: PlackettLuce) -> TargetOnLog:
    """As `replay.on_log`, with a model that knows each ad's mean and is wrong about it."""
    world, count = played.world, slates.row.size
    rng = np.random.default_rng(world.params.seed)
    requests = world.requests(WEEK)
    every = np.arange(world.ads(WEEK).ids.size, dtype=np.int32)
    truth = world.respond(requests, np.tile(every, (requests.number.size, 1)))
    off = np.exp(WRONG * rng.normal(size=(2, every.size)))
    click, conversion, revenue, per_click, per_look = (
        np.tile(values.mean(axis=0), (count, 1))
        for values in (
            truth.click * off[0],
            truth.click * truth.conversion * off[1],
            truth.revenue,
            truth.click_cost,
            truth.look_cost,
        )
    )
    bid = np.tile(world.ads(WEEK).bid, (count, 1))
    shares = CostShares(float((per_look / bid).mean()), float((per_click / bid).mean()), 0.0)
    sets = CandidateSets(
        request=slates.row,
        user=slates.user,
        ad=np.tile(every, (count, 1)),
        click=click,
        conversion=conversion,
        revenue=revenue,
        expected_cost=bid * (shares.impression + shares.click * click),
        bid=bid,
        price=bid,
    )
    logits = np.tile(policy.logits(WEEK), (count, 1))
    return target_on_log(slates, sets, logits, shares, week, 1, rng)


Ends = dict[str, tuple[float, float]]
"""Intervals by figure."""


def from_both_arms(arms: ArmsOnLog) -> Ends:
    """What decides, by what it is of."""
    found = evidence(arms, PARAMS.evaluate, 1.0)
    naive = evidence(replace(arms, champion=None), PARAMS.evaluate, 1.0)
    of = {
        "Delta of value": found.delta,
        "value": found.challenger.value,
        "ROI": found.challenger.roi,
        "lift of ROAS": found.roi_lift,
        "Delta of value, champion not replayed": naive.delta,
    }
    return {f"two arms, {name}": (one.low, one.high) for name, one in of.items() if one}


def from_one_arm(arms: ArmsOnLog, cascade: bool) -> Ends:
    """The challenger from the champion's own slates alone."""
    assert arms.champion is not None
    at, how = np.flatnonzero(~arms.canary), PARAMS.evaluate
    slates = arms.slates.take(at)
    terms = target_terms(slates, arms.challenger.take(at), arms.champion.chances.take(at), how)
    name = "cascade_dr" if cascade else "dr"
    found = estimate_roi(
        np.unique(slates.user),
        logged_terms(slates),
        {name: terms[name]},
        slates=slates.row.size,
        resamples=how.resamples,
        confidence=how.confidence,
        limits=how,
        cost_weight=1.0,
        rng=np.random.default_rng(at.size),
    )[name]
    ends = {}
    for what, one, unit in (("value", found.value, SLATES), ("ROI", found.roi, 1.0)):
        assert one.low is not None
        assert one.high is not None
        ends[f"one arm, {what}"] = one.low / unit, one.high / unit
    return ends


@dataclass(frozen=True)
class Judged:
    """What a small world's log says, and what is true of its requests."""

    ends: dict[str, Ends]  # by how far labels are known
    truth: Floats  # (2, 4) of stable and canary: mean of slate_truth
    slates: int
    estimator: str
    cascade: bool


def judge(law: int, number: int, worlds: int) -> Judged:
    """One small world, with labels as of the week's end and as of when all is known."""
    played = play(law, number, worlds)
    cascade = played.world.params.examination.model == "cascade"
    ends: dict[str, Ends] = {}
    for name, until in (("young labels", WEEK.end), ("all known", WEEK.end + LATER)):
        arms = arms_of(played, until)
        ends[name] = from_both_arms(arms) | from_one_arm(arms, cascade)
    policies = played.stable, played.canary
    return Judged(
        ends,
        np.array([truth_of(played.world, one.logits(WEEK)) for one in policies]),
        arms.slates.row.size,
        evidence(arms, PARAMS.evaluate, 1.0).estimator,
        cascade,
    )


def true_figures(law: list[Judged]) -> dict[str, float]:
    """With all the users of a law, of which a small world's are a few."""
    stable, canary = np.average(
        [one.truth for one in law], axis=0, weights=[one.slates for one in law]
    )
    (old, old_cost), (new, new_cost) = stable[2:], canary[2:]
    delta = new - new_cost - old + old_cost
    return {
        "two arms, Delta of value": delta,
        "two arms, Delta of value, champion not replayed": delta,
        "two arms, value": new - new_cost,
        "two arms, ROI": new / new_cost - 1,
        "two arms, lift of ROAS": new / new_cost / (old / old_cost) - 1,
        "one arm, value": new - new_cost,
        "one arm, ROI": new / new_cost - 1,
    }


def coverage(judged: list[list[Judged]]) -> dict[str, float]:
    """Share of the worlds whose interval holds the truth, by figure and labels."""
    held: dict[str, list[bool]] = {}
    for law in judged:
        truth = true_figures(law)
        for one in law:
            for known, ends in one.ends.items():
                for name, (low, high) in ends.items():
                    held.setdefault(f"{name}, {known}", []).append(low < truth[name] < high)
    return {name: float(np.mean(each)) for name, each in held.items()}


def test_intervals_of_the_evidence_cover_the_truth(full: bool, record: Record) -> None:
    """Over small worlds of every auction and click model: 93 to 97 in 100; in small what chance
    allows a nominal interval once in 1,000."""
    laws, worlds = (40, 25) if full else (8, 4)
    judged = [[judge(law, number, worlds) for number in range(worlds)] for law in range(laws)]
    check(judged, full, record)


def check(judged: list[list[Judged]], full: bool, record: Record) -> None:
    """Record and assert."""
    every = [one for law in judged for one in law]
    shares, count = coverage(judged), len(every)
    for name, share in shares.items():
        record(f"{count} small worlds, 95 % intervals that hold the truth: {name}", f"{share:.1%}")
    right = np.mean([(one.estimator == "cascade_dr") == one.cascade for one in every])
    record(f"{count} small worlds, click model told right", f"{right:.1%}")
    assert not any(one.estimator == "cascade_dr" and not one.cascade for one in every)
    chance = float(binom.ppf(1e-3, count, 0.95)) / count
    for name, share in shares.items():
        # Value and ROI of a policy by itself were at 92.5 and 91.9 % with young labels: the delays'
        # own error, which a difference of policies shares, is in no interval.
        least, most = 0.93, 0.97
        assert (least <= share <= most) if full else share >= min(least, chance), (name, share)
