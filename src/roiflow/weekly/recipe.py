"""How a model is made, whatever the week: the training's code and parameters, as one digest.

Two packages of one recipe differ by their data alone. The second is a refresh of the first, of
which less is asked than of a new recipe (evaluation.trial).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from roiflow.artefacts.record import canonical_digest
from roiflow.errors import RunError

TRAINING = (
    "build_features", "fit_labels", "train_candidates", "train_ranker", "finetune_policy",
    "export", "refit", "ship",
)  # fmt: skip
"""The stages that a package comes out of."""
CODE = "src/"


def recipe_of(lock: Path) -> str:
    """Digest of the recipe by which a run was made, from its dvc.lock.

    Raises RunError, naming the stage, where one of TRAINING was not run.
    """
    try:
        stages = yaml.safe_load(lock.read_text())["stages"]
        return canonical_digest({name: _made_by(stages[name]) for name in TRAINING})
    except OSError as error:
        raise RunError(f"{lock}: {error.strerror}") from None
    except KeyError as missing:
        raise RunError(f"{lock}: no {missing}: run the stages first") from None


def _made_by(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage without its data: what it was told, and the code that it runs."""
    code = {one["path"]: one.get("md5") for one in stage.get("deps", ())}
    return {
        "code": {path: md5 for path, md5 in code.items() if path.startswith(CODE)},
        "params": stage.get("params", {}),
    }
