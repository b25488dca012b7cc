"""Marks every test by its folder; `--full` runs proofs in full; `--record FILE` keeps figures."""

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDERS = {"unit": "unit", "integration": "integration", "e2e": "e2e", "benchmarks": "benchmark"}
FIGURES = pytest.StashKey[list[tuple[str, str, str]]]()

Record = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="long proofs at their full size")
    parser.addoption("--record", type=Path, help="write the recorded figures to this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in FOLDERS:
            item.add_marker(FOLDERS[folder])


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether proofs run at their full size."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """`record(what, figure)` keeps a measured figure for the table of this run."""

    def keep(what: str, figure: str) -> None:
        test = request.node.nodeid.removeprefix("tests/")
        request.config.stash[FIGURES].append((test, what, figure))

    return keep


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of public data sets; tests that read it skip where it is absent."""
    folder = Path(os.environ.get("ROIFLOW_TEST_DATA", HERE.parent.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}: set ROIFLOW_TEST_DATA to its folder")
    return folder


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash[FIGURES]
    if figures:
        terminalreporter.section("figures")
    for _, what, figure in figures:
        terminalreporter.write_line(f"{what}: {figure}")
    path: Path | None = config.getoption("--record")
    if path and figures:
        write_figures(path, figures)


def write_figures(path: Path, figures: list[tuple[str, str, str]]) -> None:
    """A Markdown table of figures, with the date and the commit they were measured at."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        f"# {path.stem.capitalize()}",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} at commit {commit}, {os.cpu_count()} cores.",
        "",
        "| what | figure | shown by |",
        "|---|---|---|",
        *(f"| {what} | {figure} | `{test}` |" for test, what, figure in figures),
    ]
    path.write_text("\n".join(lines) + "\n")
