"""Marks every test by its folder; `--full` runs proofs in full; `--record FILE` keeps figures.

Skips are counted by their kinds.
"""

import atexit
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.needs import FULL

# Idle threads of a numeric library spin, which two cores pay for twice: this process and all that
# it starts compute on one thread each. Before anything imports such a library.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).parent
FOLDERS = {"unit": "unit", "integration": "integration", "e2e": "e2e", "benchmarks": "benchmark"}
FIGURE = "figure"
"""A property of a test's report, so that it comes back from whichever process ran the test."""

Record = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="long proofs at their full size")
    parser.addoption("--record", type=Path, help="write the recorded figures to this Markdown file")


def pytest_configure() -> None:
    atexit.register(end_quietly)


def end_quietly() -> None:
    """Let the count of tests be the last line: DuckDB's binding reports, once Python is down, what
    other modules still hold of it. Nothing of ours speaks so late; a crash shows in the exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


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
        request.node.user_properties.append((FIGURE, (what, figure)))

    return keep


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    write_skips(terminalreporter)
    figures = figures_of(terminalreporter)
    if figures:
        terminalreporter.section("figures")
    for _, what, figure in figures:
        terminalreporter.write_line(f"{what}: {figure}")
    path: Path | None = config.getoption("--record")
    if path and figures:
        write_figures(path, figures)


def figures_of(reporter: pytest.TerminalReporter) -> list[tuple[str, str, str]]:
    """Test, what and figure of every one that a test recorded."""
    reports = [one for kind in reporter.stats.values() for one in kind]
    return [
        (report.nodeid.removeprefix("tests/"), *value)
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == FIGURE
    ]


def write_skips(reporter: pytest.TerminalReporter) -> None:
    """How many tests were left out for which kind of reason (see tests/needs.py)."""
    reasons = [report.longrepr[2] for report in reporter.stats.get("skipped", [])]
    kinds = Counter(reason.removeprefix("Skipped: ").partition(":")[0] for reason in reasons)
    if kinds:
        reporter.section("skipped, by reason")
    for kind, count in sorted(kinds.items()):
        reporter.write_line(f"{count:>4}  {kind}", yellow=kind != FULL, bold=kind != FULL)


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
