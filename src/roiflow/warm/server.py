"""The warm process: third-party packages loaded once, and a fork of it for each program of a run.

A stage or a job is a program of its own, so that a run's code comes from the run's own copy and a
program that is killed takes nothing with it. What that costs is loading: 1.5 to 4 s of CPU for a
stage that takes two, and DVC's own on top. Here the packages are loaded once; each program is a
fork that starts with them. Only third-party packages: a module of roiflow is never loaded here, so
that each fork takes it from its own PYTHONPATH.

It stays a single thread, because a fork has no other thread than the one that forked; a package
that starts one as it loads is left to the forks. A program's environment, which may hold
passwords, is read by its fork and never by this process.

Called by path, `python -uP server.py FOLDER`, so that no package of roiflow is loaded. It ends with
SIGTERM, and where its standard input is a pipe, when that is closed.
"""

import atexit
import copy
import ctypes
import gc
import importlib
import io
import os
import runpy
import select
import signal
import socket
import stat
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

PACKAGES = (
    "numpy", "scipy.sparse", "scipy.stats", "pandas", "pyarrow.parquet", "pyarrow.compute",
    "pyarrow.dataset", "pyarrow.csv", "pydantic_settings", "ruamel.yaml", "yaml", "rich.table",
    "rich.progress", "jinja2", "psutil", "redis", "httpx", "numba",
    "xgboost", "torch", "onnx", "matplotlib.pyplot", "dvc.cli",
    "dvc.commands.repro", "dvc.repo", "dvc.repo.reproduce", "mlflow", "evidently",
    "evidently.presets", "evidently.ui.workspace",
)  # fmt: skip
"""What stages, jobs and DVC load."""
LEFT_OUT = ("polars",)
"""What a package loads where it is there: it starts threads, and no program of ours uses it."""
READ_AT_LOAD = (
    "OMP_", "MKL_", "OPENBLAS_", "GOMP_", "KMP_", "NUMBA_", "TORCH_", "PYTORCH_", "CUDA_", "LD_",
    "MPL", "PYTHON", "LANG", "LC_", "TZ", "HOME", "XDG_", "SSL_",
)  # fmt: skip
"""Beginnings of variables that libraries read as they load: a program with others is refused."""
READ_ANEW = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
"""Of these, what a fork does as its program's environment says."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Program:
    """What one fork runs."""

    folder: bytes
    module: str
    arguments: list[str]
    environment: dict[bytes, bytes]

    @classmethod
    def parse(cls, request: bytes) -> "Program":
        """From what the client sends."""
        folder, module, count, *rest = request.split(b"\0")
        pairs = (pair.partition(b"=") for pair in rest[int(count) :])
        arguments = [os.fsdecode(argument) for argument in rest[: int(count)]]
        environment = {name: value for name, _, value in pairs}
        return cls(folder, os.fsdecode(module), arguments, environment)


def different(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> list[str]:
    """Variables for which packages would load in another way in one environment than in another."""
    names = {os.fsdecode(name) for name in one.keys() ^ other.keys()}
    names |= {os.fsdecode(name) for name, text in one.items() if other.get(name) != text}
    return sorted(name for name in names - READ_ANEW if name.startswith(READ_AT_LOAD))


def main() -> None:
    """Load, listen, fork; in a fork, run its program and end with it."""
    folder, started = Path(sys.argv[1]), dict(os.environb)
    load()
    added = {name: text for name, text in os.environb.items() if name not in started}
    client = Forks(folder).serve()
    if client is not None:
        run(client, started, added)


def load() -> None:
    """Import the packages. Raises RuntimeError where one left a thread, or loaded roiflow."""
    gc.disable()  # what is loaded stays: there is nothing to collect
    sys.modules.update(dict.fromkeys(LEFT_OUT))  # type: ignore[arg-type]  # None: not importable
    for name in PACKAGES:
        # An extra that is not installed here is one that no program here can use.
        with suppress(ImportError):
            importlib.import_module(name)
    for name in LEFT_OUT:
        del sys.modules[name]
    remember_yaml()
    if found := [name for name in sys.modules if name.partition(".")[0] == "roiflow"]:
        raise RuntimeError(f"{found[0]} was loaded: a run brings its own")
    # OpenBLAS ends its threads when the process forks, and starts them again where they are used.
    if not (pid := os.fork()):
        os._exit(0)
    os.waitpid(pid, 0)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise RuntimeError(f"{threads} threads: a fork would lack all but one")
    gc.freeze()  # and a fork's collections need not touch it, which would copy it
    gc.enable()


def remember_yaml() -> None:
    """Let DVC parse a text of YAML once. Raises AttributeError on a DVC that does it otherwise.

    DVC parses dvc.yaml, dvc.lock and params.yaml anew for each stage, and the lock once more for
    each stage that it writes there, by a parser that is all Python: a second of CPU a stage, where
    our lock names every file of code. What was parsed, or written, is remembered by its text; what
    it writes is the same byte for byte.
    """
    try:
        from dvc.utils import strictyaml  # type: ignore[import-untyped]
        from dvc.utils.serialize import _yaml  # type: ignore[import-untyped]
    except ImportError:
        return
    parse, dump, known = _yaml.parse_yaml, _yaml._dump, dict[str, Any]()

    def parse_once(text: str, path: str, typ: str = "safe") -> Any:
        # To write a file again, DVC parses it with its comments and line breaks. Nobody sets out a
        # lock; the other files keep what people wrote.
        if typ == "rt" and not str(path).endswith("dvc.lock"):
            return parse(text, path, typ)
        if text not in known:
            known[text] = parse(text, path)
        return copy.deepcopy(known[text])

    def dump_and_know(data: Any, stream: TextIO) -> None:
        whole = io.StringIO()
        dump(data, whole)
        known[whole.getvalue()] = copy.deepcopy(data)
        stream.write(whole.getvalue())

    _yaml.parse_yaml = strictyaml.parse_yaml = parse_once
    _yaml._dump = dump_and_know


@dataclass
class Forks:
    """The forks that run now, and who asked for each."""

    folder: Path
    asked: dict[int, tuple[int, socket.socket]] = field(default_factory=dict)
    """By the descriptor of the fork: its process id and its client's connection."""
    poll: select.poll = field(default_factory=select.poll)
    stopped: bool = False

    def serve(self) -> socket.socket | None:
        """Fork for each client until told to end; returns in a fork, with its client."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's: each client hands it on
        listener = listen(self.folder)
        self.poll.register(listener, select.POLLIN)
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            self.poll.register(0, 0)  # nothing but that its other end was closed
        while not self.stopped:
            # A signal that sets `stopped` does not end the wait, which goes on where it was: once a
            # second it is looked at.
            for number, _ in self.poll.poll(1000):
                if number == 0:
                    self.stopped = True
                elif number == listener.fileno():
                    if (client := self._fork(listener)) is not None:
                        return client
                elif number in self.asked:
                    self._ended(number)
                else:
                    self._left(number)
        Path("socket").unlink(missing_ok=True)
        for pid, _ in self.asked.values():
            kill(pid)
        return None

    def _stop(self, _number: int, _frame: object) -> None:
        self.stopped = True

    def _fork(self, listener: socket.socket) -> socket.socket | None:
        client, _ = listener.accept()
        parent = os.getpid()
        if pid := os.fork():
            handle = os.pidfd_open(pid)
            self.asked[handle] = pid, client
            self.poll.register(handle, select.POLLIN)
            # Only that the client ended: what it sends is for the fork.
            self.poll.register(client, select.POLLRDHUP)
            return None
        # A fork must not outlive this process, and must not keep open what tells of its end.
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have ended before the line above, which tells only of ends after it.
        if os.getppid() != parent:
            os._exit(1)
        listener.close()
        for handle, (_, other) in self.asked.items():
            os.close(handle)
            other.close()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return client

    def _ended(self, handle: int) -> None:
        """Tell the client how its program ended."""
        pid, client = self.asked.pop(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.poll.unregister(handle)
        os.close(handle)
        with suppress(KeyError):  # a client that has left
            self.poll.unregister(client)
        with suppress(OSError), client:
            client.sendall(f"ended {status}\n".encode())

    def _left(self, connection: int) -> None:
        """A client that ended before its program takes the program with it."""
        self.poll.unregister(connection)
        for pid, client in self.asked.values():
            if client.fileno() == connection:
                kill(pid)


def listen(folder: Path) -> socket.socket:
    """The socket in `folder`, for this user alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(folder)  # a socket's name has 107 bytes at most, a folder's may have more
    Path("socket").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    # The mode has to be right as the name appears: whoever connects runs code as this user.
    before = os.umask(0o177)
    listener.bind("socket")
    os.umask(before)
    listener.listen(16)
    return listener


