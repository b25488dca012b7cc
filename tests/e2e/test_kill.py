"""`dvc repro` after finetune_policy was killed half-way ends where an undisturbed run ends."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Record
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
SMALL: dict[str, dict[str, Any]] = {
    "train_ranker": {"epochs": 1},
    "finetune_policy": {"requests": 400, "batch_slates": 256, "checkpoint_every": 2},
}
WORLD = {"users": 300, "ads": 40}
KILLS, ITERATIONS = 3, 60
FULL_KILLS, FULL_ITERATIONS = 20, 200
"""Each kill comes after another checkpoint, and must come before the last."""

pytestmark = [pytest.mark.timeout(3600), pytest.mark.proof]


def environment(checkout: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), "PATH": path}


def repro(checkout: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "finetune_policy"],
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def outputs(checkout: Path) -> list[dict[str, Any]]:
    """Path and hash of everything finetune_policy made."""
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    outs: list[dict[str, Any]] = lock["stages"]["finetune_policy"]["outs"]
    return outs


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, full: bool) -> Path:
    """A checkout in which every stage before finetune_policy is done."""
    folder = tmp_path_factory.mktemp("kill") / "checkout"
    folder.mkdir()
    for name in ("src", ".dvc/config", ".dvcignore", "dvc.yaml", "params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    content = planted_content()
    content["ingest"]["simulator"]["synthetic"] |= WORLD
    for section, values in SMALL.items():
        content[section] |= values
    content["finetune_policy"]["iterations"] = FULL_ITERATIONS if full else ITERATIONS
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    command = [sys.executable, "-m", "dvc", "repro", "train_candidates", "train_ranker"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return folder


def test_a_killed_repro_resumes_to_the_same_bytes(ready: Path, full: bool, record: Record) -> None:
    calm, killed = ready.with_name("calm"), ready.with_name("killed")
    for copy in (calm, killed):
        shutil.copytree(ready, copy, symlinks=True)
    assert repro(calm).wait() == 0
    kills = 0
    for kill in range(FULL_KILLS if full else KILLS):
        before = progress(killed)
        victim = repro(killed)
        deadline = time.monotonic() + 300
        while progress(killed) == before and victim.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(0.003 * kill)
        if victim.poll() is not None:
            break
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        kills += 1
        assert not (killed / "data/policy").exists()
        assert "finetune_policy" not in yaml.safe_load((killed / "dvc.lock").read_text())["stages"]
    assert kills >= KILLS
    assert repro(killed).wait() == 0
    assert outputs(killed) == outputs(calm)
    record("finetune_policy killed, then `dvc repro`", f"{kills} kills, equal bytes")


def progress(checkout: Path) -> list[int]:
    """Changes whenever a checkpoint is written."""
    found = checkout.glob("data/checkpoints/finetune_policy/*/checkpoint.pt")
    return [path.stat().st_mtime_ns for path in found]
