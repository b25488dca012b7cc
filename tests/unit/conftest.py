"""A tiny world, its packages and its evaluation: made once for every room that reads them."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from roiflow.serving.package import Package
    from tests.unit.evaluation.weeks import Evaluated
    from tests.unit.serving.packages import TinyWorld

# Imported where they are used: a test of something light does not wait for onnx and numba.


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> "TinyWorld":
    from tests.unit.serving.packages import tiny_world

    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def package(world: "TinyWorld", tmp_path_factory: pytest.TempPathFactory) -> "Package":
    """What a week's run exports: the challenger, where two are compared."""
    from tests.unit.serving.packages import write_package

    return write_package(tmp_path_factory.mktemp("package") / "package", world)


@pytest.fixture(scope="session")
def champion(world: "TinyWorld", tmp_path_factory: pytest.TempPathFactory) -> "Package":
    """A package that shows something else."""
    from tests.unit.serving.packages import write_package

    return write_package(tmp_path_factory.mktemp("champion") / "package", world, temperature=3.0)


@pytest.fixture(scope="session")
def evaluated(world: "TinyWorld", package: "Package") -> "Evaluated":
    from tests.unit.evaluation.weeks import evaluated_week

    return evaluated_week(world, package)
