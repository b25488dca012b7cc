"""Features -> what a label says: delays of what clicks bring, and which positions are looked at."""

from pathlib import Path

from roiflow.features import folder as feature_store
from roiflow.features.vocabulary import Vocabulary
from roiflow.files import write_directory
from roiflow.labels.fit import described, fit
from roiflow.labels.model import Labels
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(features: Path, labels: Written, metrics: Written, params: Path) -> None:
    """features -> labels, and how ripe those of the window are."""
    config = load_params(params).fit_labels
    with progress("fit_labels"):
        table = feature_store.read(features)
        fitted = fit(table, config)
    with write_directory(labels) as folder:
        fitted.labels.write(folder / Labels.place.name)
    ids = Vocabulary.read(features / "vocabulary.parquet").ids("category").to_pylist()
    described(table, fitted, ["of no vocabulary", *ids]).write(metrics)


if __name__ == "__main__":
    run(main)
