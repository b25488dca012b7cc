"""A world that cannot be is refused by key and value, before a single draw."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from roiflow.errors import ParamsError
from roiflow.params import SimulatorParams, load_params
from roiflow.simulator.refusal import refuse_impossible
from roiflow.simulator.scenarios import SCENARIOS
from tests.worlds import planted_content

SHIPPED = Path(__file__).parents[3] / "params.yaml"

Change = dict[str, object]
"""Dotted keys under ingest.simulator, and their values."""


def content(change: Change) -> dict[str, Any]:
    """The shipped params.yaml with some keys changed."""
    shipped = planted_content()
    for key, value in change.items():
        section = shipped["ingest"]["simulator"]
        *parents, name = key.split(".")
        for parent in parents:
            section = section[parent]
        assert name in section, key
        section[name] = value
    return shipped


def params(change: Change) -> SimulatorParams:
    return SimulatorParams.model_validate(content(change)["ingest"]["simulator"])


@pytest.fixture
def no_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every randomness of the world starts here."""

    def draw(*_: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(np.random, "SeedSequence", draw)


IMPOSSIBLE: list[tuple[Change, str, str]] = [
    # what is changed, the key that must be named (its value with it), and a piece of the reason
    ({"first_week": "2026-W54"}, "first_week", "2026-W54"),
    ({"shock_week": "2025-W53"}, "shock_week", "2025-W53"),
    ({"known_lag_hours": 5}, "known_lag_hours", "must divide 24"),
    ({"known_lag_hours": 48}, "known_lag_hours", "must divide 24"),
    ({"attribution_days": 7}, "attribution_days", "at most 6"),
    ({"return_days": 6}, "return_days", "at most 5"),
    ({"attribution_days": 3, "return_days": 9}, "return_days", "at most 8"),
    ({"synthetic.users": 30_000_000}, "synthetic.users", "over 1000 shards"),
    ({"delay_hours": [-1.0, 20.0]}, "delay_hours", "longer than 0"),
    ({"delay_hours": [0.0, 20.0]}, "delay_hours", "longer than 0"),
    ({"delay_hours": [20.0, 2.0]}, "delay_hours", "shorter delay must come first"),
    ({"delay_hours": [2.0]}, "delay_hours", "two numbers"),
    ({"delay_hours": [2.0, 3.0, 4.0]}, "delay_hours", "two numbers"),
    ({"delay_hours": [2.0, float("inf")]}, "delay_hours", "finite"),
    ({"delay_hours": [float("nan"), 20.0]}, "delay_hours", "finite"),
    ({"interest_weight": float("inf")}, "interest_weight", "finite"),
    ({"examination.exponent": float("inf")}, "examination.exponent", "finite"),
    ({"scenario": "meteor"}, "scenario", "concept_drift"),
    ({"scenario": "budget_cut", "auction.budgets": False}, "scenario", "no budgets to cut"),
    ({"scenario": "holiday", "shock_week": "2025-W52"}, "shock_week", "first week, 2026-W01"),
    (
        {"world": "panel", "scenario": "holiday", "shock_week": "2026-W06"},
        "shock_week",
        "panel's last week, 2017-W52",
    ),
    (
        {"world": "panel", "scenario": "holiday", "shock_week": "2016-W40"},
        "shock_week",
        "first week, 2016-W52",
    ),
    ({"slate_size": 61}, "slate_size", "only 60 eligible ads"),
    ({"world": "panel", "slate_size": 121}, "slate_size", "only 120 eligible ads"),
    ({"synthetic.categories": 61}, "synthetic.categories", "only 60 ads"),
    ({"synthetic.ad_weeks": 0.5, "synthetic.new_ads_per_week": 1}, "synthetic.ad_weeks", "1.2 ads"),
    ({"synthetic.ad_weeks": 1.0, "synthetic.new_ads_per_week": 0}, "synthetic.ad_weeks", "1.1 ads"),
    ({"synthetic.churn": 1.0, "synthetic.newcomers": 0.0}, "synthetic.churn", "0.0 users"),
    ({"synthetic.churn": 0.9, "synthetic.newcomers": 0.0}, "synthetic.churn", "0.2 users"),
    ({"synthetic.action_importance": {"view": 1.0}}, "synthetic.action_importance", "favourite"),
    ({"synthetic.holidays": ["02-30"]}, "synthetic.holidays", "'02-30'"),
    ({"synthetic.holidays": ["12-24", "13-01"]}, "synthetic.holidays", "'13-01'"),
    ({"synthetic.holidays": ["1-1"]}, "synthetic.holidays", "'1-1'"),
    ({"synthetic.holidays": ["W01-1"]}, "synthetic.holidays", "'W01-1'"),
    ({"synthetic.holidays": ["Easter"]}, "synthetic.holidays", "'Easter'"),
    ({"revenue_sigma": 5.0}, "revenue_sigma", "64 bits"),
    ({"auction.pricing": "second", "auction.competition": 0.0}, "auction.competition", "is 0"),
    (
        {"auction.budget_share": 0.1, "auction.budgets": True},
        "auction.budget_share",
        "0.420 clicks",
    ),
    (
        {
            "auction.budget_share": 0.005,
            "auction.budgets": True,
            "auction.charge": "impression",
        },
        "auction.budget_share",
        "0.600 impressions",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "key", "reason"), IMPOSSIBLE)
@pytest.mark.usefixtures("no_draws")
def test_it_is_refused_by_key_and_value(change: Change, key: str, reason: str) -> None:
    value = change[key]
    with pytest.raises(ParamsError, match=rf"ingest\.simulator\.{key}: ") as refused:
        refuse_impossible(params(change))
    assert reason in str(refused.value)
    assert f"(value {value!r})" in str(refused.value)


OUT_OF_BOUNDS: list[tuple[str, object]] = [
    *(("examination.after_click", value) for value in (-0.1, 1.1, float("nan"))),
    *(("examination.after_skip", value) for value in (-0.1, 1.1, float("nan"))),
    *(("click_rate", value) for value in (-0.1, 0.0, 1.0, 1.5, float("nan"))),
    *(("conversion_rate", value) for value in (-0.1, 0.0, 1.0, 1.5, float("nan"))),
    ("return_rate", 1.01),
    ("synthetic.newcomers", 1.5),
    ("synthetic.churn", -0.5),
    ("synthetic.action_importance", {"view": -1.0}),
    ("world", "martian"),
    ("examination.model", "telepathy"),
    ("auction.pricing", "third"),
    ("auction.charge", "conversion"),
    *(("auction.budget_share", value) for value in (-1.0, 0.0)),
    ("slate_size", 0),
    ("synthetic.users", 0),
    ("synthetic.ads", 0),
    ("synthetic.new_ads_per_week", -1),
    ("first_week", "2026-01-05"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_does_not_even_load(key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content({key: value})))
    with pytest.raises(
        ParamsError, match=rf"{re.escape(str(file))}: .*simulator\.{key}.*: .*value"
    ):
        load_params(file)


POSSIBLE: list[Change] = [
    {},
    {"slate_size": 60, "synthetic.ad_weeks": 10_000.0, "synthetic.new_ads_per_week": 1},
    {"shock_week": "2025-W52"},  # of no concern to a slow drift
    {"world": "panel", "scenario": "holiday", "shock_week": "2017-W40"},
    {"world": "panel", "synthetic.ads": 1},
    {"delay_hours": [3.0, 3.0]},
    {"known_lag_hours": 24},
    {"attribution_days": 3, "return_days": 8},
    {"synthetic.users": 5_000_000},
    {"synthetic.holidays": ["02-29"]},
    {"synthetic.holidays": []},
    {"synthetic.churn": 1.0, "synthetic.newcomers": 0.5},
    {"synthetic.churn": 0.0},
    {"auction.competition": 0.0},
    {"auction.budget_share": 0.005},
    {"examination.after_click": 0.0, "examination.after_skip": 1.0},
]


NAMED: list[Change] = [{"scenario": name, "auction.budgets": True} for name in SCENARIOS]


@pytest.mark.parametrize("change", [*POSSIBLE, *NAMED])
def test_what_can_be_is_not_refused(change: Change) -> None:
    refuse_impossible(params(change))
