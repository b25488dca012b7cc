"""What a test needs and a machine may not have: skipped with a reason that is counted by its kind.

Where ROIFLOW_TEST_COMPLETE is set, as .ci/run sets it once it has made everything ready, a test
that lacks a program or a right fails. Public data, which nobody may hand on with the code, is
skipped without there too, and so are proofs that only `--full` runs.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[1]
ABSENT, NO_DATA, FULL = "absent", "no public data", "for --full"


def absent(what: str, remedy: str) -> NoReturn:
    """Skip for want of a program or a right; a failure where all must be there."""
    reason = f"{ABSENT}: {what}: {remedy}"
    if os.environ.get("ROIFLOW_TEST_COMPLETE"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str, package: str) -> str:
    """The path of a program that Debian's package brings."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return found or absent(name, f"apt-get install {package}")


def public_data(name: str = "") -> Path:
    """A public data set's folder in ROIFLOW_TEST_DATA, else in ../shared/data."""
    folder = Path(os.environ.get("ROIFLOW_TEST_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"{NO_DATA}: {folder}: set ROIFLOW_TEST_DATA to the folder that holds it")
    return folder


def full_size(full: bool, why: str) -> None:
    """Skip what takes long, but for `--full`."""
    if not full:
        pytest.skip(f"{FULL}: {why}")
