"""What labels say of rows, in a world of a few rows that can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from roiflow.data.split import TRAIN, VALIDATION
from roiflow.errors import ArtefactError
from roiflow.features.table import Features
from roiflow.labels.examination import Examination
from roiflow.labels.model import Labels
from roiflow.labels.worth import Delays, Known
from tests.feature_world import DAY, HOUR, TEST_START, World, at

END = at(21)
EXAMINED = Examination(np.array([1.0, 0.5]))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """Clicks of a1 (shoes) that convert after 2 h and 30 h, and one of a4 (games) that does not."""
    world = World()
    for ad, time in (
        ("a1", at(1)),  # i0 sells after 2 h
        ("a1", at(2)),  # i1 sells after 30 h and is returned a day later
        ("a4", at(3)),
        ("a1", TEST_START - HOUR),  # i3 sells after 2 h: in the test week
        ("a4", END - HOUR),
    ):
        world = world.show("u1", ad, time, clicked=True)
    world = world.convert("i0", at(1, 2), revenue=100).convert("i1", at(2, 30), revenue=300)
    world = world.convert("i1", at(3, 30), revenue=-300)
    world = world.convert("i3", TEST_START + HOUR, revenue=50)
    # A click that is known in the test week, of an impression before it.
    late = TEST_START + HOUR
    world = world.show("u2", "a2", TEST_START - DAY, clicked=True, click_known_time=late)
    return world.built(tmp_path_factory.mktemp("labels")).features


def learnt(features: Features, moment: int, prior: float = 0.0) -> Delays:
    return Delays.learn(features, moment, segment=1, prior=prior, longest_hours=200)


@pytest.fixture(scope="module")
def labels(features: Features) -> Labels:
    return Labels(EXAMINED, (learnt(features, TEST_START), learnt(features, END)), 0.5)


def row(features: Features, time: int) -> int:
    (found,) = np.flatnonzero(features.impressions.event_time == time)
    return int(found)


def test_labels_stand_at_the_test_weeks_start_and_as_of_end_they_have_moved_on(
    features: Features,
) -> None:
    young, late = row(features, TEST_START - HOUR), row(features, TEST_START - DAY)
    log, ended = features.impressions, features.as_of_end()
    assert not log.converted[young]
    assert not log.clicked[late]
    assert ended.impressions.converted[young]
    assert ended.impressions.revenue[young] == 50
    assert ended.impressions.clicked[late]
    assert features.known_until == (TEST_START, TEST_START, END, TEST_START)
    assert ended.known_until == (END, END, END, END)
    returned = row(features, at(2))
    assert ended.impressions.revenue[returned] == log.revenue[returned] == 0
    assert log.split[young] == VALIDATION
    splits = [TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION]
    assert_array_equal(ended.impressions.split[np.argsort(log.event_time)], splits)
    # Once more changes nothing but the splits, which have nowhere to go.
    assert_array_equal(ended.as_of_end().impressions.revenue, ended.impressions.revenue)


def test_outcomes_are_all_that_was_known(features: Features) -> None:
    found = features.outcomes
    assert found.revenue.sum() == 100 + 300 - 300 + 50
    known = Known.of(features, TEST_START)
    assert (known.sold.sum(), known.back.sum()) == (400.0, 300.0)
    assert Known.of(features, END).sold[row(features, TEST_START - HOUR)] == 50.0


def test_matured_by_hand(features: Features, labels: Labels) -> None:
    """Before the test week one of two sales took 2 h and the other 30 h; no hour is left out.

    The row an hour before it can know nothing yet, older ones know all. By the window's end two of
    three took 2 h, and the last row is an hour old again.
    """
    times = [at(1), TEST_START - HOUR, TEST_START - DAY, END - HOUR]
    rows = np.array([row(features, time) for time in times])
    assert labels.matured(features, rows).tolist() == [1.0, 0.0, 0.5, 0.0]
    ended = features.as_of_end()
    assert labels.matured(ended, rows).tolist() == [1.0, 1.0, 1.0, 0.0]
    assert labels.examined(np.array([1, 2, 3])).tolist() == [1.0, 0.5, 0.5]


def test_what_a_click_brings_by_hand(features: Features) -> None:
    """Two of three old clicks converted, and one is too young to know: of 3 matured ones, 2.

    The sales brought 100 and 300, and the second was given back.
    """
    found = learnt(features, TEST_START)
    shoes = features.attributes[features.impressions.ad[row(features, at(1))], 2]
    games = features.attributes[features.impressions.ad[row(features, at(3))], 2]
    assert found.rate[[shoes, games]].tolist() == [1.0, 0.0]
    assert found.worth[shoes] == 200.0
    assert found.returned[shoes] == 0.75
    # One conversion as all have them, 2/3 of a click each: (2 + 1) / (2 + 3/2), 1 / (1 + 3/2).
    drawn = learnt(features, TEST_START, prior=1.0)
    assert drawn.rate[[shoes, games]] == pytest.approx([3 / 3.5, 1 / 2.5])
    assert drawn.worth[shoes] == 200.0


def test_a_delay_that_is_longer_than_allowed_for_is_counted_and_left_out(
    features: Features,
) -> None:
    found = Delays.learn(features, TEST_START, segment=-1, prior=0.0, longest_hours=24)
    assert found.left_out == 1
    assert found.sales.hours == 3


def test_written_is_read(features: Features, labels: Labels, tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    labels.write(path)
    found, rows = Labels.read(path), np.arange(features.impressions.ad.size)
    assert_array_equal(found.matured(features, rows), labels.matured(features, rows))
    assert found.examination.factor.tolist() == [1.0, 0.5]
    assert [one.as_of for one in found.delays] == [TEST_START, END]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ArtefactError, match="no labels"):
        Labels.read(path)
    with pytest.raises(ArtefactError, match="run fit_labels"):
        Labels.read(tmp_path / "none.npz")


def test_labels_younger_than_anything_matured_say_nothing(
    features: Features, labels: Labels
) -> None:
    young = np.array([row(features, END - HOUR)])
    assert labels.matured(features, young).tolist() == [0.0]
    none = replace(labels.delays[0], as_of=0)
    assert replace(labels, delays=(none,)).matured(features, young).tolist() == [0.0]
