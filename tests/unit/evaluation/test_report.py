"""The weekly report says what the run's files say, and stands alone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from roiflow.errors import RoiflowError
from roiflow.evaluation.report import PastWeek, write_report


def _estimate(value: float | None, **more: Any) -> dict[str, Any]:
    spread = {"low": None, "high": None} if value is None else {"low": value - 0.1, "high": 0.9}
    return {
        "value": value,
        **spread,
        "verdict": "conclusive",
        "reason": "",
        "model_based": False,
        "diagnostics": None,
        **more,
    }


MONEY = {"revenue_per_slate_micros": 2.5e6, "cost_per_slate_micros": 1.25e6}
WEIGHTS = {
    "rows": 80,
    "effective_sample_size": 321.0,
    "max_weight": 7.5,
    "mean_weight": 1.02,
    "support": 1.0,
}


def _report(**more: Any) -> dict[str, Any]:
    model = {
        f"test_full_{label}_{metric}": 0.7
        for label in ("click", "conversion")
        for metric in ("auc", "auc_low", "auc_high", "gauc", "log_loss", "ece", "pcoc", "ndcg_at_5")
    }
    estimate = _estimate(0.321, diagnostics=WEIGHTS)
    return {
        "week": "2026-W04",
        "ranker": "rosa",
        "impressions": {"train": 1234, "validation": 10, "test": 5678},
        "slates": {"whole": 90, "with_propensities": 90, "evaluated": 80},
        "propensities_logged": True,
        "models": {"rosa": model, "popularity": {**model, "test_full_conversion_auc": None}},
        "position_factors": [1.0, 0.6],
        "roi": {
            "logged": {"roi": _estimate(0.111), "lift": _estimate(0.0), **MONEY},
            "dr": {"roi": estimate, "lift": _estimate(0.222), **MONEY},
            "dm": {"roi": _estimate(None, reason="<no cost>"), "lift": _estimate(None), **MONEY},
        },
        "policy": {"test_policy_arp": 10.0, "test_policy_coverage": 0.5},
        "suspected_leak": {"predictions": [], "roi": []},
        **more,
    }


DECISION = {
    "verdict": "inconclusive",
    "promote": True,
    "rule": "first model",
    "reason": "lift < 0 & not ruled out",
    "checks": [
        {
            "name": "roi_lift",
            "value": 0.2,
            "low": -0.1,
            "high": 0.5,
            "threshold": 0.0,
            "verdict": "inconclusive",
            "reason": "spans 0",
        }
    ],
    "challenger": "c" * 64,
    "champion": None,
    "override": None,
    "digest": "d" * 64,
    "comparison": None,
}


def _run(folder: Path, report: dict[str, Any], decision: dict[str, Any] | None = None) -> Path:
    files: dict[str, Any] = {"data/evaluation/report.json": report}
    if decision:
        files["data/gate/decision.json"] = decision
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def _written(folder: Path, **extra: Any) -> str:
    out = folder / "report.html"
    write_report(folder, out, extra)
    return out.read_text()


def test_the_headline(tmp_path: Path) -> None:
    html = _written(_run(tmp_path, _report(), DECISION), source="simulator")
    assert "Week 2026-W04, simulator" in html
    assert 'class="badge inconclusive"' in html
    for figure in ("+32.1 %", "+11.1 %", "+22.2 %", "0.7000", "321", "5,678", "cccccccccccc"):
        assert figure in html
    assert "Promoted by: first model" in html


def test_it_stands_alone(tmp_path: Path) -> None:
    html = _written(_run(tmp_path, _report(), DECISION))
    assert not re.search(r"<(script|link|img)\b", html)
    assert html.count("<svg") == 2


def test_text_is_escaped(tmp_path: Path) -> None:
    html = _written(_run(tmp_path, _report(), DECISION))
    assert "lift &lt; 0 &amp; not ruled out" in html
    assert "<no cost>" not in html


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    folder = _run(tmp_path, _report(), DECISION)
    assert _written(folder) == _written(folder)


def test_every_part_of_a_whole_run(tmp_path: Path) -> None:
    folder = _run(tmp_path, _report(), DECISION)
    (folder / "plots").mkdir()
    (folder / "metrics").mkdir()
    (folder / "plots/calibration.csv").write_text("predicted,observed,count\n0.1,0.2,5\n")
    (folder / "plots/train_ranker.csv").write_text(
        "epoch,train_loss,validation_loss,validation_click_auc\n1,0.5,0.6,0.7\n2,0.4,,\n"
    )
    (folder / "plots/finetune_policy.csv").write_text("iteration,reward,kl\n0,1.5,0\n")
    volumes = {
        "rows": {"ads": 4321},
        "quarantined": {"ads": 3},
        "quarantined_share": {"ads": 0.0007},
        "reasons": {"ads": {"negative price": 3}},
    }
    (folder / "metrics/validate.json").write_text(json.dumps(volumes))
    history = [PastWeek("2026-W03", "dr", 0.1, 0.0, 0.2, "conclusive")]
    html = _written(
        folder,
        history=history,
        drift="drift.html",
        links={"MLflow": "http://127.0.0.1:5000"},
        facts={"latency p50": "1.5 ms"},
    )
    assert html.count("<svg") == 6
    for text in ("4,321", "negative price (3)", 'href="drift.html"', "MLflow", "1.5 ms"):
        assert text in html


def test_every_week_of_the_history_says_what_estimated_it(tmp_path: Path) -> None:
    """One week without propensities between two with them: two lines, neither through the third."""
    history = [
        PastWeek("2026-W01", "dr", 0.1, 0.0, 0.2, "conclusive"),
        PastWeek("2026-W02", "dm", 0.9, None, None, "inconclusive"),
        PastWeek("2026-W03", "dr", 0.2, 0.1, 0.3, "conclusive"),
    ]
    html = _written(_run(tmp_path, _report()), history=history)
    svg = next(part for part in html.split("<svg")[1:] if "2026-W02" in part).partition("</svg>")[0]
    for name in ("Doubly robust", "Direct method (model)"):
        assert f">{name}<" in svg
    rows = re.findall(r"<tr><td>(2026-W0.)</td>.*?<td>([A-Z][^<]+)</td>", html, re.DOTALL)
    assert rows == [
        ("2026-W01", "Doubly robust"),
        ("2026-W02", "Direct method (model)"),
        ("2026-W03", "Doubly robust"),
    ]
    lines = re.findall(r'd="([^"]*)" clip-path[^>]*stroke-width: 1\.4', svg)
    assert ["L" in line for line in lines] == [False, False]


def test_without_propensities_it_says_so(tmp_path: Path) -> None:
    model = _estimate(0.4, verdict="inconclusive", reason="model-based", model_based=True)
    roi = {
        "logged": {"roi": _estimate(0.1), "lift": _estimate(0.0), **MONEY},
        "dm": {"roi": model, "lift": model, **MONEY},
    }
    html = _written(_run(tmp_path, _report(propensities_logged=False, roi=roi)))
    assert "logs no propensities" in html
    assert "ROI of the new policy (model-based)" in html


def test_a_week_without_cost_has_no_roi_and_says_why(tmp_path: Path) -> None:
    nothing = _estimate(None, verdict="inconclusive", reason="cost is not positive")
    roi = {name: {"roi": nothing, "lift": nothing, **MONEY} for name in ("logged", "dm")}
    html = _written(_run(tmp_path, _report(propensities_logged=False, roi=roi)))
    assert "cost is not positive" in html
    assert "2.500" in html


def test_no_evaluation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RoiflowError, match=r"report\.json: not there"):
        write_report(tmp_path, tmp_path / "report.html")


def test_a_wrong_plot_file_is_named(tmp_path: Path) -> None:
    folder = _run(tmp_path, _report())
    (folder / "plots").mkdir()
    (folder / "plots/calibration.csv").write_text("predicted,observed\n0.1,many\n")
    with pytest.raises(RoiflowError, match=r"calibration\.csv: expected numbers"):
        _written(folder)
