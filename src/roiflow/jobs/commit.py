"""Commit params.yaml and dvc.lock of the run: the lineage key of its model."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from roiflow.files import write_file
from roiflow.params import load_params
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.checkout import Lineage, commit


def main(
    params: Annotated[Path, "the params.yaml of the checkout to commit"], lineage: Written
) -> None:
    """Commit in the checkout that holds `params`; write source, week and commit to `lineage`."""
    ingest = load_params(params).ingest
    made = Lineage(ingest.source, ingest.week, commit(params.absolute().parent))
    with write_file(lineage) as aside:
        aside.write_text(json.dumps(asdict(made), indent=1) + "\n")


if __name__ == "__main__":
    run(main)
