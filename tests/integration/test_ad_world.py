"""What the ad world's logs say of the world, against what was planted in it."""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom

from roiflow import columns as c
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.evaluation.estimators.ips import ips_terms
from roiflow.evaluation.estimators.rips import slate_weights
from roiflow.evaluation.roi import estimate_roi
from roiflow.evaluation.statistics import cluster_sums, percentile_interval, resampled_totals
from roiflow.evaluation.terms import Terms
from roiflow.params import SimulatorParams, load_params
from roiflow.simulator.noise import Floats, Longs
from roiflow.simulator.policies import (
    Greedy,
    Oracle,
    PlackettLuce,
    conditional_propensities,
    logging_policy,
    random_policy,
)
from roiflow.simulator.population import Flags, Ints
from roiflow.simulator.run import SlateChooser, nothing, run_week
from roiflow.simulator.synthetic import SyntheticPopulation
from roiflow.simulator.truth import expected_value_of, slate_truth
from roiflow.simulator.world import World
from roiflow.simulator.write import write_weeks
from tests.conftest import Record
from tests.worlds import ROOT, SHIPPED, STEADY, world_params

Texts = NDArray[np.str_]

pytestmark = [pytest.mark.proof, pytest.mark.timeout(3600)]

WEEK = Week.parse("2026-W02")
LIMITS = load_params(ROOT / "params.yaml").evaluate
SMALL: dict[str, object] = {
    "ads": 5,
    "categories": 2,
    "slate_size": 3,
    "requests_per_user_day": 0.3,
    "behaviours_per_user_day": 0.3,
    "click_rate": 0.25,
    "conversion_rate": 0.5,
    "return_rate": 0.05,
}
KINDS: list[dict[str, object]] = [
    {"model": model, "pricing": pricing, "charge": charge}
    for model in ("position_based", "cascade")
    for pricing in ("first", "second")
    for charge in ("click", "impression")
]
ESTIMANDS = ("clicks", "revenue", "cost", "value", "ROI")
USERS = 1000  # of a small world


@dataclass(frozen=True)
class Judged:
    """A small world: what IPS says of the target policy, and what is true of its requests."""

    intervals: Floats  # (5, 2) of ESTIMANDS; money in micros a slate
    weight: float  # mean
    error: float  # its standard error
    truth: Floats  # (4,) mean of slate_truth
    slates: int


def judge(law: int, number: int, worlds: int) -> Judged:
    """IPS of a sharper policy from a week of the logging policy, by roiflow's own estimators.

    The `worlds` worlds of one law share its ads; users and all draws are each world's own.
    """
    keys = STEADY | SMALL | KINDS[law % len(KINDS)] | {"users": USERS * worlds}
    part = range(USERS * number, USERS * (number + 1))
    people = SyntheticPopulation(world_params(**(keys | {"seed": law})), part)
    seed = 10_000 + law * worlds + number
    world = World(world_params(**(keys | {"seed": seed})), people)
    logits = PlackettLuce(world, "target", temperature=0.7).logits(WEEK)
    run = run_week(world, WEEK, logging_policy(world), nothing())
    log, sold = (
        pa.concat_tables([part[name] for part in (run.tables, run.pending)])
        for name in ("impressions", "conversions")
    )
    row = pc.index_in(sold[c.IMPRESSION], value_set=log[c.IMPRESSION]).to_numpy()
    earned = np.bincount(row, sold[c.REVENUE].to_numpy(), log.num_rows)
    shape = (-1, world.slate_size)
    slates = world.ad_rows(WEEK, np.array(log[c.AD].to_pylist())).reshape(shape)
    user = world.user_rows(np.array(log[c.USER].to_pylist())).reshape(shape)[:, 0]
    propensity = log[c.PROPENSITY].to_numpy().reshape(shape)
    weight = slate_weights(conditional_propensities(logits, slates), propensity)
    clicks, revenue, cost = (
        ips_terms(reward.astype(np.float64).reshape(shape), weight)
        for reward in (log[c.CLICKED].to_numpy(), earned, log[c.COST].to_numpy())
    )
    last = weight[:, -1]
    return Judged(
        intervals(user, clicks, revenue, cost, np.random.default_rng(seed)),
        float(last.mean()),
        float(last.std(ddof=1) / np.sqrt(last.size)),
        truth_of(world, logits),
        user.size,
    )


