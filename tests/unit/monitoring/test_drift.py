"""What the drift report watches."""

from pathlib import Path

import pytest

from roiflow.errors import ParamsError
from roiflow.monitoring.drift import _chosen, load_watched


def test_names_choose_columns_of_their_group() -> None:
    there = ("bid", "cost")
    assert _chosen("money", "all", there) == {"bid": 0, "cost": 1}
    assert _chosen("money", ["cost"], there) == {"cost": 1}
    assert _chosen("money", [], there) == {}


def test_an_unknown_column_is_named() -> None:
    with pytest.raises(ParamsError, match=r"drift\.yaml: money: no column 'bids'.*'bid'"):
        _chosen("money", ["bids"], ("bid",))


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
