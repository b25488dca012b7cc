"""What the drift report watches."""

from pathlib import Path

import numpy as np
import pytest

from roiflow.errors import ParamsError
from roiflow.monitoring.drift import _chosen, load_watched, sample


def test_a_sample_is_ordered_without_repeats_and_whole_where_small() -> None:
    rows = np.arange(0, 1000, 3)
    drawn = sample(rows, 50, np.random.default_rng(1))
    assert drawn.size == np.unique(drawn).size == 50
    assert np.all(np.diff(drawn) > 0)
    assert np.isin(drawn, rows).all()
    assert sample(rows, 5000, np.random.default_rng(1)) is rows


def test_names_choose_columns_of_their_group() -> None:
    there = {"bid": np.ones(2), "cost": np.zeros(2)}
    assert list(_chosen("money", "all", there)) == ["bid", "cost"]
    assert list(_chosen("money", ["cost"], there)) == ["cost"]
    assert _chosen("money", [], there) == {}


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ParamsError, match=r"drift\.yaml: money: no column 'bids'.*'bid'"):
        _chosen("money", ["bids"], {"bid": np.ones(2)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("context: all\nattributes: all\nmoney: all\noutcomes: all\n", "dense: Field required"),
        ("colour: all\n", "colour: Extra inputs"),
        ("[", "not valid YAML"),
    ],
)
def test_a_wrong_declaration_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "drift.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=f"drift.yaml: .*{words}"):
        load_watched(path)


def test_a_missing_declaration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"drift\.yaml: No such file"):
        load_watched(tmp_path / "drift.yaml")