def intervals(
    user: Ints, clicks: Floats, revenue: Floats, cost: Floats, rng: np.random.Generator
) -> Floats:
    """(5, 2) of ESTIMANDS, from terms (n,): bootstrap over users."""
    resamples, confidence = LIMITS.resamples, LIMITS.confidence
    columns = np.column_stack([clicks, revenue, cost, revenue - cost, np.ones(user.size)])
    totals = resampled_totals(cluster_sums(user, columns), resamples, rng)
    found = [percentile_interval(draws, confidence) for draws in (totals[:, :4] / totals[:, 4:]).T]
    terms = Terms(np.column_stack([revenue, cost]), False, False, None, None)
    roi = estimate_roi(
        user, terms, {"ips": terms},
        resamples=resamples, confidence=confidence, limits=LIMITS, rng=rng, cost_weight=1.0,
    )["ips"].roi  # fmt: skip
    assert roi.low is not None
    assert roi.high is not None
    return np.array([*found, (roi.low, roi.high)])


def truth_of(world: World, logits: Floats) -> Floats:
    """Exact mean (4,) of slate_truth of a Plackett-Luce policy: the sum over all slates."""
    requests, count = world.requests(WEEK), world.requests(WEEK).number.size
    every = np.array(list(permutations(range(logits.size), world.slate_size)), np.int32)
    chance = conditional_propensities(logits, every).prod(axis=1)
    again = requests.take(np.repeat(np.arange(count), len(every)))
    outcome = slate_truth(world, again, np.tile(every, (count, 1)))
    return chance @ outcome.reshape(count, len(every), 4).mean(axis=0)


def test_intervals_of_ips_cover_the_truth(full: bool, record: Record) -> None:
    """Over small worlds of every auction and examination: 93 to 97 in 100, in small what chance
    allows a nominal interval once in 1,000.

    Users are drawn anew in a resample, so the truth is what the policy is worth with all the users
    of a law, of which a small world's are a few.
    """
    laws, worlds = (40, 25) if full else (8, 5)
    judged = [[judge(law, number, worlds) for number in range(worlds)] for law in range(laws)]
    holds = []
    for law in judged:
        clicks, _, revenue, cost = np.average(
            [one.truth for one in law], axis=0, weights=[one.slates for one in law]
        )
        truth = np.array([clicks, revenue, cost, revenue - cost, revenue / cost - 1])
        holds += [(one.intervals[:, 0] < truth) & (truth < one.intervals[:, 1]) for one in law]
    weight, error = (
        np.array([getattr(one, name) for law in judged for one in law])
        for name in ("weight", "error")
    )
    count, shares = laws * worlds, np.mean(holds, axis=0)
    off = (weight.mean() - 1) / (np.sqrt(np.sum(error**2)) / count)
    inside = float(np.mean(np.abs(weight - 1) < 1.96 * error))
    for name, share in zip(ESTIMANDS, shares, strict=True):
        what = f"{count} small worlds, 95 % intervals of IPS that hold the true {name}"
        record(what, f"{share:.1%}")
    record(
        f"{count} small worlds, mean weight of a slate",
        f"{weight.mean():.5f}, {off:+.2f} standard errors from 1; {inside:.1%} of the worlds' own "
        "95 % intervals hold 1",
    )
    least, most = (0.93, 0.97) if full else (binom.ppf(1e-3, count, 0.95) / count, 1.0)
    assert np.all((least <= shares) & (shares <= most)), shares
    assert least <= inside <= most
    assert abs(off) < 3


RANDOM: dict[str, object] = {
    "logging_temperature": 1e12,  # every slate alike
    "ads": 20,
    "categories": 4,
    "requests_per_user_day": 6.0,
    "behaviours_per_user_day": 0.2,
    "click_rate": 0.2,
    "conversion_rate": 0.3,
    "return_rate": 0.05,
    "delay_hours": [2.0, 20.0],
}
FIRST = Week.parse("2026-W01")


