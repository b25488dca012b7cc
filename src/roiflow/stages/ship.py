"""The package that ships: the refitted models with the judged policy, held against what was judged.

The policy is the judged one. It reads no feature and no id, only what the ranker expects of each
candidate: another fit of the same recipe speaks to it in the same words. Most of a choice is the
softmax of values standardised within the request, which no change of level moves, and the learnt
rest is bounded. Its own training would add chance and a third of a run's time.
"""

import os
from pathlib import Path

import numpy as np

from roiflow.data.split import VALIDATION
from roiflow.evaluation.agreement import agreement as compare
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.features.table import Features, Longs
from roiflow.params import ShipParams, load_params
from roiflow.policy.candidate_sets import first_rows
from roiflow.progress import progress
from roiflow.serving.package import Package
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.stages.export import Sources, make, write


def main(
    features: Path,
    refit: Path,
    policy: Path,
    judged: Path,
    package: Written,
    agreement: Written,
    metrics: Written,
    params: Path,
) -> None:
    """features, refit, policy, judged -> package, and how far it behaves as the judged one.

    The screen refuses what is too far. Raises ParityError where the exported models predict
    otherwise than torch's; then nothing is written.
    """
    config = load_params(params)
    table = feature_store.read(features)
    before = Package.load(judged)
    sources = Sources(features, refit / "candidates", refit / "ranker", policy)
    with progress("ship") as show:
        made = make(sources, table, config, before.digest, show)
        show(0.9, "compare with what was judged")
        shipped = write(made, package, metrics)
        rows = last_requests(table, config.ship)
        threads = len(os.sched_getaffinity(0))
        found = compare(before, shipped, table, open_engine(features), rows, threads)
    found.write(agreement)


def last_requests(features: Features, params: ShipParams) -> Longs:
    """One impression row of each of some requests of the window's last days, drawn at random."""
    late = features.as_of_end().rows(VALIDATION)
    rows = first_rows(features, late)
    chosen = np.random.default_rng(params.seed).permutation(rows.size)[: params.requests]
    return rows[np.sort(chosen)]


if __name__ == "__main__":
    run(main)
