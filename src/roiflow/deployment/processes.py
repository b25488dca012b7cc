"""Own processes on this machine: started in a group each, recorded, ended exactly.

A record holds the process's start time beside its id. An id alone may belong to a later process;
id and start time together never do, and the system gives no process the id of a group that still
has members.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]

from roiflow.errors import ServiceError
from roiflow.files import write_file
from roiflow.settings import without_secrets

TAIL_LINES = 30
ORPHAN_SECONDS = 5.0
"""What a leader leaves behind has so long to end."""


@dataclass(frozen=True)
class Server:
    """What to start, and how to see that it is ready."""

    name: str
    command: tuple[str, ...]
    address: str
    ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path | None = None
    seconds: float = 60.0
    """Longest wait for `ready`."""
    secrets: bool = False
    """Whether it is given the secrets of this environment, too."""


@dataclass(frozen=True)
class Running:
    """A started process; it leads the process group of its own id."""

    name: str
    pid: int
    born: str
    """Boot and start time in the kernel's ticks, which no change of the clock moves."""
    address: str
    log: str


@contextmanager
def _locked(home: Path) -> Iterator[Path]:
    folder = home / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        # Held while servers start or end: two commands at once would start the same one twice. The
        # lock ends with the process, so that a killed one leaves nothing to clear.
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _record(folder: Path, name: str) -> Running | None:
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        return Running(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ServiceError(f"{path}: not the record of a started server: {error}") from None


def _born(process: psutil.Process) -> str:
    # psutil's start time is counted from the boot by the clock, which is set now and then: a record
    # would be of nobody then. Elsewhere than on Linux it is what there is.
    kernel = Path("/proc/sys/kernel/random/boot_id")
    if not kernel.exists():
        return str(process.create_time())
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process.pid) from None
    return f"{kernel.read_text().strip()}:{stat.rpartition(')')[2].split()[19]}"


def _leader(record: Running) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return process if alive and _born(process) == record.born else None
    except psutil.NoSuchProcess:
        return None


def _writes_to(pid: int, log: str) -> bool:
    try:
        return any(Path(f"/proc/{pid}/fd/{fd}").readlink() == Path(log) for fd in (1, 2))
    except OSError:
        return False


def _members(record: Running) -> list[psutil.Process]:
    """The living processes of the group. Without its leader, only those that write its log."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == record.pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    # A group's id is its leader's. Where that one is gone the number may be another group's by now;
    # whoever writes this server's log is ours.
    if _leader(record) is None:
        return [process for process in found if _writes_to(process.pid, record.log)]
    return found


def _end(record: Running, seconds: float) -> None:
    """SIGTERM to the leader, which may end its own; then to what is left; then SIGKILL."""
    # The leader first and alone: uvicorn and Airflow end their own workers in order, and a worker
    # that gets the signal at the same time may drop what it was asked.
    leader = _leader(record)
    if leader:
        _signal(leader, signal.SIGTERM)
        _await_end([leader], seconds)
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = _members(record)
        for process in left:
            _signal(process, number)
        _await_end(left, ORPHAN_SECONDS)
    if left := _members(record):
        raise ServiceError(f"{record.name}: process {left[0].pid} did not end after SIGKILL")


def _await_end(started: Sequence[psutil.Process], seconds: float) -> None:
    # Not psutil's own wait: whose parent asks for nobody's end (the first process of a container)
    # stays a zombie, which it waits for in vain. That one has ended.
    limit = time.monotonic() + seconds
    while any(map(_is_alive, started)) and time.monotonic() < limit:
        time.sleep(0.02)
    psutil.wait_procs(started, timeout=0)  # and of our own children none is left as one


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_port(preferred: int = 0) -> int:
    """`preferred` where nothing listens on it, else one the system picks; on 127.0.0.1."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceError("no free port on 127.0.0.1")


def port_of(name: str, home: Path, preferred: int) -> int:
    """The port that a recorded server has, or had if it ended by itself and nothing took it since.

    Others were started with its address and go on asking there. Without a record, `preferred` or a
    free one.
    """
    record = _record(home / "servers", name)
    if record is None:
        return free_port(preferred)
    port = urlsplit(record.address).port or preferred
    return port if _leader(record) else free_port(port)


def recorded(home: Path) -> list[Running]:
    """Every recorded process; some may have ended by themselves."""
    records = [_record(home / "servers", path.stem) for path in (home / "servers").glob("*.json")]
    return sorted((record for record in records if record), key=lambda record: record.name)


