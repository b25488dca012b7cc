"""Decide on what was on trial in the test week, by the log of both arms."""

from pathlib import Path

from roiflow.artefacts.decision import TrialDecision
from roiflow.evaluation.canary import no_trial
from roiflow.files import write_directory
from roiflow.params import load_params
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(features: Path, labels: Path, params: Path, canary: Written) -> None:  # noqa: ARG001
    """Write the decision, and what both packages would have done on every slate of the week."""
    config = load_params(params)
    with write_directory(canary) as aside:
        no_trial(config.ingest.source, config.ingest.week).write(aside / TrialDecision.place.name)


if __name__ == "__main__":
    run(main)
