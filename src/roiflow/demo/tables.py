"""What came of the weeks, as tables for the terminal."""

from typing import Any

from rich.table import Table

from roiflow.demo.weeks import WeekDone
from roiflow.jobs.gate import PARITY


def headline(done: WeekDone) -> str:
    """One line about a finished week."""
    decision = done.json("data/gate/decision.json")
    promoted = done.json("data/promoted.json")
    outcome = f"version {promoted['version']} " + (
        f"is champion (rule: {promoted['rule']})" if promoted["promoted"] else "is not promoted"
    )
    reason = f": {decision['reason']}" if decision["reason"] else ""
    return f"{done.week}: gate {decision['verdict']}{reason}; {outcome}; {done.all_seconds:.0f} s"


def seconds_table(done: list[WeekDone]) -> Table:
    """Seconds by task and week; tasks run side by side, so that `all` is not their sum."""
    table = Table(title="Seconds by task")
    table.add_column("task")
    for one in done:
        table.add_column(one.week, justify="right")
    for task in done[0].seconds:
        table.add_row(task, *(f"{one.seconds.get(task, 0.0):.1f}" for one in done))
    table.add_section()
    table.add_row("all", *(f"{one.all_seconds:.1f}" for one in done))
    return table


def interval(values: dict[str, Any], name: str) -> str:
    """`value (low to high)` of a metric and its bounds; a dash where it is undefined."""
    value, low, high = (values.get(key) for key in (name, f"{name}_low", f"{name}_high"))
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
    metrics = done.json("metrics/evaluate.json")
    ranker, roi = metrics["models"]["rosa"], metrics["roi"]
    estimator = next((name for name in ("dr", "dm") if roi.get(name)), "none: no cost")
    drift = done.json("data/drift/drift.json")
    return {
        "click AUC": interval(ranker, "test_full_click_auc"),
        "conversion AUC": interval(ranker, "test_full_conversion_auc"),
        "ROI as logged": interval(roi.get("logged", {}), "roi"),
        "ROI of the policy": f"{interval(roi.get(estimator, {}), 'roi')} {estimator}",
        "served features": parity(done),
        "gate": done.json("data/gate/decision.json")["verdict"],
        "drifted columns": f"{drift['drifted_share']:.0%} of {len(drift['columns'])}",
    }


def parity(done: WeekDone) -> str:
    """Whether the week's slates were made from the features that training sees."""
    if not (done.checkout / PARITY).exists():
        return "not checked"
    report = done.json(str(PARITY))
    compared = sum(one.get("compared", 0) for one in report["packages"])
    return f"{report['verdict']}, {compared:,} slates" if compared else str(report["verdict"])
