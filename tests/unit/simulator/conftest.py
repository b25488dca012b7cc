from collections.abc import Callable
from pathlib import Path

import pytest

from roiflow.params import SimulatorParams, load_params

ROOT = Path(__file__).parents[3]

Make = Callable[..., SimulatorParams]


@pytest.fixture(scope="session")
def make() -> Make:
    """The shipped world with some keys replaced, small unless told otherwise."""
    shipped = load_params(ROOT / "params.yaml").ingest.simulator

    def build(**keys: object) -> SimulatorParams:
        small = {"users": 200, "ads": 20, "categories": 4, "seed": 3}
        return SimulatorParams.model_validate(shipped.model_dump() | small | keys)

    return build
