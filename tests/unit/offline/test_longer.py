"""The week before a window, put back in front of it."""

from pathlib import Path

import numpy as np
import pytest

from roiflow.data import lake
from roiflow.data.split import TEST
from roiflow.data.weeks import Week
from roiflow.errors import GateError
from roiflow.features.rows import Window
from roiflow.offline.build import build
from roiflow.offline.longer import lengthened, same_rows
from tests.unit.serving.packages import FEATURES, TinyWorld, tiny_world

WEEKS = ("2026-W01", "2026-W02", "2026-W03")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("whole"), WEEKS)


def window(folder: Path, world: TinyWorld, weeks: tuple[str, ...]) -> Path:
    for name in weeks:
        week = Week.parse(name)
        for table, rows in world.source.pull(week, week.end).items():
            lake.write(folder, table, week, rows)
    return folder


def test_the_test_week_counts_what_the_dropped_week_held(whole: TinyWorld, tmp_path: Path) -> None:
    before = window(tmp_path / "before", whole, WEEKS[:2])
    own = window(tmp_path / "own", whole, WEEKS[1:])
    vocabulary = whole.built.vocabulary
    short = build(Window(own), vocabulary, FEATURES, tmp_path / "features").features
    longer = lengthened(before, own, vocabulary, FEATURES, tmp_path / "longer").features
    expected, rows = whole.built.features, short.rows(TEST)
    there = same_rows(short, longer, rows)
    np.testing.assert_array_equal(there, same_rows(short, expected, rows))
    np.testing.assert_array_equal(
        longer.impressions.dense[there], expected.impressions.dense[there]
    )
    history = [
        log.history_end - log.history_start for log in (longer.impressions, short.impressions)
    ]
    assert np.all(history[0][there] >= history[1][rows])
    assert np.any(longer.impressions.dense[there] != short.impressions.dense[rows])
    assert not np.array_equal(there, rows)
    for name in ("user", "ad", "event_time", "position"):
        values = getattr(longer.impressions, name)[there]
        np.testing.assert_array_equal(values, getattr(short.impressions, name)[rows])


def test_another_week_is_refused(whole: TinyWorld, tmp_path: Path) -> None:
    other = window(tmp_path / "other", whole, WEEKS[:2])
    short = build(Window(other), whole.built.vocabulary, FEATURES, tmp_path / "features").features
    with pytest.raises(GateError, match="other test rows"):
        same_rows(short, whole.built.features, short.rows(TEST))
