"""Compiled trees against XGBoost itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from roiflow.candidates.forest import Forest
from roiflow.errors import PackageError


def booster(folder: Path, **params: object) -> tuple[xgboost.Booster, Path]:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(2000, 6)).astype(np.float32)
    data[rng.random(data.shape) < 0.2] = np.nan
    data[:, 5] = np.round(data[:, 5])
    label = np.nan_to_num(data[:, 0] * data[:, 1] + data[:, 5]) + rng.normal(size=2000) > 0.5
    options = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1, **params}
    trained = xgboost.train(options, xgboost.DMatrix(data, label, nthread=1), num_boost_round=30)
    path = folder / "model.json"
    trained.save_model(path)
    return trained, path


def test_equal_to_xgboost_with_missing_values_and_ties(tmp_path: Path) -> None:
    trained, path = booster(tmp_path)
    forest = Forest.load(path)
    rng = np.random.default_rng(1)
    data = (np.round(rng.normal(size=(5000, 6)) * 4) / 4).astype(np.float32)
    data[rng.random(data.shape) < 0.3] = np.nan
    data[:200, : forest.feature.max() + 1] = forest.threshold[forest.left >= 0][0]  # on a split
    expected = trained.inplace_predict(data)
    np.testing.assert_allclose(forest.inplace_predict(data), expected, rtol=1e-6)
    assert expected.std() > 0.1


def test_one_tree_by_hand() -> None:
    """x0 < 1 (missing goes left): -1, else 2; base 0.5 is margin 0."""
    forest = Forest(
        starts=np.array([0], np.int32),
        left=np.array([1, -1, -1], np.int32),
        right=np.array([2, -1, -1], np.int32),
        feature=np.zeros(3, np.int32),
        threshold=np.array([1, -1, 2], np.float32),
        missing_left=np.array([True, False, False]),
        base=np.float32(0),
        width=1,
        content=b"",
    )
    found = forest.inplace_predict(np.array([[0.5], [1], [np.nan]], np.float32))
    np.testing.assert_allclose(found, 1 / (1 + np.exp([1, -2, 1])), rtol=1e-6)


def test_no_tree_is_the_base_rate(tmp_path: Path) -> None:
    trained, path = booster(tmp_path)
    empty = trained[:1]
    empty.save_model(path)
    content = json.loads(path.read_text())
    content["learner"]["gradient_booster"]["model"]["trees"] = []
    content["learner"]["learner_model_param"]["base_score"] = "[2.5E-1]"
    path.write_text(json.dumps(content))
    found = Forest.load(path).inplace_predict(np.zeros((3, 6), np.float32))
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


def test_saved_again_it_is_the_same_file(tmp_path: Path) -> None:
    _, path = booster(tmp_path)
    Forest.load(path).save_model(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_another_objective_is_named(tmp_path: Path) -> None:
    _, path = booster(tmp_path, objective="reg:squarederror")
    with pytest.raises(PackageError, match=r"model\.json: objective 'reg:squarederror'"):
        Forest.load(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"learner": {"objective": {}}}'])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "click.json"
    path.write_text(content)
    with pytest.raises(PackageError, match=r"click\.json: cannot be read"):
        Forest.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"click\.json: No such file"):
        Forest.load(tmp_path / "click.json")
