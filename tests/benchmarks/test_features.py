"""The engine against pandas, Polars, DuckDB and Spark: one job, equal results, CPU time and growth.

The job: from validated weeks to every impression's last 50 behaviours and counted features, with
the ads' attributes joined, written to disk. The engine builds more than its peers do (dictionaries,
priors, labels, statistics, the online snapshot); they are given its priors. Each run is a process
of its own with two threads, after a small world that warms it up: imports, compilation and the
start of a JVM are not counted.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from roiflow.features.plan import Plan
from roiflow.features.rows import Window
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import build
from tests.benchmarks.feature_peers import outputs
from tests.benchmarks.feature_peers.embedded import PARAMS
from tests.benchmarks.feature_peers.world import write_world
from tests.conftest import Record

ROOT = Path(__file__).parents[2]
OWN = "embedded"
THREADS = "2"
ENVIRONMENT = {
    **dict.fromkeys(
        ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS", "PEER_THREADS"), THREADS
    ),
    "PYSPARK_SUBMIT_ARGS": "--driver-memory 8g pyspark-shell",
}

pytestmark = [pytest.mark.timeout(7_200), pytest.mark.proof]


@dataclass(frozen=True)
class Size:
    events: int
    rounds: dict[str, int]
    """Of each contender; those that would take too long run once, or at smaller sizes only."""

    def __str__(self) -> str:
        return f"{self.events:,} events"


SMALL = Size(100_000, {OWN: 2, "polars_": 2, "duckdb_": 2, "pandas_": 1})
SIZES = [
    Size(1_000_000, {OWN: 5, "polars_": 5, "duckdb_": 3, "pandas_": 3, "spark_": 1}),
    Size(10_000_000, {OWN: 3, "polars_": 3, "duckdb_": 1}),
]
GROWTH = (1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000)


@dataclass(frozen=True)
class Figures:
    cpu: float
    wall: float
    mebibytes: float


def make_world(folder: Path, events: int) -> Path:
    """Validated weeks and the embedded engine's dictionaries and priors."""
    validated = write_world(folder / "validated", events)
    build(Window(validated), Vocabulary({}), PARAMS, folder / "built", threads=int(THREADS))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The world that warms every contender up, where it looks for it."""
    return make_world(tmp_path / "small", 2_000)


def run(name: str, world: Path, out: Path) -> Figures:
    """One contender's run in a process of its own; what it wrote before is gone."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    module = "tests.benchmarks.feature_peers"
    command = [sys.executable, "-m", module, name, str(world), str(out)]
    ran = subprocess.run(
        command, env=os.environ | ENVIRONMENT, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return Figures(**json.loads(ran.stdout.splitlines()[-1]))


def medians(runs: list[Figures]) -> Figures:
    return Figures(
        *(
            statistics.median(getattr(one, name) for one in runs)
            for name in ("cpu", "wall", "mebibytes")
        )
    )


def test_peers_do_the_same_job(tmp_path: Path, full: bool, small: Path, record: Record) -> None:
    for size in SIZES if full else [SMALL]:
        world = make_world(tmp_path / "world", size.events)
        plan = Plan.read(world / "built" / "plan.parquet")
        runs: dict[str, list[Figures]] = {name: [] for name in size.rounds}
        for number in range(max(size.rounds.values())):
            for name, rounds in size.rounds.items():
                if number < rounds:
                    runs[name].append(run(name, world, tmp_path / name))
        own_output = outputs.embedded(tmp_path / OWN, world)
        own = medians(runs.pop(OWN))
        record(f"features, {size}, the engine", line(own))
        for name, of_peer in runs.items():
            outputs.assert_equal(outputs.peer(tmp_path / name, plan), own_output)
            peer = medians(of_peer)
            record(
                f"features, {size}, {name.strip('_')}, equal to 1e-6",
                f"{line(peer)}: {peer.cpu / own.cpu:.1f} x CPU, {peer.wall / own.wall:.1f} x wall"
                f" (median of {len(of_peer)})",
            )
            if size.events >= 1_000_000:
                assert peer.cpu > own.cpu, f"{name} takes {peer.cpu:.1f} s, {OWN} {own.cpu:.1f} s"
            shutil.rmtree(tmp_path / name)
        shutil.rmtree(world)


def line(figures: Figures) -> str:
    return (
        f"CPU {figures.cpu:.2f} s, wall {figures.wall:.2f} s on 2 cores, "
        f"{figures.mebibytes:,.0f} MiB"
    )


def test_growth_is_linear(tmp_path: Path, full: bool, small: Path, record: Record) -> None:
    sizes = GROWTH if full else (100_000, 400_000)
    figures = []
    for events in sizes:
        world = write_world(tmp_path / "world" / "validated", events).parent
        shutil.copytree(small / "built", world / "built")  # its parameters are the same
        runs = [run(OWN, world, tmp_path / OWN) for _ in range(3 if events <= 5_000_000 else 1)]
        figures.append(medians(runs))
        record(f"features, {events:,} events, the engine", line(figures[-1]))
        shutil.rmtree(world)
    cpu = np.array([one.cpu for one in figures])
    memory = np.array([one.mebibytes for one in figures])
    slope = np.polyfit(np.log(sizes), np.log(cpu), 1)[0]
    record("features, log-log slope of CPU by events", f"{slope:.2f}")
    record(
        f"features, memory of {sizes[-1] // sizes[0]} times the events",
        f"{memory[-1] / memory[0]:.1f} x",
    )
    if full:
        draw(ROOT / "docs" / "features.png", np.array(sizes), cpu, memory, float(slope))
    assert slope < (1.1 if full else 1.3)


def draw(path: Path, sizes: np.ndarray, cpu: np.ndarray, memory: np.ndarray, slope: float) -> None:
    """CPU seconds and memory by events, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for place, (values, title) in enumerate(
        ((cpu, f"CPU seconds, slope {slope:.2f}"), (memory, "peak memory, MiB"))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        axes.loglog(sizes, values, "o-", color="#1f5fa8")
        linear = values[0] * sizes / sizes[0]
        axes.loglog(sizes, linear, "--", color="#999999", label="linear")
        axes.set(xlabel="events", title=title)
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
