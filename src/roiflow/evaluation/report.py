"""The weekly report: one HTML file that needs nothing beside it.

It is made from the files of a run folder alone. Plots are inline SVG, and the same files give the
same bytes.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from roiflow.errors import RoiflowError
from roiflow.evaluation.gate import PRIMARY
from roiflow.files import write_file

TEMPLATE = Path(__file__).with_name("report.html.j2")

TITLES = {
    "logged": "Logging policy, as it was",
    "ips": "IPS",
    "snips": "Self-normalised IPS",
    "dr": "Doubly robust",
    "dm": "Direct method (model)",
    "rips": "IPS, slate cascade",
    "cascade_dr": "Doubly robust, slate cascade",
}
ASSUMPTIONS = {
    "logged": "No assumption: on-policy",
    "ips": "A position's reward depends on its own ad only",
    "snips": "A position's reward depends on its own ad only",
    "dr": "A position's reward depends on its own ad only",
    "dm": "The ranker's predictions are right",
    "rips": "A position's reward does not depend on the ads below it",
    "cascade_dr": "A position's reward does not depend on the ads below it",
}
MODEL_BASED = "dm"
"""What stands in for PRIMARY where no propensities were logged; the two are never one line."""

INK, ACCENT, MUTED = "#1c2430", "#2457a6", "#9aa5b1"
WIDE, HALF = 10.8, 5.2
"""Inches, of 100 pixels on a page of full width."""


@dataclass(frozen=True)
class PastWeek:
    """The new policy's ROI on one test week, and what estimated it."""

    week: str
    estimator: str
    """A key of TITLES."""
    roi: float
    low: float | None
    high: float | None
    verdict: str
    """conclusive or inconclusive."""


