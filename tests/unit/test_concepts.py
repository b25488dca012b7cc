"""The worked numbers of docs/concepts.md, by the code that runs."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from scipy.optimize import brentq

from roiflow.data.split import TEST
from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.evaluation import ope
from roiflow.evaluation.ranking import calibration_curve, ece
from roiflow.evaluation.roi import roi
from roiflow.evaluation.screen import roi_lift
from roiflow.features import kernels
from roiflow.features.table import Features, Floats, Outcomes
from roiflow.labels.delays import Curves
from roiflow.labels.settled import settle
from roiflow.params import load_params
from roiflow.policy.plackett_luce import log_conditional_propensities
from roiflow.ranking.likelihood import likelihood, logit_of
from roiflow.ranking.recalibration import Observed, fit
from tests.labels import planted_labels
from tests.records import estimate

ROOT = Path(__file__).resolve().parents[2]
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
    weight = ope.importance_weights(np.where(shown_b, 0.8, 0.2), np.where(shown_b, 0.2, 0.8))
    logged = np.where(shown_b, 0.8, 0.3)
    target = np.full(4, 0.2 * 0.3 + 0.8 * 0.8)
    found = (
        ope.ips(reward, weight),
        ope.snips(reward[:, None], weight[:, None]),
        ope.dm(target),
        ope.dr(reward, weight, logged, target),
    )
    size = ope.effective_sample_size(weight)
    assert bold("Off-policy evaluation") == [
        *(f"{estimate:.4f}" for estimate in found),
        f"{size:.1f}",
        "effective sample size",
    ]


def test_roi_and_its_lift() -> None:
    revenue, cost = np.array([300.0, 390.0]), np.array([100.0, 120.0])
    before, after = roi(revenue, cost)
    lift = (1 + after) / (1 + before) - 1
    assert bold("ROI, and its lift") == [f"{before:.2f}", f"{after:.2f}", f"{lift:.4f}"]


@pytest.mark.parametrize(
    ("value", "low", "high"), [(0.04, -0.03, 0.11), (0.04, -0.08, 0.16), (-0.04, -0.07, -0.01)]
)
def test_the_gates_three_values(value: float, low: float, high: float) -> None:
    check = roi_lift("lift", estimate(value, low, high), 0.0, 0.05, 0.5)
    (row,) = [
        line for line in PAGE.read_text().splitlines() if f"{value} ({low} to {high})" in line
    ]
    assert f"**{check.verdict}**" in row


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
