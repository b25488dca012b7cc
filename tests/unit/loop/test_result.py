"""Regret and ROI of a loop, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import ArtefactError
from roiflow.evaluation.canary import no_trial
from roiflow.loop.result import (
    LoopResult,
    Outcome,
    WeekOutcome,
    attainment,
    column,
    from_first_champion,
    overall_roi,
    regret,
    served_weeks,
)

GATE = Outcome("pass", 1, True, "a" * 64, "b" * 64, "evidence", "", "c" * 40)


def truth(revenue: float, cost: float) -> dict[str, float]:
    return {
        "revenue": revenue,
        "cost": cost,
        "value": revenue - cost,
        "roi": (revenue - cost) / cost,
    }


def outcome(week: str, **policies: tuple[float, float]) -> WeekOutcome:
    truths = {name: truth(*money) for name, money in policies.items()}
    trial = no_trial("simulator", week)
    return WeekOutcome(week, "logging", truths, None, trial, GATE, {"ingest": 1.0})


WEEKS = [
    outcome("2026-W04", random=(30, 20), oracle=(110, 50), served=(35, 20)),
    outcome("2026-W05", random=(30, 20), oracle=(110, 50), served=(60, 20), xgboost=(50, 20)),
    outcome("2026-W06", random=(25, 25), oracle=(140, 60), served=(100, 40), xgboost=(100, 50)),
]


def test_regret_is_what_the_oracle_is_ahead_by() -> None:
    assert regret(WEEKS, "served").tolist() == [60 - 15, 60 - 40, 80 - 60]
    assert regret(WEEKS, "oracle").tolist() == [0, 0, 0]
    np.testing.assert_array_equal(regret(WEEKS, "xgboost"), [np.nan, 60 - 30, 80 - 50])


def test_attainment_is_the_share_of_the_way_from_random_to_the_oracle() -> None:
    np.testing.assert_allclose(attainment(WEEKS, "served"), [5 / 50, 30 / 50, 60 / 80])
    assert attainment(WEEKS, "random").tolist() == [0, 0, 0]
    assert attainment(WEEKS, "oracle").tolist() == [1, 1, 1]


def test_roi_over_weeks_is_of_the_sums_and_not_the_mean_of_rois() -> None:
    served = served_weeks(WEEKS)
    assert overall_roi(served, "served") == (160 - 60) / 60
    assert np.mean(column(served, "served", "roi")) == (2.0 + 1.5) / 2


def test_the_week_that_nothing_preceded_is_not_compared() -> None:
    assert [one.week for one in served_weeks(WEEKS)] == ["2026-W05", "2026-W06"]


def test_the_true_lift_is_the_canary_s_value_over_the_stable_arm_s() -> None:
    two = outcome("2026-W07", stable=(60, 20), canary=(66, 20))
    assert two.true_lift == pytest.approx(46 / 40 - 1)
    assert np.isnan(WEEKS[1].true_lift)


def test_weeks_count_from_the_first_that_begins_with_a_champion() -> None:
    ours = replace(WEEKS[1], served_by="a" * 12)
    assert from_first_champion([WEEKS[0], ours, WEEKS[2]]) == [ours, WEEKS[2]]
    assert from_first_champion(WEEKS) == []


def test_policies_are_ordered_by_the_value_of_the_last_week() -> None:
    assert LoopResult(7, "", tuple(WEEKS)).policies == ("oracle", "served", "xgboost", "random")


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = LoopResult(7, "0123", tuple(WEEKS))
    result.write(tmp_path / "loop.json")
    assert LoopResult.read(tmp_path / "loop.json") == result
    assert [path.name for path in tmp_path.iterdir()] == ["loop.json"]


@pytest.mark.parametrize(
    "content", ["[", "[]", "{}", '{"weeks": [{}]}', json.dumps({"weeks": [], "seed": 1})]
)
def test_what_is_no_result_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "loop.json"
    with pytest.raises(ArtefactError, match=r"loop\.json: No such file"):
        LoopResult.read(path)
    path.write_text(content)
    with pytest.raises(ArtefactError, match=r"loop\.json: \S.*: run the step that writes it again"):
        LoopResult.read(path)
