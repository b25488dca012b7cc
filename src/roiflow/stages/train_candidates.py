"""Train both kinds of pre-selection; params.yaml says which one is used."""

import json
from pathlib import Path

from roiflow.candidates import selector as preselection
from roiflow.features import folder as feature_store
from roiflow.files import write_directory, write_file
from roiflow.labels.model import Labels
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.ranking.report import metrics as measure
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(features: Path, labels: Path, candidates: Written, metrics: Written, params: Path) -> None:
    """features, labels -> both selectors, the choice between them and their AUCs."""
    config = load_params(params).train_candidates
    table, exposure = feature_store.read(features), Labels.read(labels / Labels.place.name)
    selectors = {}
    with progress("train_candidates") as show:
        # Both, whichever is used: the other is the baseline that the evaluation and the closed loop
        # compare with.
        for number, kind in enumerate(preselection.KINDS):
            show(number / len(preselection.KINDS), kind)
            selectors[kind] = preselection.fit(table, exposure, config, kind)
    with write_directory(candidates) as folder:
        for kind, selector in selectors.items():
            selector.save(folder / kind)
        (folder / preselection.CHOICE).write_text(config.kind + "\n")
    figures = {kind: measure(table, selector) for kind, selector in selectors.items()}
    with write_file(metrics) as path:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
