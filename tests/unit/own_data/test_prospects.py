"""Answers against numbers worked out by hand, and against what really happens by chance."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roiflow.data.sources.files import Files
from roiflow.own_data.facts import Amounts, Facts, Looked, look
from roiflow.own_data.prospects import auc_margin, hindrances, prospects
from roiflow.params import Params, load_params
from roiflow.ranking.metrics import auc
from tests.unit.data import worlds
from tests.unit.data.worlds import SECOND, WEEKS, bounds

PARAMS = load_params(Path(__file__).parents[3] / "params.yaml")
GOOD = Amounts(
    impressions=100_000,
    clicks=10_000,
    conversions=1_000,
    cost=2.5e6,
    revenue=5e6,
    earlier_impressions=300_000,
    earlier_clicks=30_000,
    earlier_conversions=3_000,
    slates=33_000,
    slates_logged=33_000,
    mean_propensity=0.1,
    least_propensity=0.01,
)


def answers(params: Params = PARAMS, **changes: Any) -> dict[str, tuple[str, str]]:
    facts = Facts(SECOND, [], [], [], [], replace(GOOD, **changes))
    return {one.what.split(" (")[0]: (one.answer, one.why) for one in prospects(facts, params)}


ROI, OTHER = "the return on ad spend of what was shown", "what another policy would have earned"
CHAMPION = "a champion without a person's word"


def test_a_large_week_can_say_everything() -> None:
    assert {answer for answer, _ in answers().values()} == {"yes"}
    assert answers()[ROI][1] == "revenue 5.00 over cost 2.50"
    # 30,000 of the slates are evaluated, a tenth of them agrees with one fixed ad.
    assert "are worth 3,000 " in answers()[OTHER][1]


@pytest.mark.parametrize(
    ("changes", "what", "answer", "why"),
    [
        ({"cost": 0.0}, ROI, "no", "cost_micros is 0 everywhere"),
        ({"revenue": 0.0}, ROI, "no", "no revenue"),
        ({"slates_logged": 0}, OTHER, "no", "no propensities: no off-policy estimate"),
        ({"slates_logged": 199}, OTHER, "no", "199 (the logged one), 200 are needed"),
        ({"slates_logged": 1_000}, OTHER, "doubtful", "are worth 100 "),
        ({"least_propensity": 1e-110}, OTHER, "doubtful", "1e-110, may weigh over 1000"),
        ({"earlier_impressions": 0}, "train a ranker", "no", "bring at least one more"),
        ({"earlier_clicks": 0}, "train a ranker", "no", "no click"),
        ({"earlier_conversions": 0}, "what a conversion is worth", "no", "no conversion"),
        ({"clicks": 0}, "a click AUC surely over 0.55", "no", "0 of 100,000 were clicked"),
        ({"clicks": 0}, CHAMPION, "no", "for want of a click AUC surely over 0.55"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], what: str, answer: str, why: str) -> None:
    found = answers(**changes)[what]
    assert found[0] == answer
    assert why in found[1]


def test_the_first_model_rule_is_the_one_of_params_yaml() -> None:
    gate = PARAMS.screen.model_copy(update={"first_model": "override"})
    params = PARAMS.model_copy(update={"screen": gate})
    assert "by the first-model rule" in answers(slates_logged=0)[CHAMPION][1]
    assert "needs a person (screen.first_model)" in answers(params, slates_logged=0)[CHAMPION][1]


def test_the_margin_holds_95_of_100_chance_results() -> None:
    rng = np.random.default_rng(5)
    label = np.arange(1_000) < 100
    found = np.array([auc(rng.random(1_000), label) for _ in range(400)])
    margin = auc_margin(100, 900)
    assert np.mean(np.abs(found - 0.5) < margin) == pytest.approx(0.95, abs=0.03)


def test_a_run_stops_for_want_of_weeks_and_for_too_many_bad_rows(tmp_path: Path) -> None:
    rows = [row | {"cost_micros": -1} for row in worlds.week_rows("impressions", SECOND)]
    root = worlds.write(tmp_path, {("impressions", SECOND): worlds.table("impressions", rows)})
    facts = look(Looked(Files(str(root)), SECOND.end), WEEKS, bounds(0.01))
    few, bad = hindrances(facts, "files", 2, 4, PARAMS)
    assert "2 of the 4 weeks that end with 2026-W04" in few
    assert "set ingest.files.weeks to 2" in few
    assert "10 of 10 rows of impressions in 2026-W04 are set aside, over 1.00%" in bad
    sound = look(Looked(Files(str(worlds.write(tmp_path / "b"))), SECOND.end), WEEKS, bounds(0.0))
    assert hindrances(sound, "files", 4, 4, PARAMS) == []
