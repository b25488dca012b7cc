"""How a task ends: skipped, failed for good, or to be tried again; and what it says of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# In a process of its own: Airflow wants a home and brings its own warnings.
END = """
import json, sys
sys.path.insert(0, sys.argv[1])
import airflow.sdk
from roiflow import errors
from _reason import in_one_line

class Task:
    said = []
    def xcom_push(self, key, value):
        self.said.append([key, value])

airflow.sdk.get_current_context = lambda: {"ti": Task()}
found = {}
for error in (
    errors.NothingNew("all is tested"),
    errors.RunError("stage validate of files-2026-W33: QuarantineLimit: 3 of 4 rows"),
    errors.StoppedError("stage export of files-2026-W33: exit code -9: no output"),
    errors.ServiceError("redis: did not get ready"),
    OSError(28, "No space left on device", "/lake/x"),
    KeyError("a bug"),
):
    Task.said.clear()
    try:
        with in_one_line():
            raise error
    except Exception as ended:
        found[type(error).__name__] = [type(ended).__name__, *sum(Task.said, [])]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    home = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", END, str(ROOT / "dags")],
        env=home | {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_nothing_to_do_is_skipped_with_its_sentence(ends: dict[str, list[str]]) -> None:
    assert ends["NothingNew"] == ["AirflowSkipException", "reason", "all is tested"]


def test_what_would_fail_again_is_final(ends: dict[str, list[str]]) -> None:
    kind, key, said = ends["RunError"]
    assert (kind, key) == ("AirflowFailException", "reason")
    assert said == "RunError: stage validate of files-2026-W33: QuarantineLimit: 3 of 4 rows"


@pytest.mark.parametrize("name", ["StoppedError", "ServiceError", "OSError"])
def test_what_may_pass_is_tried_again(ends: dict[str, list[str]], name: str) -> None:
    kind, key, said = ends[name]
    assert (kind, key) == ("AirflowException", "reason")
    assert said.startswith(f"{name}: ")


def test_a_bug_keeps_its_traceback(ends: dict[str, list[str]]) -> None:
    assert ends["KeyError"] == ["KeyError"]