@dataclass(frozen=True)
class Log:
    """What is read of one week's written log: n slates of S, and the m conversions of them."""

    category: Texts  # (n, S)
    clicked: Flags  # (n, S)
    looked: Flags  # (n, S) something was paid, which tells of a look where looks are charged
    cell: Longs  # (m,) of (n, S), row by row
    hours: Floats  # (m,) from impression to conversion

    def conversions(self, category: str) -> Floats:
        """Hours to the conversions of a category."""
        return self.hours[self.category.ravel()[self.cell] == category]


def logged(params: SimulatorParams, folder: Path) -> Log:
    """Two weeks are written, so that all conversions of the first one's impressions are there."""
    write_weeks(params, folder, [FIRST, FIRST.plus(1)], threads=2)
    ads = pq.read_table(folder / "ads" / f"week={FIRST}", partitioning=None)
    category = np.array(ads[c.CATEGORY].to_pylist())
    parts = []
    for part in sorted((folder / "impressions" / f"week={FIRST}").iterdir()):
        shown = pq.read_table(part, columns=[c.IMPRESSION, c.EVENT_TIME, c.AD, c.CLICKED, c.COST])
        sold = pa.concat_tables(
            pq.read_table(folder / "conversions" / f"week={week}" / part.name, partitioning=None)
            for week in (FIRST, FIRST.plus(1))
        )
        sold = sold.filter(pc.greater(sold[c.REVENUE], 0))
        cell = pc.index_in(sold[c.IMPRESSION], value_set=shown[c.IMPRESSION])
        sold, cell = sold.filter(cell.is_valid()), cell.drop_null().to_numpy()
        start, end = (rows[c.EVENT_TIME].cast(pa.int64()).to_numpy() for rows in (shown, sold))
        parts.append(
            Log(
                category[pc.index_in(shown[c.AD], value_set=ads[c.AD]).to_numpy()].reshape(-1, 3),
                shown[c.CLICKED].to_numpy().reshape(-1, 3),
                (shown[c.COST].to_numpy() > 0).reshape(-1, 3),
                cell,
                (end - start[cell]) / MICROS_PER_HOUR,
            )
        )
    before = np.cumsum([0, *(part.clicked.size for part in parts)])
    cells = [part.cell + at for part, at in zip(parts, before, strict=False)]
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("category", "clicked", "looked", "hours")
    }
    return Log(cell=np.concatenate(cells), **whole)


def mean_delay(hours: Floats, window: float) -> float:
    """Maximum likelihood of an exponential's mean from draws that are cut at a window.

    Solves m - w / (exp(w / m) - 1) = mean, the mean of what is left under w.
    """
    mean = hours.mean()
    return float(brentq(lambda m: m - window / np.expm1(window / m) - mean, mean / 2, 10 * window))


def test_position_delay_and_conversion_come_back_from_a_written_log(
    tmp_path: Path, full: bool, record: Record
) -> None:
    """From the random policy's log alone: clicks by position over the first position's, delays
    and conversions by category. Rates vary by user and ad; what is planted of a category is the
    expectation over all requests and all of its ads."""
    params = world_params(**(STEADY | RANDOM | {"users": 60_000 if full else 8_000}))
    log, far = logged(params, tmp_path), 0.02 if full else 0.04
    world = World(params)
    clicks = log.clicked.sum(axis=0)
    near = {f"P(look), position {at}": (clicks[at - 1] / clicks[0], at**-0.7) for at in (2, 3)}
    ads = world.ads(FIRST)
    click, conversion = np.zeros((2, ads.ids.size))
    requests = world.requests(FIRST)
    for at in range(0, requests.number.size, 100_000):
        some = requests.take(slice(at, at + 100_000))
        rows = np.arange(ads.ids.size, dtype=np.int32)
        truth = world.respond(some, np.tile(rows, (some.number.size, 1)))
        click += truth.click.sum(axis=0)
        conversion += (truth.click * truth.conversion).sum(axis=0)
    for number, category in enumerate(world.population.categories):
        mine = ads.category == number
        hours, about = log.conversions(category), log.category == category
        planted = conversion[mine].sum() / click[mine].sum()
        near[f"P(conversion | click), {category}"] = hours.size / log.clicked[about].sum(), planted
        window = 24.0 * params.attribution_days
        near[f"mean delay in hours, {category}"] = mean_delay(hours, window), ads.delay[mine][0]
        rate = log.clicked[:, 0][about[:, 0]].mean()
        near[f"P(click | look), {category}"] = rate, click[mine].mean() / requests.number.size
    for what, (found, planted) in near.items():
        off = found / planted - 1
        record(f"{log.clicked.size:,} impressions, {what}: planted {planted:.4f}", f"{off:+.2%}")
    assert all(abs(found / planted - 1) < far for found, planted in near.values()), near


