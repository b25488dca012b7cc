"""What may go wrong in a year of promotions: the level of each decision, and what is left.

False is a promotion whose challenger's true value is under the margin. Three rules say at which
level a decision may reject that, given the year's decisions so far:

- `adaptive_spending` (Tian & Ramdas, 2021, "Online control of the familywise error rate", with no
  discarding): P(any false promotion in the year) is at most `level`. Only a decision whose p-value
  is over `candidate` uses up one step of the sequence; one that shows a good challenger costs none,
  so that weekly promotions do not starve.
- `alpha_spending` (Foster & Stine, 2008): the same, each decision using up one step whatever it
  shows, and whichever way decisions depend on each other.
- `lord` (LORD++; Ramdas, Yang, Wainwright & Jordan, 2017): the expected share of false ones among
  the year's promotions is at most `level`; a promotion earns levels for the decisions after it.

Nothing that was stored is trusted: levels are computed anew from the p-values. Decisions on one
challenger over several weeks hang together, which the adaptive rule does not allow: each of them
but the last counts as a step.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from roiflow.artefacts.trial import Budget, Spent
from roiflow.data.weeks import Week
from roiflow.params import BudgetParams

Sequence1 = Callable[[int], float]
"""Weights of steps 1, 2, ..., which sum to 1."""

CONTROLS = {
    "adaptive_spending": "P(any false promotion in the year)",
    "alpha_spending": "P(any false promotion in the year)",
    "lord": "the expected share of false ones among the year's promotions",
}


def published(step: int) -> float:
    """The sequence of onlineFDR's defaults (Javanmard & Montanari, 2018, for LORD)."""
    root = math.exp(math.sqrt(math.log(step)))
    return 0.07720838 * math.log(max(step, 2)) / (step * root)


def gamma(params: BudgetParams) -> Sequence1:
    """The weights of params.yaml."""
    if params.sequence == "published":
        return published
    if params.sequence == "even":
        return lambda step: 1.0 / WEEKS if step <= WEEKS else 0.0
    return lambda step: (1.0 - params.decay) * params.decay ** (step - 1)


WEEKS = 53
"""Of the longest year."""


@dataclass(frozen=True)
class Level:
    """Of one decision, and what the decisions up to it have used up of the year's budget."""

    level: float
    spent: float


def adaptive_spending(p: Sequence[float], hard: Sequence[bool], params: BudgetParams) -> Level:
    """level x (1 - candidate) x gamma(k + 1), with k decisions over `candidate`, or `hard`."""
    weights = gamma(params)
    steps = sum(one > params.candidate or it for one, it in zip(p, hard, strict=True))
    level = params.level * (1.0 - params.candidate) * weights(steps + 1)
    spent = params.level * sum(weights(step) for step in range(1, steps + 1))
    # A level over `candidate` would reject what counts as a step: the proof excludes it.
    return Level(min(level, params.cap, params.candidate), spent)


def alpha_spending(decisions: int, params: BudgetParams) -> Level:
    """level x gamma(t) for decision t."""
    weights = gamma(params)
    levels = [params.level * weights(step) for step in range(1, decisions + 2)]
    return Level(min(levels[-1], params.cap), sum(levels[:-1]))


def lord(rejected: Sequence[bool], params: BudgetParams) -> Level:
    """gamma(t) w0 + (level - w0) gamma(t - t_1) + level x sum over later rejections t_j."""
    weights, start = gamma(params), params.start * params.level

    def level(before: Sequence[bool]) -> float:
        step = len(before) + 1
        at = [one for one, it in enumerate(before, 1) if it]
        earned = [params.level - start, *([params.level] * len(at))]
        whole = weights(step) * start + sum(
            gain * weights(step - one) for one, gain in zip(at, earned, strict=False)
        )
        return min(whole, params.cap)

    levels = [level(rejected[:step]) for step in range(len(rejected) + 1)]
    # The estimate of the false share that LORD++ holds under `level`.
    return Level(levels[-1], sum(levels[:-1]) / max(1, sum(rejected)))


def rejections(p: Iterable[float], params: BudgetParams) -> list[bool]:
    """What `lord` rejects of p-values in their order."""
    found: list[bool] = []
    for one in p:
        found.append(one <= lord(found, params).level)
    return found


def budget_of(week: Week, before: Sequence[Spent], challenger: str, params: BudgetParams) -> Budget:
    """The year of `week`, given the decisions before it, in their order; other years count not.

    `challenger` is the digest of the one to be decided on.
    """
    year = [one for one in before if Week.parse(one.week).year == week.year]
    found = _level(year, challenger, params)
    return Budget(
        year=week.year,
        rule=params.rule,
        controls=CONTROLS[params.rule],
        budget=params.level,
        decisions=len(year),
        promotions=sum(one.promoted for one in year),
        spent=found.spent,
        left=max(0.0, params.level - found.spent),
        level=found.level,
    )


def _level(year: Sequence[Spent], challenger: str, params: BudgetParams) -> Level:
    if params.rule == "adaptive_spending":
        later = [one.challenger for one in year[1:]] + [challenger]
        names = [one.challenger for one in year]
        again = [name in later[at:] for at, name in enumerate(names)]
        return adaptive_spending([one.p for one in year], again, params)
    if params.rule == "alpha_spending":
        return alpha_spending(len(year), params)
    rejected: list[bool] = []
    for one in year:
        # A person's override, or the first-model rule, earns nothing: no test was passed.
        rejected.append(one.promoted and one.p <= lord(rejected, params).level)
    return lord(rejected, params)
