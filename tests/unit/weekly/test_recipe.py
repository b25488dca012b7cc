"""What makes a recipe another one, and what does not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from roiflow.errors import RunError
from roiflow.weekly.recipe import TRAINING, recipe_of
from roiflow.weekly.steps import read_stages

ROOT = Path(__file__).parents[3]


def lock(**stages: Any) -> dict[str, Any]:
    """A dvc.lock of all that trains, and of the evaluation."""
    whole = {
        name: {
            "cmd": f"python -m roiflow.stages.{name}",
            "deps": [
                {"path": "data/features", "md5": "data", "size": 1},
                {"path": f"src/roiflow/stages/{name}.py", "md5": "code", "size": 1},
            ],
            "params": {"params.yaml": {f"{name}.seed": 7}},
            "outs": [{"path": f"data/{name}", "md5": "out", "size": 1}],
        }
        for name in (*TRAINING, "evaluate")
    }
    return {"schema": "2.0", "stages": {**whole, **stages}}


def digest(folder: Path, content: dict[str, Any]) -> str:
    path = folder / "dvc.lock"
    path.write_text(yaml.safe_dump(content))
    return recipe_of(path)


def changed(stage: str, **more: Any) -> dict[str, Any]:
    return lock(**{stage: {**lock()["stages"][stage], **more}})


def test_another_week_of_data_is_the_same_recipe(tmp_path: Path) -> None:
    same = digest(tmp_path, lock())
    deps = [{**one, "md5": "other"} for one in lock()["stages"]["train_ranker"]["deps"][:1]]
    deps += lock()["stages"]["train_ranker"]["deps"][1:]
    outs = [{"path": "data/ranker", "md5": "new", "size": 2}]
    assert digest(tmp_path, changed("train_ranker", deps=deps, outs=outs)) == same
    # What only judges makes no other model.
    assert digest(tmp_path, changed("evaluate", params={"params.yaml": {"x": 1}})) == same


@pytest.mark.parametrize("stage", TRAINING)
def test_another_number_or_other_code_is_another(stage: str, tmp_path: Path) -> None:
    code = [{"path": f"src/roiflow/stages/{stage}.py", "md5": "other", "size": 1}]
    found = {
        digest(tmp_path, lock()),
        digest(tmp_path, changed(stage, params={"params.yaml": {f"{stage}.seed": 8}})),
        digest(tmp_path, changed(stage, deps=code)),
    }
    assert len(found) == 3


def test_a_stage_that_was_not_run_is_named(tmp_path: Path) -> None:
    content = lock()
    del content["stages"]["refit"]
    with pytest.raises(RunError, match=r"dvc\.lock: no 'refit': run the stages first"):
        digest(tmp_path, content)
    with pytest.raises(RunError, match="none: No such file"):
        recipe_of(tmp_path / "none")


def test_what_trains_is_in_the_pipeline() -> None:
    assert set(TRAINING) < {stage.name for stage in read_stages(ROOT / "dvc.yaml")}
