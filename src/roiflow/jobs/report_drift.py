"""The week's data against the training reference: drift report, and its place in Evidently's UI."""

from pathlib import Path

from roiflow import features as feature_table
from roiflow.data.weeks import Week
from roiflow.monitoring.drift import (
    compare,
    load_watched,
    publish,
    save,
    summary,
    week_end,
)
from roiflow.params import load_params
from roiflow.settings import Settings
from roiflow.stages.command import run


def main(features: Path, watched: Path, drift: Path, params: Path) -> None:
    """Write drift.html and drift.json into `drift`, and publish the report."""
    config = load_params(params)
    table = feature_table.read(features)
    when = week_end(Week.parse(config.ingest.week).end)
    snapshot = compare(table, config.report_drift, load_watched(watched), when)
    found = summary(snapshot, table, config.report_drift)
    save(snapshot, found, drift)
    workspace = Settings().home.absolute() / "evidently"
    publish(snapshot, workspace, config.ingest.source, f"Week {config.ingest.week}", found)


if __name__ == "__main__":
    run(main)
