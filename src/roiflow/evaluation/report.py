"""The weekly report: one HTML file that needs nothing beside it.

It is made from the files of a run alone. Plots are inline SVG, and the same files give the same
bytes.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.evaluation import Estimate, Metrics, Report, RoiEstimate
from roiflow.artefacts.validation import Validation
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


@dataclass(frozen=True)
class Told:
    """What a run's report tells; what a run has not got, the page leaves out."""

    source: str
    report: Report
    plots: Path
    """Folder of the CSV files of curves; those that are not there are left out."""
    decision: Decision | None = None
    validation: Validation | None = None
    drift: str | None = None
    """Address of the drift report."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses by label."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the run, by label."""
    history: Sequence[PastWeek] = ()
    """The oldest first."""


def write_report(out: Path, told: Told) -> None:
    """Write the page. Raises RoiflowError, naming the file, where a plot's CSV is none."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    report, decision = told.report, told.decision
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    html = template.render(
        source=told.source,
        week=report.week,
        report=report,
        decision=decision,
        cards=_cards(report, decision),
        models=sorted(report.models.items(), key=lambda item: -_auc(item[1])),
        volumes=_volumes(told.validation),
        plots={name: Markup(svg) for name, svg in _plots(told).items()},
        primary=PRIMARY,
        titles=TITLES,
        history=told.history,
        assumptions=ASSUMPTIONS,
        drift=told.drift,
        links=told.links,
        facts=told.facts,
    )
    with write_file(out) as path:
        path.write_text(html)


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


def _auc(metrics: Metrics) -> float:
    return metrics.get("test_full_click_auc") or 0.0


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:+.1f} %"


def _range(estimate: Estimate) -> str:
    if estimate.value is None:
        return estimate.reason
    if estimate.low is None:
        return "no interval"
    text = f"{_percent(estimate.low)} to {_percent(estimate.high)}"
    return text if estimate.verdict == "conclusive" else f"{text}, inconclusive"


def _cards(report: Report, decision: Decision | None) -> list[dict[str, str]]:
    """The headline: ROI, lift and AUC; the direct method stands in without propensities."""
    chosen = PRIMARY if PRIMARY in report.roi else MODEL_BASED
    new, logged = report.roi[chosen], report.roi["logged"]
    over = (decision.comparison if decision else None) or {}
    lift = over[PRIMARY].lift if PRIMARY in over else new.lift
    base = "champion" if PRIMARY in over else "logging policy"
    name = "model-based" if chosen == MODEL_BASED else TITLES[chosen].lower()
    cards = [
        (f"ROI of the new policy ({name})", _percent(new.roi.value), _range(new.roi)),
        ("ROI of the logging policy", _percent(logged.roi.value), _range(logged.roi)),
        (f"Lift over the {base}", _percent(lift.value), _range(lift)),
    ]
    metrics = report.models.get(report.ranker, {})
    for label in ("click", "conversion"):
        auc = f"test_full_{label}_auc"
        value, low, high = (metrics.get(auc + end) for end in ("", "_low", "_high"))
        cards.append(
            (
                f"{label.capitalize()} AUC of {report.ranker}",
                "–" if value is None else f"{value:.4f}",
                "one class only" if low is None else f"{low:.4f} to {high:.4f}",
            )
        )
    return [{"label": label, "value": value, "range": text} for label, value, text in cards]


@dataclass(frozen=True)
class Volume:
    """Rows of one table, and what the contract set aside."""

    table: str
    rows: int
    quarantined: int
    share: float
    reasons: str


def _volumes(found: Validation | None) -> list[Volume]:
    if found is None:
        return []
    return [
        Volume(
            table,
            rows,
            found.quarantined[table],
            found.quarantined_share[table],
            ", ".join(
                f"{reason} ({count:,})" for reason, count in found.reasons.get(table, {}).items()
            ),
        )
        for table, rows in found.rows.items()
    ]


def _plots(told: Told) -> dict[str, str]:
    """SVG text by name, empty where its data is not in the run."""
    epochs = _csv(told.plots / "train_ranker.csv", ("epoch", "train_loss", "validation_loss"))
    steps = _csv(told.plots / "finetune_policy.csv", ("iteration", "reward"))
    curve = _csv(told.plots / "calibration.csv", ("predicted", "observed"))
    return {
        "roi": _roi_plot(told.report.roi),
        "auc": _auc_plot(told.report.models, told.report.ranker),
        "calibration": _calibration_plot(curve) if curve else "",
        "ranker": _lines_plot(
            epochs, "epoch", {"train_loss": "training", "validation_loss": "validation"}, "loss"
        )
        if epochs
        else "",
        "policy": _lines_plot(steps, "iteration", {"reward": "held-out requests"}, "reward")
        if steps
        else "",
        "history": _history_plot(told.history) if told.history else "",
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


def _roi_plot(estimates: Mapping[str, RoiEstimate]) -> str:
    rows = [
        (TITLES[name], each.roi.value, each.roi.low, each.roi.high, _colour(name, each.roi))
        for name, each in estimates.items()
        if each.roi.value is not None
    ]
    figure, axes = _figure(0.7 + 0.36 * max(len(rows), 1))
    _intervals(axes, rows, 100.0)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_xlabel("ROI, %   (grey: inconclusive)", fontsize=9)
    return _svg(figure, "roi")


def _colour(name: str, estimate: Estimate) -> str:
    if name == "logged":
        return INK
    return ACCENT if estimate.verdict == "conclusive" else MUTED


def _auc_plot(models: Mapping[str, Metrics], ranker: str) -> str:
    auc = "test_full_click_auc"
    rows = [
        (name, value, values[f"{auc}_low"], values[f"{auc}_high"], colour)
        for name, values in sorted(models.items(), key=lambda item: -_auc(item[1]))
        for colour in [ACCENT if name == ranker else INK]
        if (value := values.get(auc)) is not None
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
