from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

from roiflow.features.rows import Behaved, Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline import partitions
from roiflow.offline.build import build
from roiflow.offline.partitions import Aside, UserRanges, range_and_place, scratch
from tests.feature_world import PARAMS, random_world


def rows(rng: np.random.Generator, count: int, users: int) -> Behaved:
    ad, category, action = (rng.integers(0, 9, count).astype(np.int32) for _ in range(3))
    event_time, known_time = (rng.integers(0, 10**15, count) for _ in range(2))
    user = rng.integers(0, users, count).astype(np.int32)
    return Behaved(user, ad, category, action, event_time, known_time)


def test_every_user_is_in_one_range() -> None:
    ranges = UserRanges.of(1_000, 3 * partitions.PARTITION_ROWS + 1)
    assert ranges.bounds.tolist() == [0, 250, 500, 750, 1000]
    assert ranges.part(np.array([0, 249, 250, 999], np.int32)).tolist() == [0, 0, 1, 3]
    assert ranges.users(1) == (250, 250)
    assert len(UserRanges.of(2, 10**9)) == 2
    assert len(UserRanges.of(5, 0)) == 1


def test_rows_come_back_by_range_and_in_order(tmp_path: Path) -> None:
    rng, ranges = np.random.default_rng(0), UserRanges(np.array([0, 3, 4, 10]))
    aside, batches = (
        Aside(tmp_path, "some", ranges, Behaved),
        [rows(rng, n, 10) for n in (50, 1, 30)],
    )
    places = [aside.put(batch) for batch in batches]
    for part in range(3):
        first, users = ranges.users(part)
        found = aside.take(part, Behaved)
        for field in fields(Behaved):
            expected = np.concatenate(
                [
                    getattr(batch, field.name)[(batch.user >= first) & (batch.user < first + users)]
                    for batch in batches
                ]
            )
            if field.name == "user":
                expected = expected - first
            assert_array_equal(getattr(found, field.name), expected)
    for batch, place in zip(batches, places, strict=True):
        in_range, at = range_and_place(place)
        for row in range(batch.user.size):
            found = aside.take(int(in_range[row]), Behaved)
            assert found.event_time[at[row]] == batch.event_time[row]


def test_a_range_without_rows_is_empty(tmp_path: Path) -> None:
    aside = Aside(tmp_path, "none", UserRanges(np.array([0, 5])), Behaved)
    assert aside.take(0, Behaved).known_time.size == 0


def test_scratch_files_are_gone_afterwards(tmp_path: Path) -> None:
    def fail() -> None:
        with scratch(tmp_path) as place:
            (place / "rows").write_bytes(b"x")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not list(tmp_path.iterdir())


def files(folder: Path) -> dict[str, object]:
    """By name; of the online store's values the rows, since row groups follow the batches."""
    return {
        str(path.relative_to(folder)): pq.read_table(path)
        if path.parent.name == "online" and path.suffix == ".parquet"
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_ranges_threads_and_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = random_world(4, requests=120, behaviours=150)
    whole = world.built(tmp_path / "whole")
    monkeypatch.setattr(partitions, "PARTITION_ROWS", 40)
    monkeypatch.setattr("roiflow.features.rows.BATCH_ROWS", 7)
    parted = build(
        Window(tmp_path / "whole"), Vocabulary({}), PARAMS, tmp_path / "parted", threads=3
    )
    expected, found = files(tmp_path / "whole" / "features"), files(tmp_path / "parted")
    statistics = [name for name in expected if name.startswith("statistics")]
    for name in statistics:  # sums of floats in another order
        del expected[name], found[name]
    assert found.keys() == expected.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    for name in ("mean", "std", "low", "span"):
        one, other = (getattr(b.features.statistics, name) for b in (whole, parted))
        np.testing.assert_allclose(one, other, rtol=1e-6)
