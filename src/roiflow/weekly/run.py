"""The programs of a run in its checkout: DVC for the stages, a module for each job."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from pydantic import SecretStr

from roiflow.settings import absolute, without_logins, without_secrets
from roiflow.warm.process import interpreter
from roiflow.weekly.checkout import code_of
from roiflow.weekly.reasons import busy, failure
from roiflow.weekly.steps import Step

READERS = ("look", "ingest")
"""The stages that read the source; no other needs to reach it."""
Show = Callable[[str], None]


def environment(checkout: Path, home: Path) -> dict[str, str]:
    """What stages and jobs of a run need to know: its code, its places, its programs.

    No secret of this process is in it.
    """
    variables = without_secrets(os.environ)
    variables["PYTHONPATH"] = str(code_of(checkout, home))
    # Every stage is a process of its own: without compiled files each would pay seconds of imports.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables["ROIFLOW_HOME"] = str(home.absolute())
    if folder := variables.get("ROIFLOW_DATA_FOLDER"):
        variables["ROIFLOW_DATA_FOLDER"] = absolute(folder)
    # The stages of dvc.yaml call `python`: the warm process's, else this environment's.
    programs = dict.fromkeys(str(one.parent) for one in (interpreter(home), Path(sys.executable)))
    variables["PATH"] = os.pathsep.join([*programs, variables.get("PATH", os.defpath)])
    return variables


def repro(
    checkout: Path,
    home: Path,
    stages: Sequence[str],
    show: Show,
    patience: float = 600.0,
    sql: SecretStr | None = None,
    data_folder: str | None = None,
) -> None:
    """`dvc repro` of exactly these stages; waits up to `patience` seconds for DVC's locks.

    `sql` and `data_folder` reach those that read the source (READERS) as ROIFLOW_SQL and
    ROIFLOW_DATA_FOLDER, in their environment alone; the others are told no server's login.
    Raises RunError with the stage's own last error line.
    """
    variables = environment(checkout, home)
    source = {} if sql is None else {"ROIFLOW_SQL": sql.get_secret_value()}
    source |= {} if data_folder is None else {"ROIFLOW_DATA_FOLDER": absolute(data_folder)}
    readers, others = variables | source, without_logins(variables)
    apart = readers != others  # or else one call of DVC, which takes seconds, does for all
    for reads, some in groupby(stages, key=lambda stage: apart and stage in READERS):
        names = list(some)
        command = ["repro", "--single-item", *names]
        told = readers if reads else others
        _dvc(command, f"stage {' '.join(names)}", checkout, told, show, patience)


def fetch(checkout: Path, home: Path, outs: Sequence[str], show: Show) -> None:
    """Put outputs named by the checkout's dvc.lock in place, from the shared cache."""
    command = ["checkout", "--force", *outs]
    _dvc(command, "data", checkout, environment(checkout, home), show)


def job(checkout: Path, home: Path, name: str, arguments: Sequence[str], show: Show) -> None:
    """`python -m roiflow.jobs.NAME` in the checkout; RunError with the job's own error line."""
    command = ["python", "-m", f"roiflow.jobs.{name}", *arguments]
    code, tail = _stream(command, checkout, environment(checkout, home), show)
    if code != 0:
        raise failure(f"job {name} of {checkout.name}", tail, code)


def _dvc(
    arguments: Sequence[str],
    what: str,
    checkout: Path,
    variables: dict[str, str],
    show: Show,
    patience: float = 600.0,
) -> None:
    """A DVC command, begun again while another holds its locks; any other failure is RunError."""
    deadline = time.monotonic() + patience
    while True:
        code, tail = _stream(["python", "-m", "dvc", *arguments], checkout, variables, show)
        if code == 0:
            return
        # DVC's own locks do not wait. Anything else would fail again in the same way.
        if not busy(tail) or time.monotonic() > deadline:
            raise failure(f"{what} of {checkout.name}", tail, code)
        time.sleep(2.0)


def perform(checkout: Path, home: Path, effect: Step, show: Show) -> None:
    """An effect, by its job, with the arguments that its declaration has; errors as in `job`."""
    name, *arguments = effect.command.split()
    job(checkout, home, name, arguments, show)


def _stream(
    command: Sequence[str], folder: Path, variables: dict[str, str], show: Show
) -> tuple[int, list[str]]:
    """Run a command, showing its lines as they come; returns exit code and the last lines."""
    # The end is enough to say why; a stage may say megabytes before.
    tail: deque[str] = deque(maxlen=60)
    with subprocess.Popen(
        command,
        cwd=folder,
        # Into a pipe Python would keep its lines back until there are 8 KB of them.
        env={**variables, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            show(line.rstrip())
    return process.returncode, list(tail)
