"""Marks every test by its folder."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = {"unit": "unit", "integration": "integration", "e2e": "e2e", "benchmarks": "benchmark"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in FOLDERS:
            item.add_marker(FOLDERS[folder])
