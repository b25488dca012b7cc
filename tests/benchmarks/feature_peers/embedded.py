"""The engine under test: the whole stage, from validated weeks to features and online snapshot."""

import os
from pathlib import Path

from roiflow.features.plan import Plan
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import build
from roiflow.params import FeaturesParams

PARAMS = FeaturesParams(
    history_length=50,
    prior_strength=20.0,
    validation_days=2,
    run_up_days=0,
    min_count=1,
    traffic=[],
)


def run(folder: Path, _: Plan, out: Path) -> None:
    """The features folder into `out`."""
    build(Window(folder), Vocabulary({}), PARAMS, out, threads=int(os.environ["PEER_THREADS"]))
