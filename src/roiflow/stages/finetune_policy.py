"""Fine-tune the slate policy on the training weeks' requests.

The state is kept in `checkpoints` beside the policy while it trains, outside of what DVC removes
before a run: a stage that was killed goes on where it was, to the same bytes.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from roiflow.candidates import selector as preselection
from roiflow.data.split import TRAIN, VALIDATION
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.features.table import Features, Longs
from roiflow.files import write_directory, write_file
from roiflow.params import load_params
from roiflow.policy.candidate_sets import first_rows, score_requests
from roiflow.policy.finetune import Finetuned, Point, finetune, forget
from roiflow.progress import progress
from roiflow.ranking.blend import Blend
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.value import load_cost_shares
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    features: Path,
    candidates: Path,
    ranker: Path,
    policy: Written,
    metrics: Written,
    plots: Written,
    params: Path,
) -> None:
    """features, candidates, ranker -> policy, its held-out rewards and its curve."""
    config = load_params(params)
    table = feature_store.read(features)
    rows = training_slates(table, config.finetune_policy.requests, config.finetune_policy.seed)
    checkpoints = policy.parent / "checkpoints" / "finetune_policy"
    with progress("finetune_policy") as show:
        selector = preselection.load(candidates)
        sets = score_requests(
            table,
            open_engine(features),
            selector,
            Blend(RosaRanker.load(ranker), selector, config.finetune_policy.selector_share),
            load_cost_shares(ranker),
            rows=rows,
            k=config.train_candidates.top_k,
            progress=show,
        )
        done = finetune(
            sets,
            config.finetune_policy,
            top_k=config.train_candidates.top_k,
            checkpoints=checkpoints,
            progress=show,
        )
    write(done, policy, metrics, plots)
    # Only now that the policy is in its place: ended between the two, the stage finds its last
    # checkpoint and has little to do.
    forget(checkpoints)


def training_slates(features: Features, limit: int, seed: int) -> Longs:
    """One impression row of each of at most `limit` random slates before the test week."""
    learnt = np.isin(features.impressions.split, (TRAIN, VALIDATION))
    rows = first_rows(features, np.flatnonzero(learnt))
    # At random over all the weeks, then in order again, so that features are read from front to
    # back. Not the test week's: the policy is judged on it.
    chosen = np.random.default_rng(seed).permutation(rows.size)[:limit]
    return rows[np.sort(chosen)]


def write(done: Finetuned, policy: Path, metrics: Path, plots: Path) -> None:
    """The policy last: what DVC trusts is complete."""
    with write_file(plots) as path:
        path.write_text("\n".join(lines(done.curve)) + "\n")
    with write_file(metrics) as path:
        path.write_text(json.dumps(done.metrics, indent=1) + "\n")
    with write_directory(policy) as folder:
        done.policy.save(folder)


def lines(curve: tuple[Point, ...]) -> list[str]:
    """The plot as CSV."""
    header = ",".join(Point.__dataclass_fields__)
    return [header, *(",".join(map(str, asdict(point).values())) for point in curve)]


if __name__ == "__main__":
    run(main)
