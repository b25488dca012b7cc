"""The week's data against the training reference: drift report, and its place in Evidently's UI."""

import hashlib
from pathlib import Path

from roiflow.artefacts.monitoring import Drift
from roiflow.data.weeks import Week
from roiflow.features import folder as feature_table
from roiflow.monitoring.drift import (
    compare,
    load_watched,
    publish,
    save,
    summary,
    week_end,
)
from roiflow.params import Params, load_params
from roiflow.progress import progress
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(features: Path, watched: Path, drift: Written, params: Path) -> None:
    """Write drift.html and drift.json into `drift`, and publish the report.

    Where they are there and were made from the same inputs, nothing is done.
    """
    config = load_params(params)
    inputs = inputs_of(features, watched, config)
    known = Drift.find(drift / Drift.place.name)
    if known is not None and known.inputs == inputs:
        return
    with progress("report_drift") as show:
        show(0.0, "compare the week with the training reference")
        table = feature_table.read(features)
        when = week_end(Week.parse(config.ingest.week).end)
        snapshot = compare(table, config.report_drift, load_watched(watched), when)
        show(0.7, "write the report")
        found = summary(snapshot, table, config.report_drift, inputs)
        workspace = Settings().home.absolute() / "evidently"
        publish(snapshot, workspace, config.ingest.source, f"Week {config.ingest.week}", found)
        save(snapshot, found, drift)


def inputs_of(features: Path, watched: Path, params: Params) -> str:
    """sha256 over the features' files, the declaration and the parameters."""
    found = hashlib.sha256(params.report_drift.model_dump_json().encode() + watched.read_bytes())
    for path in sorted(path for path in features.rglob("*") if path.is_file()):
        found.update(path.relative_to(features).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


if __name__ == "__main__":
    run(main)
