from collections.abc import Callable

import pytest

from roiflow.params import SimulatorParams
from tests.worlds import STEADY, world_params

Make = Callable[..., SimulatorParams]


@pytest.fixture(scope="session")
def make() -> Make:
    """The shipped world, small and steady, with some keys replaced in whichever section."""

    def build(**keys: object) -> SimulatorParams:
        small: dict[str, object] = {"users": 200, "ads": 20, "categories": 4, "seed": 3}
        return world_params(**(STEADY | small | keys))

    return build
