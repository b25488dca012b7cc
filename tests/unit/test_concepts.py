"""The worked numbers of docs/concepts.md, by the code that runs."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy.optimize import brentq

from roiflow.artefacts.evaluation import Interval
from roiflow.artefacts.trial import Spent
from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.evaluation.estimators.chances import Chances, mixed, ratio
from roiflow.evaluation.estimators.diagnostics import effective_sample_size
from roiflow.evaluation.estimators.dm import dm
from roiflow.evaluation.estimators.dr import dr
from roiflow.evaluation.estimators.ips import ips
from roiflow.evaluation.estimators.snips import snips
from roiflow.evaluation.estimators.weights import importance_weights
from roiflow.evaluation.ranking import calibration_curve, ece
from roiflow.evaluation.roi import roi
from roiflow.evaluation.trial import _Gain, lift_check
from roiflow.experiment.budget import budget_of
from roiflow.features import kernels
from roiflow.features.table import Features, Floats, Outcomes
from roiflow.labels.delays import Curves
from roiflow.labels.settled import settle
from roiflow.params import load_params
from roiflow.policy.plackett_luce import log_conditional_propensities
from roiflow.ranking.likelihood import likelihood, logit_of
from roiflow.ranking.recalibration import Observed, fit
from tests.labels import planted_labels

ROOT = Path(__file__).resolve().parents[2]
PARAMS = load_params(ROOT / "params.yaml")
PAGE = ROOT / "docs" / "concepts.md"
ONE = np.zeros(3, np.int32)


def bold(heading: str) -> list[str]:
    """The worked results of one section, in the order they are read."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    examples = "\n".join(line for line in section.splitlines() if line.startswith(">"))
    return re.findall(r"\*\*(.+?)\*\*", examples)


def test_propensity() -> None:
    logits = np.log([[2.0, 1.0, 1.0]])
    first, second = np.exp(log_conditional_propensities(logits, np.array([[0, 2]])))[0]
    assert bold("Propensity") == [f"{first:g}", f"{second:g}", f"{first * second:g}"]


def test_as_known() -> None:
    rates = np.array([20.0, 0.05, 0.0, 0.0])
    before, after = (
        kernels._value(np.array([10, clicks, 0, 0]), kernels.CTR, rates, np.zeros(1, np.float32))
        for clicks in (1, 2)
    )
    assert bold("As known") == [f"{before:.4f}", f"{after:.4f}"]


def test_exposure() -> None:
    exposure = np.repeat([1.0, 0.25], 20).astype(np.float32)
    observed = np.isin(np.arange(40), [0, 1, 2, 3, 20])

    def pull(chance: float) -> Floats:
        found: Floats = likelihood(np.full(40, logit_of(chance)), exposure, observed)[1]
        return found

    best = brentq(lambda chance: float(pull(chance).sum()), 0.01, 0.9, xtol=1e-12)
    old, young = pull(best)[[19, 39]]
    numbers = [observed.mean(), best, old, young]
    assert bold("Exposure") == [f"{number:.4f}" for number in numbers]


def test_maturity() -> None:
    delays = Curves.of(np.array([1, 3, 1]), np.array([9, 9, 2]), ONE, ONE, (1, 1), 0.0)
    half = float(delays.known(ONE[:1], ONE[:1], np.array([2]))[0])
    labels = planted_labels([1.0], [0.0, 0.0, half])
    each = np.array([0.05]), np.array([0.4])
    returning = replace(labels.delays[0], returned=each[0], rate=each[1])
    log = SimpleNamespace(
        ad=np.zeros(10, np.int32),
        event_time=np.zeros(10, np.int64),
        split=np.full(10, TEST, np.uint8),
        context=np.zeros((10, 4), np.int32),
        clicked=np.ones(10, bool),
        converted=np.arange(10) < 2,
    )
    now = 2 * MICROS_PER_HOUR
    known = Outcomes(np.arange(2), np.full(2, now - 1), np.full(2, 10_000_000))
    features = SimpleNamespace(
        impressions=log,
        outcomes=known,
        attributes=np.zeros((1, 5), np.int32),
        known_until=(0, 0, now, 0),
    )
    found = settle(replace(labels, delays=(returning,)), cast("Features", features), np.arange(10))
    assert bold("Maturity") == [
        f"{half:g}",
        f"{found.conversions.sum():g}",
        f"{found.revenue.sum() / 1e6:.2f}",
        f"{found.maturity:g}",
    ]