def running(home: Path) -> dict[str, Running]:
    """The recorded processes that are alive, by name."""
    return {record.name: record for record in recorded(home) if _leader(record)}


def start(servers: Sequence[Server], home: Path) -> list[Running]:
    """Start those of `servers` that do not run already; return once all are ready.

    Output goes to <home>/logs/<name>.log. Raises ServiceError with the log's tail where one ends
    or is not ready in time; every one that this call started is ended then.
    """
    with _locked(home) as folder:
        launched: list[tuple[Server, Running]] = []
        records = []
        try:
            for server in servers:
                record = _record(folder, server.name)
                if record is None or _leader(record) is None:
                    if record:
                        _end(record, seconds=5.0)
                    record = _launch(server, home, folder)
                    launched.append((server, record))
                records.append(record)
            for server, record in launched:
                _wait(server, record)
        except BaseException:
            # What ran before this call is left as it was, and what it started is not left half up.
            for _, record in launched:
                _end(record, seconds=5.0)
                (folder / f"{record.name}.json").unlink()
            raise
        return records


def _launch(server: Server, home: Path, folder: Path) -> Running:
    log = home / "logs" / f"{server.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = dict(os.environ) if server.secrets else without_secrets(os.environ)
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(
                server.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=inherited | without_proxy(inherited) | server.environment,
                cwd=server.folder,
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"{server.name}: {server.command[0]}: {error.strerror}") from None
    born = _born(psutil.Process(child.pid))
    child.returncode = 0  # it outlives this object, which would otherwise warn of that
    record = Running(server.name, child.pid, born, server.address, str(log.resolve()))
    with write_file(folder / f"{server.name}.json") as aside:
        aside.write_text(json.dumps(asdict(record), indent=1) + "\n")
    return record


def _wait(server: Server, record: Running) -> None:
    limit = time.monotonic() + server.seconds
    fault = f"was not ready after {server.seconds:g} s"
    while time.monotonic() < limit:
        if _leader(record) is None:
            fault = "ended before it was ready"
            break
        if server.ready():
            return
        time.sleep(0.05)
    end = tail(Path(record.log))
    raise ServiceError(f"{server.name}: {fault}; the end of {record.log}:\n{end}")


def stop(name: str, home: Path, seconds: float = 15.0) -> bool:
    """End the process recorded as `name` and its group; whether there was one alive.

    SIGTERM to the leader, SIGKILL to what is left after `seconds`.
    """
    with _locked(home) as folder:
        record = _record(folder, name)
        if record is None:
            return False
        alive = bool(_members(record))
        if alive:
            _end(record, seconds)
        (folder / f"{name}.json").unlink()
        return alive


def stop_all(home: Path, seconds: float = 15.0) -> list[str]:
    """End every recorded process, all at the same time; the names of what was alive."""
    with _locked(home) as folder:
        records = [record for record in recorded(home) if _members(record)]
        for record in records:
            if leader := _leader(record):
                _signal(leader, signal.SIGTERM)
        for record in records:
            _end(record, seconds)
        for path in folder.glob("*.json"):
            path.unlink()
    return [record.name for record in records]


def reload(name: str, home: Path) -> None:
    """Send SIGHUP to a running server. Raises ServiceError where it does not run."""
    record = running(home).get(name)
    if record is None:
        raise ServiceError(f"{name}: does not run, so it cannot be reloaded")
    os.kill(record.pid, signal.SIGHUP)


def http_ready(url: str, accept: Callable[[bytes], bool] = lambda _: True) -> Callable[[], bool]:
    """Whether a GET of `url` answers below 400 with a body that `accept` takes."""
    import http.client

    def ready() -> bool:
        try:
            return accept(ask(url))
        except (OSError, http.client.HTTPException):
            return False

    return ready


def ask(url: str, seconds: float = 2.0) -> bytes:
    """The body of a GET of a server of this machine, which no proxy of the environment stands for.

    Raises urllib's HTTPError from status 400 on, OSError where nothing answers in time.
    """
    import urllib.request

    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=seconds) as answer:
        content: bytes = answer.read()
    return content


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """What tells a child process that servers of this machine are asked without a proxy."""
    named = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [*filter(None, named.split(",")), "127.0.0.1", "localhost"]
    return dict.fromkeys(("no_proxy", "NO_PROXY"), ",".join(dict.fromkeys(hosts)))


def port_ready(port: int) -> Callable[[], bool]:
    """Whether something accepts connections on 127.0.0.1:`port`."""

    def ready() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return True
        except OSError:
            return False

    return ready
