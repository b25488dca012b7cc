import pytest

from roiflow.online.store import MemoryStore
from tests.unit.online.store_contract import Make, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make(self) -> Make:
        return MemoryStore
