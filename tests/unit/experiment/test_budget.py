"""A year's error budget: published levels, hand-worked ones, and what the rules hold."""

import numpy as np
import pytest

from roiflow.artefacts.trial import Spent
from roiflow.data.weeks import Week
from roiflow.experiment.budget import (
    alpha_spending,
    budget_of,
    published,
    rejections,
)
from roiflow.params import BudgetParams

PUBLISHED = BudgetParams(
    rule="alpha_spending",
    level=0.05,
    cap=0.05,
    sequence="published",
    decay=0.5,
    candidate=0.5,
    start=0.1,
)
ADAPTIVE = BudgetParams(
    rule="adaptive_spending",
    level=0.1,
    cap=0.05,
    sequence="geometric",
    decay=0.5,
    candidate=0.4,
    start=0.5,
)


def spent(*p: float, week: str = "2026-W05", name: str | None = None) -> list[Spent]:
    return [Spent(week, name or f"c{at}", one, promoted=one < 0.01) for at, one in enumerate(p)]


def level(before: list[Spent], params: BudgetParams, challenger: str = "new") -> float:
    return budget_of(Week.parse("2026-W09"), before, challenger, params).level


def test_alpha_spending_as_onlinefdr_has_it() -> None:
    p = [1e-4, 0.1, 1e-4]
    levels = [alpha_spending(before, PUBLISHED).level for before in range(3)]
    assert levels == pytest.approx([0.0026758, 0.0005819, 0.0004956], abs=5e-8)
    assert [one <= it for one, it in zip(p, levels, strict=True)] == [True, False, True]


def test_lord_as_onlinefdr_has_it() -> None:
    params = PUBLISHED.model_copy(update={"rule": "lord"})
    assert rejections([1e-7, 0.1, 2.5e-4, 0.07], params) == [True, False, True, False]
    # By hand: before any rejection gamma(1) w0; after one at the first, gamma(2) w0 and
    # (level - w0) gamma(1).
    assert level([], params) == pytest.approx(published(1) * 0.005)
    assert level(spent(1e-7), params) == pytest.approx(published(2) * 0.005 + 0.045 * published(1))


def test_adaptive_spending_by_hand() -> None:
    # 0.1 x (1 - 0.4) x 1/2, and half of it after each p-value over 0.4.
    assert level([], ADAPTIVE) == pytest.approx(0.03)
    assert level(spent(1e-6, 0.02, 0.39), ADAPTIVE) == pytest.approx(0.03)
    assert level(spent(0.41, 1e-6, 1.0), ADAPTIVE) == pytest.approx(0.0075)
    found = budget_of(Week.parse("2026-W09"), spent(0.41, 1e-6, 1.0), "new", ADAPTIVE)
    assert (found.decisions, found.promotions) == (3, 1)
    assert found.spent == pytest.approx(0.075)
    assert found.left == pytest.approx(0.025)


def test_no_decision_has_more_than_the_cap() -> None:
    for rule in ("adaptive_spending", "alpha_spending", "lord"):
        params = ADAPTIVE.model_copy(update={"rule": rule, "level": 0.9, "cap": 0.01})
        assert level(spent(1e-9, 1e-9), params) == 0.01


def test_decisions_on_one_challenger_count_as_steps_but_for_the_last() -> None:
    before = spent(0.2, 0.1, 0.05, name="same")
    assert level(before, ADAPTIVE, "same") == pytest.approx(0.03 / 8)
    assert level(before, ADAPTIVE, "other") == pytest.approx(0.03 / 4)


def test_a_year_of_53_weeks_ends_with_its_53rd() -> None:
    before = spent(0.9, 0.9, week="2026-W53")
    assert budget_of(Week.parse("2026-W53"), before, "c", ADAPTIVE).decisions == 2
    fresh = budget_of(Week.parse("2027-W01"), before, "c", ADAPTIVE)
    assert fresh.decisions == 0
    assert fresh.level == pytest.approx(0.03)
    even = ADAPTIVE.model_copy(update={"rule": "alpha_spending", "sequence": "even"})
    assert sum(alpha_spending(at, even).level for at in range(53)) == pytest.approx(0.1)
    assert alpha_spending(53, even).level == 0.0


def test_what_no_test_promoted_earns_nothing() -> None:
    params = PUBLISHED.model_copy(update={"rule": "lord"})
    by_rule = [Spent("2026-W05", "first", 1.0, promoted=True)]
    found = budget_of(Week.parse("2026-W09"), by_rule, "new", params)
    assert found.promotions == 1
    assert found.level == pytest.approx(published(2) * 0.005)


@pytest.mark.parametrize("rule", ["adaptive_spending", "alpha_spending", "lord"])
def test_years_of_worthless_challengers_stay_under_the_level(rule: str) -> None:
    # All null: a false discovery rate is a familywise error rate then.
    params = ADAPTIVE.model_copy(update={"rule": rule, "decay": 0.65})
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(300):
        year: list[Spent] = []
        for at, p in enumerate(rng.random(20).tolist()):
            year.append(Spent("2026-W05", f"c{at}", p, p <= level(year, params, f"c{at}")))
        wrong += any(one.promoted for one in year)
    # Three standard errors of 300 years at 10 %.
    assert wrong / 300 <= 0.1 + 3 * (0.09 / 300) ** 0.5
