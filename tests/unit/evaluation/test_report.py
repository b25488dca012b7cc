"""The weekly report says what the run's files say, and stands alone."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roiflow.artefacts.decision import Check
from roiflow.artefacts.evaluation import Diagnostics, Estimate, Report
from roiflow.artefacts.trial import Look
from roiflow.artefacts.validation import Validation
from roiflow.data.weeks import MICROS_PER_DAY
from roiflow.errors import RoiflowError
from roiflow.evaluation.plots import PastWeek
from roiflow.evaluation.report import Told, write_report
from tests.records import decision, estimate, labels_report, report, roi_estimate
from tests.trials import CHALLENGER, CHAMPION, TRIAL, tried

WEIGHTS = Diagnostics(
    rows=80, effective_sample_size=321.0, max_weight=7.5, mean_weight=1.02, support=1.0
)


def _estimate(value: float | None, **more: Any) -> Estimate:
    return estimate(value, *((None, None) if value is None else (value - 0.1, 0.9)), **more)


def _report(**more: Any) -> Report:
    model = {
        f"test_full_{label}_{metric}": 0.7
        for label in ("click", "conversion")
        for metric in ("auc", "auc_low", "auc_high", "gauc", "log_loss", "ece", "pcoc", "ndcg_at_5")
    }
    roi = {
        "logged": roi_estimate(_estimate(0.111)),
        "switch_dr": roi_estimate(_estimate(0.321, diagnostics=WEIGHTS), _estimate(0.222)),
        "dm": roi_estimate(_estimate(None, reason="<no cost>"), _estimate(None)),
    }
    models = {"rosa": model, "popularity": {**model, "test_full_conversion_auc": None}}
    return report(**{"models": models, "roi": roi, **more})


DECISION = decision(
    verdict="inconclusive",
    rule="first model",
    reason="lift < 0 & not ruled out",
    checks=(Check("roi_lift", 0.2, -0.1, 0.5, 0.0, "inconclusive", "spans 0"),),
    challenger="c" * 64,
)


def _told(folder: Path, **more: Any) -> Told:
    whole = Told(source="simulator", report=_report(), plots=folder / "plots", decision=DECISION)
    return replace(whole, **more)


def _written(folder: Path, **more: Any) -> str:
    out = folder / "report.html"
    write_report(out, _told(folder, **more))
    return out.read_text()


def test_the_headline(tmp_path: Path) -> None:
    html = _written(tmp_path)
    assert "Week 2026-W04, simulator" in html
    assert 'class="badge inconclusive"' in html
    for figure in ("+32.1 %", "+11.1 %", "+22.2 %", "0.7000", "321", "5,678", "cccccccccccc"):
        assert figure in html
    assert "Promoted by: first model" in html


def test_a_trial_shows_both_arms_the_looks_the_budget_and_what_to_do(tmp_path: Path) -> None:
    start = TRIAL.phases[0].since
    looks = tuple(
        Look(start + day * MICROS_PER_DAY, 3000 * day, 20.0, 30.0, -60.0, 100.0, 1000.0)
        for day in (1, 2, 3)
    )
    found = tried(0.02, 0.06, trial=replace(TRIAL, looks=looks))
    html = _written(tmp_path, trial=found)
    assert html.count("<svg") == 3
    assert "value over what served" in html
    for text in (
        "trial: inconclusive",
        "What to do",
        found.todo,
        CHALLENGER[:12],
        CHAMPION[:12],
        "1.00<small>0.96 to 1.04, per 1,000 requests",
        "90.0&nbsp;%",
        "Error budget of 2026",
        "0.065",
        f"About {found.more_requests:,} more requests",
    ):
        assert text in html
    passed = _written(tmp_path, trial=tried(0.06))
    assert "promoted." in passed
    assert "What to do" not in passed
    # Without a look there is no boundary to draw.
    assert passed.count("<svg") == 2


def test_it_stands_alone(tmp_path: Path) -> None:
    html = _written(tmp_path)
    assert not re.search(r"<(script|link|img)\b", html)
    assert html.count("<svg") == 2


def test_text_is_escaped(tmp_path: Path) -> None:
    html = _written(tmp_path)
    assert "lift &lt; 0 &amp; not ruled out" in html
    assert "<no cost>" not in html


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    assert _written(tmp_path) == _written(tmp_path)


def test_every_part_of_a_whole_run(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "plots").mkdir()
    (folder / "plots/calibration.csv").write_text("predicted,observed,count\n0.1,0.2,5\n")
    (folder / "plots/train_ranker.csv").write_text(
        "epoch,train_loss,validation_loss,validation_click_auc\n1,0.5,0.6,0.7\n2,0.4,,\n"
    )
    (folder / "plots/finetune_policy.csv").write_text("iteration,reward,kl\n0,1.5,0\n")
    volumes = Validation(
        {"ads": 4321}, {"ads": 3}, {"ads": 0.0007}, {"ads": {"negative price": 3}}, 0
    )
    history = [PastWeek("2026-W03", "switch_dr", 0.1, 0.0, 0.2, "conclusive", 0.94)]
    html = _written(
        folder,
        validation=volumes,
        labels=labels_report(),
        history=history,
        drift="drift.html",
        links={"MLflow": "http://127.0.0.1:5000"},
        facts={"latency p50": "1.5 ms"},
    )
    assert html.count("<svg") == 6
    told = ("94.0&nbsp;%", "81.3&nbsp;%", "Without one conversion: &lt;games&gt;.", "12.5")
    for text in ("4,321", "negative price (3)", 'href="drift.html"', "MLflow", "1.5 ms", *told):
        assert text in html


def test_every_week_of_the_history_says_what_estimated_it(tmp_path: Path) -> None:
    """One week without propensities between two with them: two lines, neither through the third."""
    history = [
        PastWeek("2026-W01", "switch_dr", 0.1, 0.0, 0.2, "conclusive", 0.94),
        PastWeek("2026-W02", "dm", 0.9, None, None, "inconclusive", None),
        PastWeek("2026-W03", "switch_dr", 0.2, 0.1, 0.3, "conclusive", 0.9),
    ]
    html = _written(tmp_path, decision=None, history=history)
    svg = next(part for part in html.split("<svg")[1:] if "2026-W02" in part).partition("</svg>")[0]
    for name in ("Switch-DR", "Direct method (model)"):
        assert f">{name}<" in svg
    rows = re.findall(r"<tr><td>(2026-W0.)</td>.*?<td>([A-Z][^<]+)</td>", html, re.DOTALL)
    assert rows == [
        ("2026-W01", "Switch-DR"),
        ("2026-W02", "Direct method (model)"),
        ("2026-W03", "Switch-DR"),
    ]
    lines = re.findall(r'd="([^"]*)" clip-path[^>]*stroke-width: 1\.4', svg)
    assert ["L" in line for line in lines] == [False, False]


def test_without_propensities_it_says_so(tmp_path: Path) -> None:
    model = _estimate(0.4, verdict="inconclusive", reason="model-based", model_based=True)
    roi = {"logged": roi_estimate(_estimate(0.1)), "dm": roi_estimate(model, model)}
    html = _written(tmp_path, decision=None, report=_report(propensities_logged=False, roi=roi))
    assert "logs no propensities" in html
    assert "ROI of the new policy (model-based)" in html


def test_a_week_without_cost_has_no_roi_and_says_why(tmp_path: Path) -> None:
    nothing = _estimate(None, verdict="inconclusive", reason="cost is not positive")
    roi = {name: roi_estimate(nothing, nothing) for name in ("logged", "dm")}
    html = _written(tmp_path, decision=None, report=_report(propensities_logged=False, roi=roi))
    assert "cost is not positive" in html
    assert "2.500" in html


def test_a_wrong_plot_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/calibration.csv").write_text("predicted,observed\n0.1,many\n")
    with pytest.raises(RoiflowError, match=r"calibration\.csv: expected numbers"):
        _written(tmp_path)
