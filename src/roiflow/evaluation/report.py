"""The weekly report: one HTML file that needs nothing beside it.

It is made from the files of a run alone. Plots are inline SVG, and the same files give the same
bytes.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.evaluation import PRIMARY, ArmEstimate, Estimate, Report
from roiflow.artefacts.labels import LabelsReport
from roiflow.artefacts.validation import Validation
from roiflow.errors import RoiflowError
from roiflow.evaluation import plots
from roiflow.evaluation.plots import PastWeek
from roiflow.files import write_file

UNIT = 1000.0
"""Micros a request, to units of the currency per 1,000 requests."""

TEMPLATE = Path(__file__).with_name("report.html.j2")

ASSUMPTIONS = {
    "logged": "No assumption: on-policy",
    "ips": "A position's reward depends on its own ad only",
    "snips": "A position's reward depends on its own ad only",
    "examination": "As ips, and a lower position is only looked at less",
    "mips": "As examination, and all ads of a category bring the same",
    "dr": "As examination, or the ranker's predictions are right",
    "switch_dr": "As dr; the ranker's predictions where weights are large",
    "shrunk_dr": "As dr; the ranker's predictions the more, the larger the weight",
    "dm": "The ranker's predictions are right",
    "rips": "A position's reward does not depend on the ads below it",
    "cascade_dr": "A position's reward does not depend on the ads below it",
}


@dataclass(frozen=True)
class Told:
    """What a run's report tells; what a run has not got, the page leaves out."""

    source: str
    report: Report
    plots: Path
    """Folder of the CSV files of curves; those that are not there are left out."""
    decision: Decision | None = None
    trial: TrialDecision | None = None
    validation: Validation | None = None
    labels: LabelsReport | None = None
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
    # Strict, so that a name that the page has and the report has not is an error, not a gap.
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        TEMPLATE.read_text()
    )
    # Markup goes around SVG text of our own alone; all else, names of sources and columns included,
    # is escaped.
    html = template.render(
        source=told.source,
        week=report.week,
        report=report,
        decision=decision,
        trial=told.trial if told.trial and told.trial.challenger else None,
        arms=_arms(told.trial),
        todo=_todo(decision, told.trial),
        cards=[*_trial_cards(told.trial), *_cards(report, decision)],
        models=sorted(report.models.items(), key=lambda item: -plots.click_auc(item[1])),
        volumes=_volumes(told.validation),
        labels=told.labels,
        plots={name: Markup(svg) for name, svg in _plots(told).items()},
        primary=PRIMARY,
        titles=plots.TITLES,
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
        # An empty cell is a figure that a stage did not have: NaN leaves a gap in the line.
        return {name: [float(row[name] or "nan") for row in rows] for name in columns}
    except (KeyError, ValueError) as error:
        raise RoiflowError(f"{path}: expected numbers in {list(columns)}: {error}") from None


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
    chosen = PRIMARY if PRIMARY in report.roi else plots.MODEL_BASED
    new, logged = report.roi[chosen], report.roi["logged"]
    over = (decision.comparison if decision else None) or {}
    # The screen's own comparison where there is one: it is over what serves, and the report's lift
    # is over what was logged.
    lift = over[PRIMARY].lift if PRIMARY in over else new.lift
    base = "champion" if PRIMARY in over else "logging policy"
    name = "model-based" if chosen == plots.MODEL_BASED else plots.TITLES[chosen].lower()
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


def _trial_cards(trial: TrialDecision | None) -> list[dict[str, str]]:
    """The headline of what was on trial: its value over what served, and the year's errors left."""
    if trial is None or trial.lift is None or trial.budget is None:
        return []
    lift, budget = trial.lift, trial.budget
    over = "champion" if trial.champion else "what served"
    interval = f"{_percent(lift.low)} to {_percent(lift.high)}, one-sided"
    left = f"of {budget.budget:g} for {budget.year}; {budget.promotions} promotions so far"
    cards = [
        (f"Value on trial, over the {over}", _percent(lift.value), interval),
        ("Error budget left", f"{budget.left:.3f}", left),
    ]
    return [{"label": label, "value": value, "range": text} for label, value, text in cards]


@dataclass(frozen=True)
class ArmRow:
    """One arm of a trial, money per 1,000 requests in units of the currency."""

    name: str
    package: str
    found: ArmEstimate
    value: tuple[float, float, float]
    revenue: float
    cost: float


def _arms(trial: TrialDecision | None) -> list[ArmRow]:
    if trial is None or not trial.estimates:
        return []
    latest = trial.estimates[-1]
    champion = trial.champion[:12] if trial.champion else "the platform's own policy"
    pairs = (
        ("Champion", champion, latest.champion),
        ("Challenger", (trial.challenger or "")[:12], latest.challenger),
    )
    return [
        ArmRow(
            name,
            package,
            one,
            (one.value.value / UNIT, one.value.low / UNIT, one.value.high / UNIT),
            one.revenue / UNIT,
            one.cost / UNIT,
        )
        for name, package, one in pairs
    ]


def _todo(decision: Decision | None, trial: TrialDecision | None) -> list[str]:
    """What to do about a week, in words; empty where nothing is to be done."""
    found = [trial.todo] if trial and trial.todo else []
    if decision and decision.verdict == "fail":
        found.append(f"the new package was refused: {decision.reason}")
    return found


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
        "roi": plots.roi_plot(told.report.roi),
        "auc": plots.auc_plot(told.report.models, told.report.ranker),
        "calibration": plots.calibration_plot(curve) if curve else "",
        "ranker": plots.lines_plot(
            epochs, "epoch", {"train_loss": "training", "validation_loss": "validation"}, "loss"
        )
        if epochs
        else "",
        "policy": plots.lines_plot(steps, "iteration", {"reward": "held-out requests"}, "reward")
        if steps
        else "",
        "history": plots.history_plot(told.history) if told.history else "",
        "looks": plots.looks_plot(told.trial.trial) if told.trial and told.trial.trial else "",
    }
