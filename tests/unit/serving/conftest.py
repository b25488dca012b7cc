from pathlib import Path

import pytest

from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import MemoryStore
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from tests.unit.serving.packages import TinyWorld


@pytest.fixture(scope="session")
def recommender(package: Package) -> Recommender:
    return Recommender(Package.load(package.folder))


@pytest.fixture(scope="session")
def store(recommender: Recommender, world: TinyWorld) -> MemoryStore:
    """What is known at the end of the world's last week."""
    store = recommender.memory_store()
    assert load_snapshot(store, world.features / "online")
    return store


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")
