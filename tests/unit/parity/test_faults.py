"""The parts that hypotheses are made of; the faults themselves are in tests/integration."""

from pathlib import Path

import numpy as np
import pytest

from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.parity.fault_rows import _keys, without_hour
from roiflow.parity.fault_values import _image, _lines, _moved
from roiflow.parity.replay import Content
from tests.feature_world import HOUR, PARAMS, World, at, random_world


def content(folder: Path, world: World) -> Content:
    built = world.built(folder, PARAMS)
    return Content.read(folder, built.vocabulary)


def test_an_hour_is_taken_out_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    hour = at(1, 5)
    world = (
        World()
        .show("u1", "a1", hour - 9)
        .show("u1", "a1", hour + 3)
        .show("u2", "a2", hour - 8, clicked=True, click_known_time=hour + 5)
        .show("u2", "a2", hour - 7, clicked=True, click_known_time=hour + HOUR)
        .convert("i1", hour + 2 * HOUR)  # of an impression that is lost
        .convert("i2", hour + 9)
        .convert("i3", hour + 3 * HOUR, revenue=11)
        .behave("u3", "a1", hour + 1)
        .behave("u3", "a2", hour + HOUR)
    )
    whole = content(tmp_path, world)
    found = without_hour(whole, hour // HOUR)
    assert found.rows.event_time.tolist() == [hour - 9, hour - 8, hour - 7]
    assert found.rows.clicked.tolist() == [False, False, True]
    assert found.rows.click_known.tolist() == [-1, -1, hour + HOUR]
    assert found.conversions.revenue.tolist() == [11]
    assert found.conversions.row.tolist() == [2]
    assert found.events.event_time.tolist() == [hour + HOUR]
    assert np.diff(found.events.offsets).sum() == 1
    assert found.behaving.tolist() == whole.behaving.tolist()[:1]
    assert whole.rows.user.size == 4  # as it was
    none = without_hour(whole, hour // HOUR - 50)
    np.testing.assert_array_equal(none.rows.event_time, whole.rows.event_time)
    np.testing.assert_array_equal(none.conversions.row, whole.conversions.row)
    np.testing.assert_array_equal(none.events.offsets, whole.events.offsets)


def test_rows_have_the_same_keys_in_every_pull(tmp_path: Path) -> None:
    world = random_world(1)
    one = content(tmp_path / "one", world)
    more = world.behave("u1", "a1", at(20, 3)).show("u1", "a1", at(20, 4), request_id="new")
    vocabulary: Vocabulary = more.built(tmp_path / "more", PARAMS).vocabulary
    other = Content.read(tmp_path / "more", vocabulary)
    assert Window(tmp_path / "more").weeks == Window(tmp_path / "one").weeks
    for few, many, added in zip(_keys(one), _keys(other), (1, 0, 1), strict=True):
        assert np.isin(few, many).all()
        assert np.count_nonzero(~np.isin(many, few)) == added
        assert np.unique(many).size == many.size


def test_the_image_of_an_index_is_the_one_seen_most() -> None:
    one, other = np.array([1, 1, 1, 3, 3, 4]), np.array([2, 2, 9, 4, 4, 4])
    assert _image(one, other).tolist() == [-1, 2, -1, 4, 4]
    assert _moved("ad", np.array([1, 3]), np.array([1, 1])) == "2 indices of kind ad are off by +1"
    assert "stand for others" in _moved("ad", np.array([1, 3]), np.array([1, -2]))


@pytest.mark.parametrize(
    ("slope", "shift", "noise", "lines", "explained"),
    [(1.0, 0.0, 0.0, 0, 1.0), (2.5, -1.0, 0.0, 1, 1.0), (1.0, 0.0, 0.1, 0, 0.0)],
)
def test_a_scaled_feature_is_a_line_and_noise_is_none(
    slope: float, shift: float, noise: float, lines: int, explained: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    x[:, 2] = 7.0  # a constant: any other constant will do
    y = x.copy()
    y[:, 1] = slope * x[:, 1] + shift + noise * rng.normal(size=200)
    y[:, 2] = 3.0
    found, rows = _lines(x, y)
    assert found == lines
    assert rows.mean() == pytest.approx(explained, abs=0.02)
