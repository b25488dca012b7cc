"""One contender in a process of its own: `python -m tests.benchmarks.feature_peers NAME WORLD OUT`.

A small world goes first, so that imports, compilation and a JVM's start are not counted. Prints
seconds of CPU and of wall time, and the peak of memory in MiB, as JSON.
"""

import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from roiflow.features.plan import Plan


def main(name: str, world: Path, out: Path) -> None:
    contender = importlib.import_module(f"tests.benchmarks.feature_peers.{name}")
    plan = Plan.read(world / "built" / "plan.parquet")
    small = world.parent / "small"
    with tempfile.TemporaryDirectory() as folder:
        contender.run(
            small / "validated", Plan.read(small / "built" / "plan.parquet"), Path(folder)
        )
    process = contender.jvm() if name == "spark_" else os.getpid()
    before, start = cpu_seconds(process), time.perf_counter()
    contender.run(world / "validated", plan, out)
    wall, after = time.perf_counter() - start, cpu_seconds(process)
    figures = {"cpu": after - before, "wall": wall, "mebibytes": peak(process)}
    sys.stdout.write(json.dumps(figures) + "\n")


def cpu_seconds(process: int) -> float:
    """Of a process with all its threads, user and system."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(process: int) -> float:
    """The most memory that a process has held."""
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
