"""Go on with what was judged on the last week: the same models, another week later.

The judged models trained on what came before the test week, and stopped and were calibrated on its
last days. These train on all but the window's last days, with every label as it is known now, and
are calibrated on those. Nothing of their own is chosen anew: the ranker goes on from the judged
weights, which have seen most of the rows, and trees are as many as were judged. Trained anew, the
ranker takes longer and is worth less (docs/policy.md).
"""

import json
from dataclasses import asdict
from pathlib import Path

from roiflow.candidates import selector as preselection
from roiflow.data.split import TRAIN
from roiflow.features import folder as feature_store
from roiflow.files import write_directory, write_file
from roiflow.labels.model import Labels
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import go_on
from roiflow.ranking.value import fit_cost_shares
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    features: Path,
    labels: Path,
    candidates: Path,
    ranker: Path,
    refit: Written,
    metrics: Written,
    params: Path,
) -> None:
    """features, labels, candidates, ranker -> refit, with its validation loss and AUC."""
    config = load_params(params)
    table = feature_store.read(features).as_of_end()
    exposure = Labels.read(labels / Labels.place.name)
    with progress("refit") as show:
        judged = preselection.load(candidates)
        show(0.0, judged.kind)
        selector = preselection.refit(judged, table, exposure, config.train_candidates)
        before = RosaRanker.load(ranker)
        trained, epochs = go_on(before, table, exposure, config.train_ranker, config.refit, show)
    shares = fit_cost_shares(table, table.rows(TRAIN))
    with write_directory(refit) as folder:
        # As the stages of the judged ones leave them, so that they are read alike.
        for name in ("candidates", "ranker"):
            (folder / name).mkdir()
        selector.save(folder / "candidates" / judged.kind)
        (folder / "candidates" / preselection.CHOICE).write_text(judged.kind + "\n")
        trained.write(folder / "ranker")
        content = json.dumps(asdict(shares), indent=1)
        (folder / "ranker" / "cost_shares.json").write_text(content + "\n")
    best = min(epochs, key=lambda line: line.validation_loss)
    figures = {"train_rows": int(table.rows(TRAIN).size), **asdict(best)}
    with write_file(metrics) as path:
        path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
