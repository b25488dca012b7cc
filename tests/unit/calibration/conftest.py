from tests.unit.simulator.conftest import make

__all__ = ["make"]
