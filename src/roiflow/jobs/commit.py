"""Commit params.yaml and dvc.lock of the run: the lineage key of its model."""

from pathlib import Path
from typing import Annotated

from roiflow.artefacts.run import Lineage
from roiflow.params import load_params
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.checkout import commit
from roiflow.weekly.recipe import recipe_of

LOCK = "dvc.lock"
"""DVC's own name, beside params.yaml."""


def main(
    params: Annotated[Path, "the params.yaml of the checkout to commit"], lineage: Written
) -> None:
    """Commit in the checkout that holds `params`; write source, week, commit and recipe to
    `lineage`.
    """
    ingest = load_params(params).ingest
    checkout = params.absolute().parent
    recipe = recipe_of(checkout / LOCK)
    Lineage(ingest.source, ingest.week, commit(checkout), recipe).write(lineage)


if __name__ == "__main__":
    run(main)
