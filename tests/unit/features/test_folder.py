from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from roiflow.errors import ContractError
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.features.table import Features
from roiflow.features.vocabulary import Vocabulary
from tests.feature_world import random_world


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("features")
    random_world(1).built(place)
    return place / "features"


def assert_same(one: object, other: object) -> None:
    for field in fields(one):  # type: ignore[arg-type]
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


def test_what_is_written_is_read(folder: Path, tmp_path: Path) -> None:
    built = random_world(1).built(tmp_path)
    found: Features = read(folder)
    for name in ("events", "impressions", "statistics"):
        assert_same(getattr(found, name), getattr(built.features, name))
    assert_same(found, built.features)
    assert_same(found.catalogues[-1], built.features.catalogues[-1])
    assert (found.sizes, found.dense_names) == (built.features.sizes, built.features.dense_names)
    assert Vocabulary.read(folder / "vocabulary.parquet").table().equals(built.vocabulary.table())


def test_the_engine_of_the_folder_counts_as_the_built_one(folder: Path) -> None:
    features, engine = read(folder), open_engine(folder)
    rows = np.flatnonzero(features.impressions.position == 1)
    week = np.searchsorted(
        [0, *np.unique(features.impressions.event_time)], features.impressions.event_time[rows]
    )
    assert week.size == rows.size
    requests = engine.requests(features, rows, features.catalogues[-1])
    own = requests.dense[np.arange(rows.size), features.impressions.ad[rows] - 1]
    prices = [features.dense_names.index("log_price")]
    assert_array_equal(
        np.delete(own, prices, axis=1), np.delete(features.impressions.dense[rows], prices, axis=1)
    )


def test_features_are_memory_mapped_and_read_only(folder: Path) -> None:
    dense = read(folder).impressions.dense
    assert not dense.flags.writeable
    assert not dense.flags.owndata


def test_a_missing_or_corrupt_array_is_named(folder: Path) -> None:
    path = folder / "events" / "ad.npy"
    content = path.read_bytes()
    path.write_bytes(content[:20])
    with pytest.raises(ContractError, match=str(path)):
        read(folder)
    path.unlink()
    with pytest.raises(ContractError, match=str(path)):
        read(folder)
    path.write_bytes(content)
    with pytest.raises(ContractError, match="no such"):
        read(folder / "no such")
