"""The week's data against the training reference: drift report, and its place in Evidently's UI."""

import gc
import hashlib
from pathlib import Path

from roiflow.artefacts.monitoring import Drift
from roiflow.data.weeks import Week
from roiflow.features import folder as feature_table
from roiflow.labels.model import Labels
from roiflow.monitoring.drift import (
    READ,
    count,
    judge,
    load_watched,
    publish,
    save,
    show,
    week_end,
)
from roiflow.params import Params, load_params
from roiflow.progress import progress
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(features: Path, labels: Path, watched: Path, drift: Written, params: Path) -> None:
    """Write drift.html and drift.json into `drift`, and publish the report.

    Where they are there and were made from the same inputs, nothing is done.
    """
    config = load_params(params)
    model = labels / Labels.place.name
    inputs = inputs_of(features, model, watched, config)
    known = Drift.find(drift / Drift.place.name)
    # Evidently's page has new ids each time it is made: again, it would be another file that says
    # the same.
    if known is not None and known.inputs == inputs:
        return
    with progress("report_drift") as say:
        say(0.0, "compare the week with the training reference")
        table, columns = feature_table.read(features), load_watched(watched)
        counted = count(table, Labels.read(model), columns, config.report_drift.bins)
        found = judge(counted, config.report_drift, inputs)
        say(0.1, "write the report")
        # Evidently makes a million objects as it is imported and draws, and all of them stay: a
        # fifth of its seconds would go into looking for garbage among them.
        gc.disable()
        when = week_end(Week.parse(config.ingest.week).end)
        snapshot = show(found, counted.shares, config.report_drift, when)
        workspace = Settings().home.absolute() / "evidently"
        publish(snapshot, workspace, config.ingest.source, f"Week {config.ingest.week}", found)
        save(snapshot, found, drift)


def inputs_of(features: Path, labels: Path, watched: Path, params: Params) -> str:
    """sha256 over the files that are read, the declaration and the parameters."""
    # Not the whole folder: what the report does not open may change without a new one.
    found = hashlib.sha256(params.report_drift.model_dump_json().encode() + watched.read_bytes())
    for path in (labels, *(features / name for name in READ)):
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


if __name__ == "__main__":
    run(main)
