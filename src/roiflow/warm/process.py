"""The warm process of a home: how it is started, found and ended."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roiflow.files import write_file
from roiflow.settings import without_logins, without_secrets
from roiflow.warm import client, server

LONGEST = 120
"""Of an interpreter's path in the first line of a program, in bytes."""


def folder_of(home: Path) -> Path:
    """Where the warm process of a home listens, and the `python` that asks it."""
    return home.absolute() / "warm"


def interpreter(home: Path) -> Path:
    """The `python` of a home's programs: the one that asks the warm process, where there is one."""
    asks = folder_of(home) / "bin" / "python"
    return asks if listens(home) else Path(sys.executable)


def listens(home: Path) -> bool:
    """Whether a home's warm process is ready."""
    # The socket appears once all packages are loaded: before that nobody waits for them.
    return (folder_of(home) / "socket").exists()


def command(home: Path) -> tuple[str, ...]:
    """What starts the warm process of a home; its `python` is there then."""
    folder = folder_of(home)
    # No variable and no site-packages: the client needs neither, and `-IS` starts many times
    # faster.
    own = f"#!{sys.executable} -IS\n{Path(client.__file__).read_text()}"
    with write_file(folder / "bin" / "python") as aside:
        aside.write_text(own)
        aside.chmod(0o700)
    return (sys.executable, "-uP", server.__file__, str(folder))


def environment() -> dict[str, str]:
    """What it has otherwise than this process: no secret, no server's login, no run's code."""
    told = without_logins(without_secrets(os.environ))
    left_out = os.environ.keys() - told.keys() | {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}
    # pyarrow's allocator gives back memory in a thread of its own; here there must be none.
    return dict.fromkeys(left_out, "") | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}


@contextmanager
def warm(home: Path, patience: float = 0.0) -> Iterator[None]:
    """A warm process for the programs of `home` while the block runs, whose end is its own.

    Up to `patience` seconds are waited for it: programs that start before it is ready load their
    packages themselves, and those that they start do, too.
    """
    log = home.absolute() / "logs" / "warm.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        process = subprocess.Popen(
            command(home),
            env=os.environ | environment(),
            # Never written to: it is closed with this process, killed or not, and that ends the
            # warm one.
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            # Ctrl-C in a terminal goes to a whole group: here it is to reach the programs that were
            # asked for, not the one that holds them all.
            start_new_session=True,
        )
    try:
        end = time.monotonic() + patience
        while time.monotonic() < end and process.poll() is None and not listens(home):
            time.sleep(0.05)
        yield
    finally:
        if process.stdin:
            process.stdin.close()
        process.wait()
