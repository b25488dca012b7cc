"""Validated weeks -> indexed, as-known features, the vocabulary and the online snapshot."""

import os
from pathlib import Path

from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.files import write_directory
from roiflow.offline.build import build
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(raw: Path, validated: Path, features: Written, params: Path) -> None:
    """`raw` gives the vocabulary published before; `features` is replaced as a whole."""
    config = load_params(params).build_features
    # Numbers that earlier weeks gave stay with their ids: the gate lets the champion, which was
    # trained with them, read this week's features.
    published = Vocabulary.read(raw / "vocabulary.parquet")
    with progress("build_features") as show, write_directory(features) as folder:
        build(
            Window(validated),
            published,
            config,
            folder,
            threads=len(os.sched_getaffinity(0)),
            progress=show,
        )


if __name__ == "__main__":
    run(main)
