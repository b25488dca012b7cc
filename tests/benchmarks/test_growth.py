"""The whole data flow at growing numbers of users: CPU, time and memory of each stage."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import Record

ROOT = Path(__file__).parents[2]
USERS = (2_000, 8_000, 32_000)
WEEK = "2026-W04"  # of a world that begins with 2026-W01: four weeks
LEFT_OUT = {"look"}  # asks what the source holds, which is nothing's size
LARGEST_SLOPE, LARGEST_GB = 1.1, 6.0

STAGE = """
import json, re, resource, runpy, sys, time
from pathlib import Path

out, module = Path(sys.argv[1]), sys.argv[2]
sys.argv = [module, *sys.argv[3:]]
start = time.perf_counter()
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
finally:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    out.write_text(json.dumps({
        "cpu": sum(one.ru_utime + one.ru_stime for one in used),
        "wall": time.perf_counter() - start,
        # Not ru_maxrss, which a child inherits from the process that forked it.
        "gb": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6,
    }))
"""


@dataclass(frozen=True)
class Spent:
    """By a stage's process, start and imports included."""

    cpu: float  # seconds
    wall: float  # seconds
    gb: float  # peak of resident memory


def world(users: int) -> dict[str, Any]:
    """params.yaml with a synthetic world of so many users."""
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["ingest"] |= {"source": "simulator", "week": WEEK}
    params["ingest"]["simulator"] |= {"world": "synthetic", "weeks": 4}
    params["ingest"]["simulator"]["synthetic"]["users"] = users
    return params


def measure(folder: Path, users: int) -> dict[str, Spent]:
    """Run every stage of dvc.yaml in a folder, each in a process of its own."""
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(world(users)))
    (folder / "stage.py").write_text(STAGE)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    spent = {}
    for name, stage in stages.items():
        if name in LEFT_OUT:
            continue
        _, _, module, *arguments = stage["cmd"].split()
        done = subprocess.run(
            [sys.executable, "stage.py", "spent.json", module, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name} at {users:,} users:\n{done.stderr[-3000:]}"
        spent[name] = Spent(**json.loads((folder / "spent.json").read_text()))
        print(f"{users:,} users, {name}: {spent[name]}", flush=True)
    return spent


def slope(values: list[float]) -> float:
    """Of the logarithm of values (sizes,) over that of the users."""
    return float(np.polyfit(np.log(USERS), np.log(values), 1)[0])


@pytest.mark.timeout(7200)
def test_no_stage_grows_faster_than_the_log(tmp_path: Path, record: Record) -> None:
    sizes = [measure(tmp_path / str(users), users) for users in USERS]
    stages = {name: [size[name] for size in sizes] for name in sizes[0]}
    for name, spent in stages.items():
        record(
            f"growth, {name}, {' / '.join(f'{users:,}' for users in USERS)} users",
            f"{' / '.join(f'{one.cpu:.0f}' for one in spent)} CPU-s, "
            f"{' / '.join(f'{one.wall:.0f}' for one in spent)} s, "
            f"{' / '.join(f'{one.gb:.1f}' for one in spent)} GB, "
            f"slope {slope([one.cpu for one in spent]):.2f}",
        )
    record("growth by stage", "[plot](growth.png)")
    plot(stages, ROOT / "docs" / "growth.png")
    steep = {name: found for name, found in slopes(stages).items() if found > LARGEST_SLOPE}
    large = {name: spent[-1].gb for name, spent in stages.items() if spent[-1].gb > LARGEST_GB}
    assert (steep, large) == ({}, {})


def slopes(stages: dict[str, list[Spent]]) -> dict[str, float]:
    """Of CPU, by stage."""
    return {name: slope([one.cpu for one in spent]) for name, spent in stages.items()}


def plot(stages: dict[str, list[Spent]], path: Path) -> None:
    """CPU seconds and peak memory of each stage by the number of users."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, spent in stages.items():
        left.loglog(USERS, [one.cpu for one in spent], "o-", label=name)
        right.loglog(USERS, [one.gb for one in spent], "o-", label=name)
    for axes in (left, right):
        axes.set_xticks(USERS, [f"{users:,}" for users in USERS])
        axes.set_xticks([], minor=True)
    left.set(xlabel="users", ylabel="CPU seconds", title="time")
    right.set(xlabel="users", ylabel="GB", title="peak memory")
    right.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)
