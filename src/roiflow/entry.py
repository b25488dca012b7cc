"""How a program of roiflow ends: an expected failure is one line and exit code 1.

Expected is what roiflow raises on purpose, and what a disk, a server or a file of somebody else's
does: it names the place and what to do. Everything else is a bug and keeps its traceback.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roiflow.errors import RoiflowError
from roiflow.files import no_room

VENDORS = {
    "pyarrow": ("ArrowException",),
    "httpx": ("TransportError",),
    "redis.exceptions": ("ConnectionError", "TimeoutError"),
    "requests.exceptions": ("RequestException",),
    "sqlalchemy.exc": ("OperationalError",),
    "mlflow.exceptions": ("MlflowException",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "confluent_kafka": ("KafkaException",),
}
"""Module -> its errors for what goes wrong outside this program."""

REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space there, or let ROIFLOW_HOME name a larger disk",
    errno.EDQUOT: "the quota is used up: free some space, or let ROIFLOW_HOME name another disk",
    errno.EACCES: "this user may not: change owner or mode, or let ROIFLOW_HOME name a folder of "
    "your own",
    errno.EPERM: "this user may not: change its owner, or let ROIFLOW_HOME name a folder of your "
    "own",
    errno.EROFS: "it can only be read: let ROIFLOW_HOME name a folder that can be written",
    errno.ENOENT: "check the name, or run the step that makes it",
    errno.ENOTDIR: "a part of this path is a file: check the name",
    errno.EISDIR: "this is a folder and a file was expected: check the name",
    errno.EMFILE: "too many open files: raise the limit with `ulimit -n`",
    errno.EADDRINUSE: "the port is taken: end what listens there (`roiflow down`)",
    errno.ECONNREFUSED: "no server answers there: start it (`roiflow up`) or check the address",
    errno.ENOMEM: "out of memory: end other programs, or take fewer weeks",
}
SERVER = "check that the server runs and its address is right (`roiflow status`), then try again"
FILE = "check this file or value at the source, then try again"
_FILES = ("pyarrow",)


@contextmanager
def exit_on_expected() -> Iterator[None]:
    """End the process with one line where the block fails in an expected way; bugs go on up."""
    try:
        yield
    except KeyboardInterrupt:
        # 128 and the signal's number, as a shell has it. There is nothing to explain to whoever
        # pressed the keys.
        sys.exit(130)
    # Evaluated only when something was raised: by then the library that raised it is loaded.
    except expected() as error:
        sys.exit(line_of(error))


def expected() -> tuple[type[BaseException], ...]:
    """What may go wrong without a bug: nobody can have raised the error of an unloaded library."""
    loaded = ((sys.modules.get(module), names) for module, names in VENDORS.items())
    vendors = (getattr(module, name, None) for module, names in loaded for name in names)
    return (RoiflowError, OSError, *(error for error in vendors if error is not None))


def line_of(error: BaseException) -> str:
    """`SomeError: where: what and what to do` of an expected failure."""
    name = type(error).__name__
    if isinstance(error, RoiflowError):
        return f"{name}: {error}"
    if isinstance(error, OSError):
        return f"{name}: {_place(error)}{_reason(error)}"
    remedy = FILE if type(error).__module__.startswith(_FILES) else SERVER
    request = getattr(error, "_request", None)  # httpx says why, and not of which address
    place = f"{request.url}: " if request is not None else ""
    return f"{name}: {place}{_flat(error)}: {remedy}"


def _place(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(names)}: " if names else ""


def _reason(error: OSError) -> str:
    number = error.errno
    # pyarrow and others raise OSError from a text of their own, without a number.
    if number is None and no_room(Path.cwd()):
        number = errno.ENOSPC
    # With a file's name the system's words are the whole story; without, the library's own text may
    # say which file it was.
    said = error.strerror if error.filename is not None else None
    remedy = REMEDIES.get(number or 0) or (SERVER if isinstance(error, ConnectionError) else FILE)
    return f"{said or _flat(error)}: {remedy}"


def _flat(error: BaseException) -> str:
    """The error's first words in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