def write_report(run_folder: Path, out: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write the report of a run to `out`.

    `run_folder` holds data/evaluation/report.json and, where they were made, data/gate/
    decision.json, metrics/validate.json, data/raw/pulled.json and the plots' CSV files. `extra`
    may hold `source`, `drift` (an address), `links` {label: address}, `facts` {label: text} and
    `history`, a PastWeek a week, oldest first. Raises RoiflowError, naming the file, where the
    evaluation is missing or a file is not as its stage writes it.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    extra = extra or {}
    report = _json(run_folder / "data/evaluation/report.json")
    if report is None:
        raise RoiflowError(f"{run_folder / 'data/evaluation/report.json'}: not there: evaluate")
    decision = _json(run_folder / "data/gate/decision.json")
    pulled = _json(run_folder / "data/raw/pulled.json") or {}
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    plots = _plots(run_folder, report, extra.get("history") or [])
    html = template.render(
        source=extra.get("source") or pulled.get("source", "unnamed source"),
        week=report["week"],
        report=report,
        decision=decision,
        cards=_cards(report, decision),
        models=sorted(report["models"].items(), key=lambda item: -_auc(item[1])),
        volumes=_volumes(_json(run_folder / "metrics/validate.json")),
        plots={name: Markup(svg) for name, svg in plots.items()},
        primary=PRIMARY,
        titles=TITLES,
        history=extra.get("history") or [],
        assumptions=ASSUMPTIONS,
        drift=extra.get("drift"),
        links=extra.get("links") or {},
        facts=extra.get("facts") or {},
    )
    with write_file(out) as path:
        path.write_text(html)


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise RoiflowError(f"{path}: not JSON: {error}") from None
    return content


def _csv(path: Path, columns: Sequence[str]) -> dict[str, list[float]] | None:
    """Columns of numbers; an empty field is NaN."""
    if not path.exists():
        return None
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    try:
        return {name: [float(row[name] or "nan") for row in rows] for name in columns}
    except (KeyError, ValueError) as error:
        raise RoiflowError(f"{path}: expected numbers in {list(columns)}: {error}") from None


def _auc(metrics: Mapping[str, Any]) -> float:
    return metrics.get("test_full_click_auc") or 0.0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def _range(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return str(estimate["reason"])
    if estimate["low"] is None:
        return "no interval"
    text = f"{_percent(estimate['low'])} to {_percent(estimate['high'])}"
    return text if estimate["verdict"] == "conclusive" else f"{text}, inconclusive"


def _cards(report: Mapping[str, Any], decision: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """The headline: ROI, lift and AUC; the direct method stands in without propensities."""
    chosen = PRIMARY if PRIMARY in report["roi"] else MODEL_BASED
    new, logged = report["roi"][chosen], report["roi"]["logged"]
    over = (decision or {}).get("comparison") or {}
    lift = over[PRIMARY]["lift"] if PRIMARY in over else new["lift"]
    base = "champion" if PRIMARY in over else "logging policy"
    name = "model-based" if chosen == MODEL_BASED else TITLES[chosen].lower()
    cards = [
        (f"ROI of the new policy ({name})", _percent(new["roi"]["value"]), _range(new["roi"])),
        ("ROI of the logging policy", _percent(logged["roi"]["value"]), _range(logged["roi"])),
        (f"Lift over the {base}", _percent(lift["value"]), _range(lift)),
    ]
    metrics = report["models"].get(report["ranker"], {})
    for label in ("click", "conversion"):
        auc = f"test_full_{label}_auc"
        value, low, high = (metrics.get(auc + end) for end in ("", "_low", "_high"))
        cards.append(
            (
                f"{label.capitalize()} AUC of {report['ranker']}",
                "–" if value is None else f"{value:.4f}",
                "one class only" if low is None else f"{low:.4f} to {high:.4f}",
            )
        )
    return [{"label": label, "value": value, "range": text} for label, value, text in cards]


def _volumes(validation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if validation is None:
        return []
    return [
        {
            "table": table,
            "rows": rows,
            "quarantined": validation["quarantined"][table],
            "share": validation["quarantined_share"][table],
            "reasons": ", ".join(
                f"{reason} ({count:,})"
                for reason, count in validation["reasons"].get(table, {}).items()
            ),
        }
        for table, rows in validation["rows"].items()
    ]


def _plots(
    run_folder: Path, report: Mapping[str, Any], history: Sequence[PastWeek]
) -> dict[str, str]:
    """SVG text by name, empty where its data is not in the run."""
    plots = run_folder / "plots"
    epochs = _csv(plots / "train_ranker.csv", ("epoch", "train_loss", "validation_loss"))
    steps = _csv(plots / "finetune_policy.csv", ("iteration", "reward"))
    curve = _csv(plots / "calibration.csv", ("predicted", "observed"))
    return {
        "roi": _roi_plot(report["roi"]),
        "auc": _auc_plot(report["models"], report["ranker"]),
        "calibration": _calibration_plot(curve) if curve else "",
        "ranker": _lines_plot(
            epochs, "epoch", {"train_loss": "training", "validation_loss": "validation"}, "loss"
        )
        if epochs
        else "",
        "policy": _lines_plot(steps, "iteration", {"reward": "held-out requests"}, "reward")
        if steps
        else "",
        "history": _history_plot(history) if history else "",
    }


def _figure(height: float, width: float = WIDE) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    from matplotlib import rc_context

    text = StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _intervals(
    axes: Any, rows: Sequence[tuple[str, float, float | None, float | None, str]], scale: float
) -> None:
    """One line a row, the first on top: a point and its interval, with its figure beside it."""
    for place, (_, value, low, high, colour) in enumerate(rows):
        if low is not None and high is not None:
            axes.plot([scale * low, scale * high], [place, place], color=colour, lw=2.2, alpha=0.6)
        axes.plot([scale * value], [place], "o", color=colour, ms=6)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.grid(axis="x", color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)


def _roi_plot(estimates: Mapping[str, Any]) -> str:
    rows = [
        (
            TITLES[name],
            each["roi"]["value"],
            each["roi"]["low"],
            each["roi"]["high"],
            INK
            if name == "logged"
            else ACCENT
            if each["roi"]["verdict"] == "conclusive"
            else MUTED,
        )
        for name, each in estimates.items()
        if each["roi"]["value"] is not None
    ]
    figure, axes = _figure(0.7 + 0.36 * max(len(rows), 1))
    _intervals(axes, rows, 100.0)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel("ROI, %   (grey: inconclusive)", fontsize=9)
    return _svg(figure, "roi")


def _auc_plot(models: Mapping[str, Any], ranker: str) -> str:
    auc = "test_full_click_auc"
    rows = [
        (name, values[auc], values[f"{auc}_low"], values[f"{auc}_high"], colour)
        for name, values in sorted(models.items(), key=lambda item: -_auc(item[1]))
        for colour in [ACCENT if name == ranker else INK]
        if values.get(auc) is not None
    ]
    figure, axes = _figure(0.7 + 0.34 * max(len(rows), 1))
    _intervals(axes, rows, 1.0)
    axes.set_xlabel("click AUC, test week", fontsize=9)
    return _svg(figure, "auc")


def _calibration_plot(curve: Mapping[str, Sequence[float]]) -> str:
    figure, axes = _figure(3.2, HALF)
    top = 1.05 * max([*curve["predicted"], *curve["observed"], 1e-6])
    axes.plot([0, top], [0, top], color=MUTED, lw=1, ls="--")
    axes.plot(curve["predicted"], curve["observed"], "o-", color=ACCENT, ms=4.5, lw=1.2)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("predicted click rate", fontsize=9)
    axes.set_ylabel("observed click rate", fontsize=9)
    return _svg(figure, "calibration")


def _lines_plot(
    data: Mapping[str, Sequence[float]], x: str, series: Mapping[str, str], label: str
) -> str:
    figure, axes = _figure(3.2, HALF)
    for (column, name), colour in zip(series.items(), (INK, ACCENT), strict=False):
        axes.plot(data[x], data[column], "o-", ms=3, lw=1.4, color=colour, label=name)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.grid(color="#e3e7ec", lw=0.8)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, label)


def _history_plot(history: Sequence[PastWeek]) -> str:
    """A line for each estimator, broken where a week has another; inconclusive weeks are hollow."""
    figure, axes = _figure(2.8)
    looks = {PRIMARY: ("o", ACCENT), MODEL_BASED: ("s", MUTED)}
    for name in dict.fromkeys(week.estimator for week in history):
        marker, colour = looks.get(name, ("D", INK))
        own = [100 * week.roi if week.estimator == name else math.nan for week in history]
        axes.plot(
            range(len(own)), own, "-", marker=marker, color=colour, lw=1.4, label=TITLES[name]
        )
        for place, week in enumerate(history):
            if week.estimator == name:
                _point(axes, place, week, marker, colour)
    axes.set_xticks(range(len(history)), [week.week for week in history])
    axes.axhline(0, color=INK, lw=0.8)
    axes.set_ylabel("ROI, %", fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, "history")


def _point(axes: Any, place: int, week: PastWeek, marker: str, colour: str) -> None:
    if week.low is not None and week.high is not None:
        ends = [100 * week.low, 100 * week.high]
        axes.plot([place, place], ends, color=colour, lw=2, alpha=0.5)
    if week.verdict != "conclusive":
        axes.plot([place], [100 * week.roi], marker, color=colour, mfc="white")
