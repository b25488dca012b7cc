from pathlib import Path

import pytest

from roiflow.serving.package import Package
from tests.unit.evaluation.weeks import Evaluated, evaluated_week
from tests.unit.serving.packages import TinyWorld, tiny_world, write_package


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("evaluation-world"))


@pytest.fixture(scope="session")
def package(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return write_package(tmp_path_factory.mktemp("challenger") / "package", world)


@pytest.fixture(scope="session")
def champion(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Package:
    folder: Path = tmp_path_factory.mktemp("champion") / "package"
    return write_package(folder, world, temperature=3.0)


@pytest.fixture(scope="session")
def evaluated(world: TinyWorld, package: Package) -> Evaluated:
    return evaluated_week(world, package)
