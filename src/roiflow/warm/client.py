"""`python` for the programs of a run: asks the warm process for a fork, or is the real interpreter.

A copy of this file, with the environment's interpreter in its first line, lies beside the warm
process's socket as bin/python, first in the PATH of a run. It needs the standard library alone:
`python -IS` starts in 20 ms, where the packages of a stage take seconds to load.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MODULES = ("dvc", "roiflow.stages.", "roiflow.jobs.")
"""What the warm process is asked for; every other program is the real interpreter's."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Be `python` with these arguments."""
    # Options before -m, a script or -c ask for an interpreter in other ways, and get one.
    if sys.argv[1:2] == ["-m"] and len(sys.argv) > 2 and sys.argv[2].startswith(MODULES):
        status = call(Path(sys.argv[0]).absolute().parents[1], sys.argv[2], sys.argv[3:])
        if status is not None:
            end(status)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


def call(folder: Path, module: str, arguments: list[str]) -> int | None:
    """Run `module` in a fork of the warm process of `folder`, with this process's descriptors.

    Its exit code, or minus the signal that ended it; None where there is no warm process, or none
    that fits this environment. Nothing has run then.
    """
    connection = connect(folder)
    if connection is None:
        return None
    with connection, connection.makefile("rb") as answers:
        request = request_of(module, arguments)
        try:
            # The fork writes to this process's own output: no byte of it goes through here.
            socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(request)
            runs = answers.readline().removeprefix(b"runs ")
        except OSError:
            return None
        # It was refused, or its process is gone, before anything ran: the real interpreter may do
        # it.
        if not runs.strip().isdigit():
            return None
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, _forward(int(runs)))
        # The warm process closes the connection when it is killed, and its forks go with it.
        return int(answers.readline().removeprefix(b"ended ") or -signal.SIGKILL)


def connect(folder: Path) -> socket.socket | None:
    """A connection to the warm process of `folder`; None where none listens."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        # A socket's name has 107 bytes at most, a folder's may have more.
        inside = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{inside}/socket")
        finally:
            os.close(inside)
    except OSError:
        connection.close()
        return None
    return connection


def request_of(module: str, arguments: list[str]) -> bytes:
    """What to run, where, and the whole environment, as fields that end with a zero byte."""
    fields = [os.fsencode(Path.cwd()), os.fsencode(module), str(len(arguments)).encode()]
    fields += [os.fsencode(argument) for argument in arguments]
    fields += [name + b"=" + value for name, value in os.environb.items()]
    return b"\0".join(fields)


def _forward(pid: int) -> Callable[[int, object], None]:
    def forward(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            # The group, because a stage has children.
            os.killpg(pid, number)

    return forward


def end(status: int) -> None:
    """End as the fork ended: by the same signal, where it was one."""
    if status >= 0:
        os._exit(status)
    if -status in FORWARDED:
        # Whoever waits is to see a signal as one, not as an exit code.
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
    # As a shell says it: reached only where the signal is ignored or blocked.
    os._exit(128 - status)


if __name__ == "__main__":
    main()
