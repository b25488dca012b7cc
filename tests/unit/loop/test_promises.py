"""What a loop is held to: each promise, kept and broken by one week."""

from dataclasses import replace

import pytest

from roiflow.loop.promises import ahead, broken, calibration, climb, promotions, true_lift
from roiflow.loop.result import LoopResult, ServedClicks, WeekOutcome
from tests.records import A
from tests.unit.loop.weeks import GATE, HELD, result, tried, week

BESIDE = {"random": 0.0, "oracle": 100.0, "logistic": 80.0, "xgboost": 79.0, "popularity": 50.0}


def name(number: int) -> str:
    return f"2026-W{number:02}"


def promoted(number: int, served: float, lift: float = 0.05) -> WeekOutcome:
    digest = f"{number:x}" * 64
    arms = {"stable": 80.0, "canary": 80.0 * (1 + lift)}
    return week(
        name(number), GATE, tried(name(number), challenger=digest), served=served, **BESIDE, **arms
    )


def good() -> LoopResult:
    """12 weeks: logged, the first trial beside the logging policy, then ten that promote."""
    logged = week(name(4), HELD, {"served_by": "logging", "clicks": None}, served=5, **BESIDE)
    first = replace(promoted(5, 60), served_by="logging")
    return result(7, logged, first, *(promoted(number, 85) for number in range(6, 16)))


def test_a_loop_that_keeps_every_promise_breaks_none() -> None:
    assert broken(good()) == []


def test_the_way_at_the_end_and_the_climb_are_asked_for() -> None:
    weeks = good().weeks
    low = (*weeks[:-4], *(replace(one, truth=promoted(6, 79).truth) for one in weeks[-4:]))
    assert climb(low) == ["79.0% of the way in the last 4 weeks, under 80%"]
    flat = (weeks[0], promoted(5, 78), *weeks[2:])
    assert climb(flat) == ["85.0% at last from 78.0% at first: under 8% more"]


def test_five_promotions_by_evidence_are_asked_for() -> None:
    weeks = good().weeks
    rule = [replace(one, gate=replace(GATE, rule="first model")) for one in weeks[1:8]]
    assert promotions((weeks[0], *rule, *weeks[8:])) == ["4 promotions by evidence, under 5"]


@pytest.mark.parametrize(("lift", "said"), [(-0.029, []), (-0.031, ["-3.10%"])])
def test_a_harmful_promotion_is_named(lift: float, said: list[str]) -> None:
    weeks = (*good().weeks[:-1], promoted(15, 85, lift))
    assert promotions(weeks) == [f"2026-W15: promoted with a true lift of {one}" for one in said]


def test_a_promotion_whose_worth_is_not_known_is_none_that_was_harmless() -> None:
    unknown = week(name(15), GATE, tried(name(15), challenger="f" * 64), served=85, **BESIDE)
    (said,) = promotions((*good().weeks[:-1], unknown))
    assert said == "2026-W15: promoted with a true lift of +nan%"


def test_a_lift_is_of_all_the_weeks_that_the_challenger_was_tried_in() -> None:
    first, second = (
        promoted(5, 85, 0.02),
        replace(promoted(6, 85, 0.06), trial=promoted(5, 85).trial),
    )
    other = promoted(7, 85, 0.5)
    assert true_lift(second, (first, second, other)) == pytest.approx(0.04)
    assert true_lift(first, (first, second, other)) == pytest.approx(0.02)


def test_a_badly_calibrated_week_is_named() -> None:
    weeks = good().weeks
    off = replace(weeks[3], clicks=ServedClicks(0.0301, ()))
    assert calibration((*weeks[:3], off)) == ["2026-W07: click ECE 0.0301, over 0.03"]
    unknown = replace(weeks[3], clicks=ServedClicks(None, ()))
    assert calibration((*weeks[:3], unknown)) == []


def test_every_ranker_alone_is_to_be_behind_once_a_champion_serves() -> None:
    weeks = good().weeks
    better = {name: one | {"value": 90.0} for name, one in week("x", logistic=90).truth.items()}
    close = [replace(one, truth=promoted(6, 85).truth | better) for one in weeks]
    own = [replace(one, served_by=A[:12]) for one in close[2:]]
    assert ahead((*close[:2], *own)) == [
        "850 of value from 2026-W06 on, logistic has 900",
    ]
    assert ahead([replace(one, served_by="logging") for one in weeks]) == [
        "no champion of ours ever served"
    ]
