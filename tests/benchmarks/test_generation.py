"""Bulk generation from one to a hundred million events: speed, memory, growth."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MILLIONS = (1, 3, 10, 30, 100)
EVENTS_A_USER = 7 * (14.0 + 3 * 0.94)
"""Of a week: behaviours and the impressions of slates of 3, about as 10 million to 2 million."""

WORK = """
import json, re, sys, time
from pathlib import Path
from roiflow.data.weeks import Week
from roiflow.simulator.write import write_weeks
from tests.worlds import world_params

folder, users, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
world = dict(ads=1000, behaviours_per_user_day=14.0, requests_per_user_day=0.94, slate_size=3)
weeks = [Week.parse("2026-W02")]
write_weeks(world_params(users=1000, **world), folder / "warm", weeks, threads)
wall, cpu = time.perf_counter(), time.process_time()
events = write_weeks(world_params(users=users, **world), folder / "week", weeks, threads)
print(json.dumps({
    "events": events,
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    # Not ru_maxrss, which a child inherits from the process that forked it.
    "peak": int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3,
}))
"""


def generate(folder: Path, millions: int, threads: int) -> dict[str, float]:
    """Seconds, events and peak memory (MB) of a process that writes a week."""
    users = round(millions * 1e6 / EVENTS_A_USER)
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(folder), str(users), str(threads)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@pytest.mark.timeout(1200)
def test_generation_grows_in_time_and_not_in_memory(
    tmp_path: Path, record: Callable[[str, str], None]
) -> None:
    found = []
    for millions in MILLIONS:
        found.append(generate(tmp_path, millions, threads=1))
        for file in (tmp_path / "week").rglob("*.parquet"):
            file.unlink()
    events, cpu, peak = (
        np.array([one[name] for one in found]) for name in ("events", "cpu", "peak")
    )
    slope = np.polyfit(np.log(events), np.log(cpu), 1)[0]
    both = generate(tmp_path, 10, threads=2)
    for number, millions in enumerate(MILLIONS):
        record(
            f"generation with Parquet, {events[number]:,.0f} events, one thread",
            f"{events[number] / cpu[number] / 1e6:.2f} M events per CPU-s, "
            f"{found[number]['wall']:.1f} s, peak {peak[number]:.0f} MB",
        )
        assert events[number] == pytest.approx(millions * 1e6, rel=0.1)
    record("generation with Parquet, log-log slope of CPU, 1 M to 100 M", f"{slope:.3f}")
    record(
        f"generation with Parquet, {both['events']:,.0f} events, two threads",
        f"{both['events'] / both['wall'] / 1e6:.2f} M events per s, peak {both['peak']:.0f} MB",
    )
    record("generation by size", "[plot](generation.png)")
    plot(events, cpu, peak, ROOT / "docs" / "generation.png")
    assert slope < 1.1
    assert peak.max() < 1.2 * peak.min()


def plot(
    events: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    cpu: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    peak: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    path: Path,
) -> None:
    """CPU seconds and peak memory by the number of events."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(events, cpu, "o-", label="measured")
    left.loglog(events, cpu[0] * events / events[0], ":", color="grey", label="linear")
    left.set(xlabel="events", ylabel="CPU seconds, Parquet included", title="time")
    left.legend()
    right.semilogx(events, peak, "o-")
    right.set(xlabel="events", ylabel="MB", title="peak memory", ylim=(0, 1.3 * peak.max()))
    figure.savefig(path, dpi=110)