def test_off_policy_evaluation() -> None:
    shown_b = np.array([False, False, False, True])
    reward = np.array([1.0, 0.0, 0.0, 1.0])
    weight = importance_weights(np.where(shown_b, 0.8, 0.2), np.where(shown_b, 0.2, 0.8))
    logged = np.where(shown_b, 0.8, 0.3)
    target = np.full(4, 0.2 * 0.3 + 0.8 * 0.8)
    found = (
        ips(reward, weight),
        snips(reward[:, None], weight[:, None]),
        dm(target),
        dr(reward, weight, logged, target),
    )
    size = effective_sample_size(weight)
    assert bold("Off-policy evaluation") == [
        *(f"{estimate:.4f}" for estimate in found),
        f"{size:.1f}",
        "effective sample size",
    ]


def test_evidence_from_both_arms() -> None:
    looks = np.array([1.0, 0.5])
    champion, challenger = (
        np.array([[looks @ np.array(chance)]]) for chance in ((0.2, 0.3), (0.5, 0.2))
    )
    both = mixed(
        Chances(champion, champion, champion, champion),
        Chances(challenger, challenger, challenger, challenger),
        np.array([0.5]),
    )
    new, old = (float(ratio(one, both.exposure)[0, 0]) for one in (challenger, champion))
    assert bold("Evidence from both arms") == [
        f"{new:.4f}",
        f"{old:.4f}",
        f"{new - old:.4f}",
    ]


def test_roi_and_its_lift() -> None:
    revenue, cost = np.array([300.0, 390.0]), np.array([100.0, 120.0])
    before, after = roi(revenue, cost)
    lift = (1 + after) / (1 + before) - 1
    assert bold("Value, ROI and lift") == [f"{before:.2f}", f"{after:.2f}", f"{lift:.4f}"]


@pytest.mark.parametrize(
    ("kind", "value", "low", "high"),
    [
        ("refresh", 0.008, -0.012, 0.028),
        ("refresh", 0.008, -0.041, 0.057),
        ("refresh", -0.029, -0.045, -0.013),
        ("new recipe", 0.008, -0.012, 0.028),
        ("new recipe", 0.041, 0.009, 0.073),
    ],
)
def test_screen_and_canary(kind: str, value: float, low: float, high: float) -> None:
    margin = PARAMS.canary.margin if kind == "refresh" else 0.0
    check = lift_check(_Gain(Interval(value, 0.0, low, high), True, 0.0, margin, 0), early=False)
    (row,) = [
        line
        for line in PAGE.read_text().splitlines()
        if f"| {kind} | {value} ({low} to {high})" in line
    ]
    assert f"**{check.verdict}**" in row


def test_the_error_budget() -> None:
    week, found = Week.parse("2026-W10"), []
    before: list[Spent] = []
    for number, p in enumerate((0.001, 0.7, 0.5)):
        found.append(budget_of(week, before, str(number), PARAMS.canary.budget))
        before.append(Spent(str(week), str(number), p, promoted=p < 0.01))
    first, second, third = found
    assert first.level == second.level
    numbers = [first.level, third.spent, third.left, third.level]
    assert bold("The error budget")[-4:] == [f"{number:.5g}" for number in numbers]


def test_calibration() -> None:
    predicted = np.repeat([0.02, 0.10], 200)
    clicked = np.concatenate([np.arange(200) < 6, np.arange(200) < 12])
    error = ece(calibration_curve(predicted, clicked, bins=2))
    weak = load_params(ROOT / "params.yaml").recalibrate.model_copy(update={"prior_events": 1e-6})
    level, seen = np.full(1000, 0.2), np.arange(1000) < 100
    all_looked, half_looked = (
        fit(Observed(level, seen, np.full(1000, share)), weak) for share in (1.0, 0.5)
    )
    lower = all_looked.apply(np.array([0.2, 0.05]))
    same = half_looked.apply(np.array([0.2]))
    numbers = [error, *lower, *same]
    assert bold("Calibration") == [f"{number:.4f}" for number in numbers]