def test_the_cascade_comes_back_from_a_written_log(
    tmp_path: Path, full: bool, record: Record
) -> None:
    """Charged by impression the log tells who looked, and so who went on after a click or none."""
    cascade = {"model": "cascade", "after_click": 0.4, "after_skip": 0.8, "charge": "impression"}
    params = world_params(**(STEADY | RANDOM | cascade | {"users": 20_000 if full else 4_000}))
    log, far = logged(params, tmp_path), 0.02 if full else 0.04
    above, below = log.looked[:, :-1], log.looked[:, 1:]
    assert log.looked[:, 0].all()
    assert not below[~above].any()
    for what, after, planted in (
        ("a click", log.clicked[:, :-1], 0.4),
        ("a skip", above & ~log.clicked[:, :-1], 0.8),
    ):
        off = below[after].mean() / planted - 1
        named = f"{log.clicked.size:,} impressions, P(going on after {what}): planted {planted}"
        record(named, f"{off:+.2%}")
        assert abs(off) < far


@pytest.mark.parametrize("budgets", [False, True], ids=["without-budgets", "with-budgets"])
def test_the_order_of_the_policies_in_the_shipped_world(
    full: bool, record: Record, budgets: bool
) -> None:
    """In many worlds, with budgets and without: nobody earns more than the oracle; most clicks is
    neither most value nor most ROI. Who only prefers ads that are clicked and convert, whatever
    they cost, does better than chance in the shipped world and on average, not in each."""
    shipped = f"shipped world, {'with' if budgets else 'without'} budgets, {WEEK}"
    values = []
    for seed in range(7, 27 if full else 9):
        world = World(world_params(seed=seed, budgets=budgets))
        policies: dict[str, SlateChooser] = {
            "random": random_policy(world),
            "logging": logging_policy(world),
            "cold": PlackettLuce(world, "cold", temperature=0.3),
            "clicks": Greedy(world),
            "oracle": Oracle(world),
        }
        found = {name: expected_value_of(world, WEEK, one)[0] for name, one in policies.items()}
        value, roi = ({name: one[key] for name, one in found.items()} for key in ("value", "roi"))
        values.append(list(value.values()))
        if seed == SHIPPED.seed:
            for name, one in found.items():
                text = f"{one['clicks']:,.0f} clicks, value {value[name]:,.0f}, ROI {roi[name]:.2f}"
                record(f"{shipped}, {name}", text)
            assert sorted(roi, key=roi.__getitem__)[0] == "random"
            assert sorted(value, key=value.__getitem__) == list(policies)
        assert max(value, key=value.__getitem__) == max(roi, key=roi.__getitem__) == "oracle"
        assert value["clicks"] < 0.9 * value["oracle"]
        assert roi["clicks"] < roi["oracle"] - 0.1
        assert max(found, key=lambda name: found[name]["clicks"]) == "clicks"
    mean = np.mean(values, axis=0)
    text = ", ".join(f"{name} {one:,.0f}" for name, one in zip(policies, mean, strict=True))
    record(f"{shipped}, mean value of {len(values)} seeds", text)
    assert np.all(np.diff(mean) > 0)
