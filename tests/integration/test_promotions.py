"""What promotions by evidence come to: weeks and years of challengers whose true value is known.

Weeks are of `tests.trial_world`: slates, looks, evidence and the decision are the platform's own,
the world answers in numpy. Years draw their weeks' estimates from the normal law, with the standard
error of the shipped world: that the estimator has that law is what the weeks show.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from roiflow.artefacts.evaluation import Interval
from roiflow.artefacts.trial import Spent
from roiflow.data.weeks import Week as IsoWeek
from roiflow.data.weeks import span
from roiflow.evaluation.trial import judge
from roiflow.experiment.boundaries import tail
from roiflow.experiment.budget import budget_of
from roiflow.params import CanaryParams, load_params
from tests.conftest import Record
from tests.trial_world import TrialWorld, served, trial_of
from tests.trials import case, estimate
from tests.worlds import ROOT

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]

EVERY = load_params(ROOT / "params.yaml")
PARAMS = EVERY.canary
# A week here has 2,000 requests, whose value is as well known as that of 18,000 shipped ones.
REQUESTS, ERROR = 2000, 0.018
FRESH = budget_of(IsoWeek.parse("2026-W05"), [], "c", PARAMS.budget)
SHARE = (PARAMS.start_share, PARAMS.share)


@dataclass(frozen=True)
class Decided:
    """Of one week."""

    verdict: str
    lift: Interval
    recipe: bool
    """Whether the same evidence would promote a new recipe, which has to be worth more."""
    ended: float
    """The canary's share at the end: 0 where a look stopped it, 1 where one promoted it."""


def week(number: int, lift: float, share: tuple[float, float] = SHARE) -> Decided:
    """A small world's decision on a challenger that is truly worth so much more."""
    world = TrialWorld.of(number)
    rng = np.random.default_rng([number, 2])
    shown = served(world, world.challenger(lift), rng, REQUESTS, share)
    trial, found = trial_of(shown, share, PARAMS, EVERY.evaluate)
    decided = judge(case(trial=trial, estimates=(found,), budget=FRESH), PARAMS)
    assert decided.lift is not None
    gain = tail(decided.lift.value / decided.lift.error) <= FRESH.level
    return Decided(
        decided.verdict, decided.lift, gain and decided.verdict != "fail", trial.phases[-1].share
    )


def over(share: float, count: int) -> float:
    """What a share of `count` weeks stays under all but once in a thousand times."""
    return share + 3.1 * (share * (1.0 - share) / count) ** 0.5


@pytest.mark.parametrize("lift", [0.0, -0.03], ids=["equal", "worse-by-the-margin"])
def test_a_thousand_weeks_of_one_challenger(full: bool, record: Record, lift: float) -> None:
    count = 1000 if full else 25
    found = [week(number, lift) for number in range(count)]
    names = Counter(one.verdict for one in found)
    # Looks end what is far from 0: the rest, and they, are not of one law.
    whole = [one.lift for one in found if 0 < one.ended < 1]
    errors = np.array([one.error for one in whole])
    covered = np.mean([abs(one.value - lift) < 1.96 * one.error for one in whole])
    stopped = sum(one.ended == 0 for one in found)
    passed = names["pass"] / count
    what = f"{count:,} small worlds, a challenger worth {lift:+.0%}"
    record(
        f"{what}: promoted as a refresh, refused, inconclusive, stopped by a look",
        f"{passed:.1%}, {(names['fail'] - stopped) / count:.1%}, "
        f"{names['inconclusive'] / count:.1%}, {stopped / count:.1%}",
    )
    record(
        f"{what}: mean standard error of the lift, 95 % intervals that hold it",
        f"{errors.mean():.2%}, {covered:.1%}",
    )
    assert 0.012 < errors.mean() < 0.024
    assert abs(covered - 0.95) < (0.02 if full else 0.11)
    if lift < 0:
        assert passed <= over(FRESH.level, count)
    else:
        # No error: the margin says that a refresh may be worth as much. Over 0 is half of them.
        assert passed <= over(0.5, count)
        gains = np.mean([one.recipe for one in found])
        record(f"{what}: promoted as a new recipe", f"{gains:.1%}, allowed {FRESH.level:.1%}")
        assert gains <= over(FRESH.level, count)


