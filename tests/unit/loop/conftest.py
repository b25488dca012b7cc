from tests.unit.evaluation.conftest import world

__all__ = ["world"]
