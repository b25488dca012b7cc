"""Compiled trees against XGBoost itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from roiflow.candidates.design import Rows
from roiflow.candidates.forest import WORDS, Booster, Forest
from roiflow.errors import PackageError
from roiflow.features.table import Singles


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


def margins_of(trained: xgboost.Booster, data: Singles) -> Singles:
    return np.asarray(trained.inplace_predict(data, predict_type="margin"))


def rows_of(data: Singles) -> Rows:
    """The last three columns are codes."""
    return Rows(
        np.ascontiguousarray(data[:, :-3]), np.ascontiguousarray(data[:, -3:]).astype(np.int32)
    )


def draw(rows: int) -> Singles:
    """Values with ties and gaps; those of the codes are whole."""
    rng = np.random.default_rng(1)
    data = (np.round(rng.normal(size=(rows, 6)) * 4) / 4).astype(np.float32)
    data[rng.random(data.shape) < 0.3] = np.nan
    data[:, 3:] = rng.integers(-2, 3, size=(rows, 3))
    return data


@pytest.mark.parametrize("depth", [1, 4, 6])
@pytest.mark.parametrize("rows", [1, 127, 128, 5000])
def test_equal_to_xgboost_with_missing_values_and_ties(
    tmp_path: Path, depth: int, rows: int
) -> None:
    trained, path = booster(tmp_path, max_depth=depth, min_child_weight=0)
    forest = Forest.of([Booster.load(path)])
    data = draw(rows)
    data[: rows // 9, :3] = forest.splits.threshold[0]  # on a split
    expected = margins_of(trained, data)
    (found,) = forest.margins(rows_of(data))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert forest.word is WORDS[64 if depth == 6 else 32]
    assert rows < 5000 or expected.std() > 0.1


@pytest.mark.parametrize("group", [3, 128, 500])
def test_a_requests_rows_share_what_their_user_decides(tmp_path: Path, group: int) -> None:
    trained, path = booster(tmp_path)
    data = draw(6 * group)
    data[:, [0, 1, 3]] = np.repeat(data[::group, [0, 1, 3]], group, axis=0)
    (found,) = Forest.of([Booster.load(path)]).margins(rows_of(data))
    np.testing.assert_allclose(found, margins_of(trained, data), rtol=0, atol=1e-6)


def test_outcomes_keep_their_own_trees(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    one, path = booster(tmp_path, max_depth=3)
    other, few = booster(tmp_path / "few", max_depth=6, learning_rate=0.9)
    data = draw(300)
    found = Forest.of([Booster.load(path), Booster.load(few)]).margins(rows_of(data))
    np.testing.assert_allclose(found[0], margins_of(one, data), rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], margins_of(other, data), rtol=0, atol=1e-6)


def test_one_tree_by_hand() -> None:
    """x0 < 1 (missing goes left): -1, else 2; base 0 is an even chance."""
    tree = {
        "left_children": [1, -1, -1],
        "right_children": [2, -1, -1],
        "split_indices": [0, 0, 0],
        "split_conditions": [1.0, -1.0, 2.0],
        "default_left": [1, 0, 0],
    }
    forest = Forest.of([Booster((tree,), np.float32(0), b"")])
    assert forest.splits.right.tolist() == [0xFFFFFFFE]  # all leaves but the first
    data = np.array([[0.5], [1], [np.nan]], np.float32)
    none = np.zeros((3, 0), np.int32)
    (found,) = forest.margins(Rows(data, none))
    assert found.tolist() == [-1, 2, -1]


def test_no_tree_is_the_base_rate(tmp_path: Path) -> None:
    trained, path = booster(tmp_path)
    empty = trained[:1]
    empty.save_model(path)
    content = json.loads(path.read_text())
    content["learner"]["gradient_booster"]["model"]["trees"] = []
    content["learner"]["learner_model_param"]["base_score"] = "[2.5E-1]"
    path.write_text(json.dumps(content))
    (found,) = Forest.of([Booster.load(path)]).margins(rows_of(draw(3)))
    np.testing.assert_allclose(found, np.log(1 / 3), rtol=0, atol=1e-6)


def test_a_tree_of_more_leaves_than_a_word_has_bits_is_named(tmp_path: Path) -> None:
    _, path = booster(tmp_path, max_depth=9, min_child_weight=0)
    with pytest.raises(PackageError, match=r"model\.json: .*leaves, more than 64"):
        Booster.load(path)


def test_another_objective_is_named(tmp_path: Path) -> None:
    _, path = booster(tmp_path, objective="reg:squarederror")
    with pytest.raises(PackageError, match=r"model\.json: objective 'reg:squarederror'"):
        Booster.load(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"learner": {"objective": {}}}'])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "click.json"
    path.write_text(content)
    with pytest.raises(PackageError, match=r"click\.json: cannot be read"):
        Booster.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"click\.json: No such file"):
        Booster.load(tmp_path / "click.json")
