"""What came of the weeks, as tables for the terminal."""

from rich.table import Table

from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.evaluation import PRIMARY, Estimate, Metrics, Report
from roiflow.artefacts.monitoring import Drift
from roiflow.artefacts.parity import ParityReport
from roiflow.artefacts.run import Promoted
from roiflow.demo.weeks import WeekDone


def headline(done: WeekDone) -> str:
    """One line about a finished week."""
    trial, promoted = done.left(TrialDecision), done.left(Promoted)
    outcome = f"version {promoted.version} " + (
        f"is champion (rule: {promoted.rule})" if promoted.promoted else "is not promoted"
    )
    screen = f"screen {_because(done.left(Decision).verdict, done.left(Decision).reason)}"
    tried = f"trial {_because(trial.verdict, trial.reason)}" if trial.challenger else "no trial yet"
    return f"{done.week}: {tried}; {screen}; {outcome}; {done.all_seconds:.0f} s"


def _because(verdict: str, reason: str) -> str:
    return f"{verdict}: {reason}" if reason else verdict


def _tried(trial: TrialDecision) -> str:
    """Verdict and lift of value of what was on trial."""
    if trial.lift is None:
        return trial.verdict
    lift = trial.lift
    return f"{trial.verdict} {lift.value:+.1%} ({lift.low:+.1%} to {lift.high:+.1%})"


def seconds_table(done: list[WeekDone]) -> Table:
    """Seconds by task and week; tasks run side by side, so that `all` is not their sum."""
    table = Table(title="Seconds by task")
    table.add_column("task")
    for one in done:
        table.add_column(one.week, justify="right")
    # Every run is of one DAG, so the first one's tasks are all there are.
    for task in done[0].seconds:
        table.add_row(task, *(f"{one.seconds.get(task, 0.0):.1f}" for one in done))
    table.add_section()
    table.add_row("all", *(f"{one.all_seconds:.1f}" for one in done))
    return table


def interval(value: float | None, low: float | None, high: float | None) -> str:
    """`value (low to high)`; a dash where it is undefined."""
    if value is None:
        return "-"
    return (
        f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
    )


def results_table(done: list[WeekDone]) -> Table:
    """Prediction, estimated ROI and decision, one column a week."""
    table = Table(title="Test week by test week")
    table.add_column("")
    for one in done:
        table.add_column(one.week)
    columns = [results(one) for one in done]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    return table


def results(done: WeekDone) -> dict[str, str]:
    """What one week came to. The direct method stands in where no propensities were logged.

    A source without cost has no ROI; its line shows none.
    """
    report, drift = done.left(Report), done.left(Drift)
    ranker, roi = report.models[report.ranker], report.roi
    # What decides, or its stand-in; a value is missing where nothing was paid.
    estimator = next(
        (name for name in (PRIMARY, "dm") if name in roi and roi[name].roi.value is not None), ""
    )
    policy = f"{_roi(roi[estimator].roi)} {estimator}" if estimator else "- none: no cost"
    return {
        "click AUC": _auc(ranker, "click"),
        "conversion AUC": _auc(ranker, "conversion"),
        "ROI as logged": _roi(roi["logged"].roi),
        "ROI of the policy": policy,
        "conversions known": "-" if report.maturity is None else f"{report.maturity:.1%}",
        "served features": parity(ParityReport.find(done.checkout / ParityReport.place)),
        "value on trial": _tried(done.left(TrialDecision)),
        "screen": done.left(Decision).verdict,
        "drifted columns": f"{drift.drifted_share:.0%} of {len(drift.columns)}",
    }


def _auc(metrics: Metrics, label: str) -> str:
    name = f"test_full_{label}_auc"
    return interval(metrics.get(name), metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))


def _roi(estimate: Estimate) -> str:
    return interval(estimate.value, estimate.low, estimate.high)


def parity(report: ParityReport | None) -> str:
    """Whether the week's slates were made from the features that training sees."""
    if report is None:
        return "not checked"
    compared = sum(one.compared for one in report.compared)
    return f"{report.verdict}, {compared:,} slates" if compared else str(report.verdict)
