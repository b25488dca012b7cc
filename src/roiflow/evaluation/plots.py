"""The weekly report's plots, each as the text of an SVG; equal data gives equal bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from roiflow.artefacts.evaluation import PRIMARY, Estimate, Metrics, RoiEstimate
from roiflow.artefacts.trial import Trial
from roiflow.data.weeks import MICROS_PER_DAY, Week

TITLES = {
    "logged": "Logging policy, as it was",
    "ips": "IPS",
    "snips": "Self-normalised IPS",
    "examination": "IPS by looks",
    "mips": "IPS of categories",
    "dr": "Doubly robust",
    "switch_dr": "Switch-DR",
    "shrunk_dr": "Doubly robust, shrunk",
    "dm": "Direct method (model)",
    "rips": "IPS, slate cascade",
    "cascade_dr": "Doubly robust, slate cascade",
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
    maturity: float | None
    """Share of its conversions that was known; None where none went into it."""


def click_auc(metrics: Metrics) -> float:
    """For sorting: a model without one comes last."""
    return metrics.get("test_full_click_auc") or 0.0


def _figure(height: float, width: float = WIDE) -> tuple[Any, Any]:
    # Not pyplot, which keeps every figure and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    return figure, axes


def _svg(figure: Any, name: str) -> str:
    from matplotlib import rc_context

    text = StringIO()
    # Ids come from the salt and no date is written, so that equal data gives equal bytes.
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    # Without the XML declaration and doctype in front, which have no place inside an HTML page.
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
    # Upside down: the first row is the top one.
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.grid(axis="x", color="#e3e7ec", lw=0.8)
    axes.set_axisbelow(True)


def roi_plot(estimates: Mapping[str, RoiEstimate]) -> str:
    """ROI by estimator, each with its interval."""
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


def auc_plot(models: Mapping[str, Metrics], ranker: str) -> str:
    """Click AUC by model, the best on top; `ranker` stands out."""
    auc = "test_full_click_auc"
    rows = [
        (name, value, values[f"{auc}_low"], values[f"{auc}_high"], colour)
        for name, values in sorted(models.items(), key=lambda item: -click_auc(item[1]))
        for colour in [ACCENT if name == ranker else INK]
        if (value := values.get(auc)) is not None
    ]
    figure, axes = _figure(0.7 + 0.34 * max(len(rows), 1))
    _intervals(axes, rows, 1.0)
    axes.set_xlabel("click AUC, test week", fontsize=9)
    return _svg(figure, "auc")


def calibration_plot(curve: Mapping[str, Sequence[float]]) -> str:
    """Observed against predicted click rate, beside the diagonal."""
    figure, axes = _figure(3.2, HALF)
    top = 1.05 * max([*curve["predicted"], *curve["observed"], 1e-6])
    axes.plot([0, top], [0, top], color=MUTED, lw=1, ls="--")
    axes.plot(curve["predicted"], curve["observed"], "o-", color=ACCENT, ms=4.5, lw=1.2)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("predicted click rate", fontsize=9)
    axes.set_ylabel("observed click rate", fontsize=9)
    return _svg(figure, "calibration")


def lines_plot(
    data: Mapping[str, Sequence[float]], x: str, series: Mapping[str, str], label: str
) -> str:
    """Columns of `data` over column `x`; `series` are their names by column."""
    figure, axes = _figure(3.2, HALF)
    for (column, name), colour in zip(series.items(), (INK, ACCENT), strict=False):
        axes.plot(data[x], data[column], "o-", ms=3, lw=1.4, color=colour, label=name)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.grid(color="#e3e7ec", lw=0.8)
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure, label)


def looks_plot(trial: Trial) -> str:
    """What each look at a trial knew of the challenger's lift, and the boundary that it had."""
    looks = [look for look in trial.looks if look.champion]
    if not looks:
        return ""
    figure, axes = _figure(2.8)
    start = Week.parse(trial.week).start
    days = [(look.at - start) / MICROS_PER_DAY for look in looks]

    def percent(name: str) -> list[float]:
        return [100 * getattr(look, name) / abs(look.champion) for look in looks]

    # The whole interval over 0 promotes at once, the whole interval under 0 stops.
    axes.fill_between(days, percent("low"), percent("high"), color=ACCENT, alpha=0.15, lw=0)
    axes.plot(days, percent("low"), color=ACCENT, lw=1)
    axes.plot(days, percent("high"), color=ACCENT, lw=1)
    axes.plot(days, percent("delta"), "o-", color=INK, ms=5, lw=1.4)
    axes.axhline(0, color=INK, lw=0.8)
    for phase in trial.phases:
        day = (phase.since - start) / MICROS_PER_DAY
        axes.axvline(day, color=MUTED, lw=0.8, ls="--")
        axes.annotate(
            f"{100 * phase.share:g} %", (day, 1.0), xycoords=("data", "axes fraction"),
            xytext=(3, -10), textcoords="offset points", fontsize=9, color=INK,
        )  # fmt: skip
    axes.set_xlim(-0.1, 7.1)
    axes.set_xlabel("day of the week", fontsize=9)
    axes.set_ylabel("value over what served, %", fontsize=9)
    return _svg(figure, "looks")


def history_plot(history: Sequence[PastWeek]) -> str:
    """A line for each estimator, broken where a week has another; inconclusive weeks are hollow."""
    figure, axes = _figure(2.8)
    looks = {PRIMARY: ("o", ACCENT), MODEL_BASED: ("s", MUTED)}
    for name in dict.fromkeys(week.estimator for week in history):
        marker, colour = looks.get(name, ("D", INK))
        # NaN breaks the line: to join two estimators' figures would draw a change that is only one
        # of method.
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
