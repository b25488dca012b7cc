"""Train the ROSA ranker and fit what advertisers pay."""

import json
from dataclasses import asdict
from pathlib import Path

from roiflow.data.split import TRAIN
from roiflow.features import folder as feature_store
from roiflow.files import write_directory, write_file
from roiflow.labels.model import Labels
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.ranking.report import metrics as measure
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import Epoch, fit
from roiflow.ranking.value import fit_cost_shares
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    features: Path,
    labels: Path,
    ranker: Written,
    metrics: Written,
    plots: Written,
    params: Path,
) -> None:
    """features, labels -> ranker, its AUCs and its loss by epoch."""
    config = load_params(params).train_ranker
    table, exposure = feature_store.read(features), Labels.read(labels / Labels.place.name)
    with progress("train_ranker") as show:
        trained, epochs = fit(RosaRanker, table, exposure, config, show)
    # Kept with the ranker, because only with them its predictions are money. From the training
    # weeks, as all that the test week judges.
    shares = fit_cost_shares(table, table.rows(TRAIN))
    with write_directory(ranker) as folder:
        trained.write(folder)
        (folder / "cost_shares.json").write_text(json.dumps(asdict(shares), indent=1) + "\n")
    with write_file(metrics) as path:
        path.write_text(json.dumps(measure(table, trained), indent=1) + "\n")
    with write_file(plots) as path:
        path.write_text("\n".join(lines(epochs)) + "\n")


def lines(epochs: list[Epoch]) -> list[str]:
    """The plot as CSV."""
    header = ",".join(Epoch.__dataclass_fields__)
    return [header, *(",".join(map(str, asdict(epoch).values())) for epoch in epochs)]


if __name__ == "__main__":
    run(main)
