"""Why a program of a run ended, from the last lines that it said."""

import re
from collections.abc import Sequence

from roiflow.errors import RoiflowError, RunError, StoppedError

_BUSY = re.compile(
    r"^ERROR: (?:failed to reproduce .*?: )?"
    r"(?:'.+' is busy, it is being blocked by:"
    r"|Unable to acquire lock\. Most likely another DVC process is running)"
)
"""DVC's two errors on a lock that another process holds (dvc/rwlock.py and dvc/lock.py)."""
_ERROR = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w+: .+)$")


def busy(tail: Sequence[str]) -> bool:
    """Whether DVC ended because another DVC process holds a lock."""
    last = next((line for line in reversed(tail) if line.startswith("ERROR: ")), "")
    return _BUSY.match(last) is not None


def failure(what: str, tail: Sequence[str], code: int) -> RunError:
    """What a program's end means: StoppedError where the reason is none of roiflow's own.

    A server that is away may be back, too; every other error of roiflow's would come again.
    """
    why = reason(tail, code)
    # By name, because all that is left of the error is the line that the program ended with.
    lasting = {one.__name__ for one in _kinds(RoiflowError)} - {"ServiceError", "StoppedError"}
    kind = RunError if why.partition(":")[0] in lasting else StoppedError
    return kind(f"{what}: {why}")


def _kinds(error: type[RoiflowError]) -> list[type[RoiflowError]]:
    return [error, *(kind for one in error.__subclasses__() for kind in _kinds(one))]


def reason(tail: Sequence[str], code: int) -> str:
    """The last line of the form `SomeError: text`, or else the last line there is."""
    if busy(tail):  # a stage before it may have ended well, and said anything
        start = max(place for place, line in enumerate(tail) if line.startswith("ERROR: "))
        return " ".join(line.strip() for line in tail[start : start + 2])
    named = [match[1] for line in tail if (match := _ERROR.match(line))]
    # DVC's own line says only that a stage failed; the stage's error, said before it, says why.
    own = [line for line in named if not line.startswith(("ERROR", "WARNING"))]
    # DVC's word, where the stage left none: it was killed, or DVC itself refused.
    last = next((line for line in reversed(tail) if line.startswith("ERROR: ")), None)
    if own:
        return own[-1]
    return last or f"exit code {code}: {tail[-1] if tail else 'no output'}"