LIFTS, SHARES = (0.0, 0.02, 0.05, 0.1), (0.05, 0.1, 0.25, 0.5)


def test_power_by_share_and_lift(full: bool, record: Record) -> None:
    count = 60 if full else 6
    power: dict[tuple[float, float], float] = {}
    for share in SHARES if full else SHARES[-1:]:
        pair = (min(share, SHARE[0]), share)
        for lift in LIFTS if full else LIFTS[::3]:
            found = [week(number, lift, pair) for number in range(count)]
            refresh = np.mean([one.verdict == "pass" for one in found])
            power[share, lift] = float(np.mean([one.recipe for one in found]))
            error = np.mean([one.lift.error for one in found])
            record(
                f"canary of {share:.0%}, true lift {lift:+.0%}: promoted as a refresh, as a new "
                f"recipe; standard error",
                f"{refresh:.0%}, {power[share, lift]:.0%}; {error:.2%}",
            )
    assert power[0.5, 0.1] > 0.9
    assert power[0.5, 0.0] <= over(FRESH.level, count)
    for share in SHARES if full else ():
        assert power[share, 0.1] >= power[share, 0.02] - 0.1


Drawn = Callable[[np.random.Generator], float]

MIXTURES: dict[str, Drawn] = {
    "30 % equal, 20 % +1 %, 20 % +2 %, 30 % worse by the margin": lambda rng: float(
        rng.choice([0.0, 0.01, 0.02, -0.03], p=[0.3, 0.2, 0.2, 0.3])
    ),
    "all worse by the margin": lambda _: -0.03,
    "+0 to +2 %": lambda rng: float(rng.uniform(0.0, 0.02)),
}


def year(
    first: IsoWeek, drawn: Drawn, rng: np.random.Generator, params: CanaryParams
) -> list[tuple[float, bool]]:
    """True lift and promotion of every week of an ISO year, the first model before them."""
    last = IsoWeek(first.year + 1, 1).plus(-1)
    spent = [Spent(str(first), "first", 1e-12, promoted=True)]
    found = []
    for at, one in enumerate(span(first, last)[1:]):
        lift, name = drawn(rng), f"{at:064d}"
        budget = budget_of(one, spent, name, params.budget)
        seen = estimate(lift + ERROR * rng.normal(), ERROR)
        result = judge(case(estimates=(seen,), budget=budget), params)
        assert result.p is not None
        spent.append(Spent(str(one), name, result.p, result.verdict == "pass"))
        found.append((lift, result.verdict == "pass"))
    return found


@pytest.mark.parametrize("mixture", MIXTURES)
def test_two_hundred_years_of_weekly_promotions(full: bool, record: Record, mixture: str) -> None:
    count = 200 if full else 20
    rng = np.random.default_rng(7)
    # Years of 52 and of 53 weeks in turn, as the calendar has them.
    years = [
        year(IsoWeek(2020 + at % 28, 1), MIXTURES[mixture], rng, PARAMS) for at in range(count)
    ]
    false = [sum(promoted and lift <= -0.03 for lift, promoted in one) for one in years]
    share = float(np.mean([promoted for one in years for _, promoted in one]))
    wrong = float(np.mean([number > 0 for number in false]))
    record(
        f"{count} years of weekly challengers, {mixture}: weeks that promote; years with a false "
        f"promotion, false ones of all",
        f"{share:.1%}; {wrong:.1%} (budget {PARAMS.budget.level:.0%}), "
        f"{sum(false) / max(1, sum(p for one in years for _, p in one)):.2%}",
    )
    assert {len(one) for one in years} == {51, 52}
    assert wrong <= (
        PARAMS.budget.level if "equal" in mixture else over(PARAMS.budget.level, count)
    )
    if mixture.startswith("+0"):
        assert share >= (0.5 if full else 0.4)
