import pytest
from tests.unit.features.store_contract import Make, StoreContract

from roiflow.features.online import MemoryStore


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make(self) -> Make:
        return MemoryStore
