from pathlib import Path

import pytest

from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import MemoryStore
from roiflow.serving.package import Package
from roiflow.serving.recommender import Recommender
from tests.unit.serving.packages import TinyWorld, tiny_world, write_package


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def package(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return write_package(tmp_path_factory.mktemp("package") / "package", world)


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