def kill(pid: int) -> None:
    """End a fork and what it started."""
    for send in (os.killpg, os.kill):  # it leads no group yet where it was forked just now
        with suppress(ProcessLookupError):
            send(pid, signal.SIGKILL)


def run(client: socket.socket, started: dict[bytes, bytes], added: dict[bytes, bytes]) -> None:
    """Be the program that the client asks for, and end as it ends.

    Refused where packages would have loaded in another way than in the environment `started`.
    What packages have `added` to it as they loaded they have added to this program's.
    """
    program, descriptors = receive(client)
    if other := different(added | program.environment, added | started):
        print(f"{program.module} is left to the interpreter: another {other[0]}", file=sys.stderr)
        os._exit(0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    client.sendall(f"runs {os.getpid()}\n".encode())
    client.close()
    become(program, added)
    os._exit(exit_code(program.module))


def receive(client: socket.socket) -> tuple[Program, list[int]]:
    """The request, and the three descriptors of its program; ends where it does not come whole."""
    head, descriptors, _, _ = socket.recv_fds(client, 8, 3)
    size, content = int.from_bytes(head, "big"), b""
    # A stream gives what has come, and an environment may come in parts.
    while len(content) < size and (part := client.recv(size - len(content))):
        content += part
    if len(head) != 8 or len(descriptors) != 3 or len(content) != size:
        os._exit(1)
    return Program.parse(content), descriptors


def become(program: Program, added: dict[bytes, bytes]) -> None:
    """Take the program's environment, folder, arguments and path, as `python -m` would."""
    os.environb.clear()
    os.environb.update(added | program.environment)
    os.chdir(program.folder)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [str(Path.cwd()), *filter(None, own), *sys.path]
    sys.argv[:] = [program.module, *program.arguments]
    # The import system remembers folders by their time; a run's code may be younger than the fork's
    # memory of them.
    importlib.invalidate_caches()
    sys.modules["numpy"].random.seed()  # or every fork would draw the same


def exit_code(module: str) -> int:
    """Run a module as a program; its exit code, once what ends with it has ended.

    The interpreter is not taken down: to give back a gigabyte of packages piece by piece takes CPU.
    A bug goes on up to the interpreter, which says where it was.
    """
    code: int | str | None = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    # The process ends without the interpreter's own clean-up, which is what writes these out
    # otherwise.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    return (code or 0) & 0xFF


if __name__ == "__main__":
    main()
