"""A full disk and a read-only install: real ones, of the kernel's."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow.entry import exit_on_expected
from roiflow.files import write_directory, write_file
from tests import needs

ROOT = Path(__file__).parents[2]


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        needs.absent("the right to mount", done.stderr.strip())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def read_only_install(tmp_path: Path) -> Iterator[Path]:
    """The package without compiled files on a file system that nobody can write."""
    package, folder = tmp_path / "package", tmp_path / "install"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "roiflow", package / "roiflow", ignore=ignored)
    folder.mkdir()
    mount("--bind", str(package), str(folder))
    mount("-o", "remount,bind,ro", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


NUMBERS = np.arange(1_000_000)
WRITERS: dict[str, Callable[[Path], object]] = {
    "arrow": lambda path: pq.write_table(pa.table({"number": NUMBERS}), path),
    "numpy": NUMBERS.tofile,
    "text": lambda path: path.write_text("x" * 5_000_000),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_line_with_path_and_remedy(small_disk: Path, kind: str) -> None:
    part = small_disk / "impressions" / "part-0.parquet"

    def fill() -> None:
        with exit_on_expected(), write_file(part) as aside:
            WRITERS[kind](aside)

    with pytest.raises(SystemExit) as end:
        fill()
    line = str(end.value.code)
    assert line.startswith(f"OSError: {part}: No space left on device: the disk is full: free some")
    assert "\n" not in line
    assert list(part.parent.iterdir()) == []


def test_a_full_disk_while_a_folder_is_written(small_disk: Path) -> None:
    def fill() -> None:
        with exit_on_expected(), write_directory(small_disk / "raw") as aside:
            np.save(aside / "numbers.npy", NUMBERS)

    with pytest.raises(SystemExit) as end:
        fill()
    assert f"{small_disk / 'raw'}: No space left on device" in str(end.value.code)
    assert list(small_disk.iterdir()) == []


def test_a_read_only_install_without_a_home_compiles_anew(read_only_install: Path) -> None:
    code = (
        "import numpy as np\n"
        "from roiflow.features.hashing import hash_ids\n"
        "from roiflow.simulator import noise, visits\n"
        "from roiflow.features import kernels\n"
        "import pyarrow as pa\n"
        "print(hash_ids(pa.array(['ad-1', 'ad-2'])).size)\n"
    )
    places = {"PYTHONPATH": str(read_only_install), "HOME": "/proc/nowhere", "PATH": os.defpath}
    done = subprocess.run(
        [sys.executable, "-c", code], env=places, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "roiflow.stages.validate {file}/raw {file}/validated {file}/q metrics.json {params}",
        "roiflow.jobs.report_drift {file}/features {file}/l {file}/drift.yaml {file}/d {params}",
        "roiflow.cli.main simulate 2026-W01 {file}/world --weeks 1",
    ],
)
def test_every_program_ends_in_one_line(command: str, tmp_path: Path) -> None:
    """A stage, a job and the command line, told to work below what is a file."""
    (tmp_path / "file").write_text("x")
    places = {"file": tmp_path / "file", "params": ROOT / "params.yaml"}
    done = subprocess.run(
        [sys.executable, "-m", *command.format(**places).split()],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "ROIFLOW_HOME": str(tmp_path / "home")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(r"(NotADirectory|Source)Error: ", last), done.stderr
    assert str(tmp_path / "file") in last
