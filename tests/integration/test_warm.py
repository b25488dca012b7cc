"""The warm process: a program that is its fork is the program that it would be alone."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from roiflow.warm import server
from roiflow.warm.process import folder_of, interpreter, listens, warm
from tests.worlds import planted_content

ROOT = Path(__file__).parents[2]
PROGRAM = """
    import json, os, signal, sys, time
    from pathlib import Path

    how = sys.argv[1]
    print("out", how)
    print("err", how, file=sys.stderr)
    if how == "tell":
        told = {"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}
        told |= {"path": sys.path[:2], "file": __file__, "name": __name__, "pid": os.getpid()}
        told["loaded"] = "torch" in sys.modules
        told["command"] = Path("/proc/self/cmdline").read_bytes().decode()
        Path(sys.argv[2]).write_text(json.dumps(told))
    if how == "words":
        sys.exit("GateError: nothing to decide on")
    if how == "code":
        sys.exit(7)
    if how == "bug":
        raise KeyError("ad_id")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "waits":
        Path(sys.argv[2]).write_text(str(os.getpid()))
        time.sleep(20)
"""
WORLD = {"users": 300, "ads": 40}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a warm process, in a folder whose name is longer than a socket's may be."""
    made = tmp_path_factory.mktemp("warm") / ("long" * 30) / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with warm(made):
            ready(made)
            yield made
    assert not listens(made)


@pytest.fixture(scope="module")
def only(home: Path) -> Path:
    """The `python` of the warm process without the way back to the real interpreter."""
    text = interpreter(home).read_text()
    assert text.count("os.execv(") == 1
    path = folder_of(home) / "only" / "python"
    path.parent.mkdir()
    path.write_text(
        text.replace("os.execv(", "print(").replace("argv[1:]])", "argv[1:]]), end(99)")
    )
    path.chmod(0o700)
    return path


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's code: another roiflow than the one that is tested."""
    folder = tmp_path_factory.mktemp("code") / "roiflow" / "jobs"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    return folder.parents[1]


def ready(home: Path) -> None:
    limit = time.monotonic() + 240
    while not listens(home):
        assert time.monotonic() < limit, (home / "logs" / "warm.log").read_text()
        time.sleep(0.05)


def variables(code: Path, **more: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONPATH": str(code), "PYTHONUNBUFFERED": "1", **more}


def start(python: Path, code: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(python), "-m", "roiflow.jobs.program", *arguments],
        env=variables(code, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> int:
    process.communicate()
    return process.returncode


def told(python: Path, code: Path, out: Path, **more: str) -> dict[str, Any]:
    assert end(start(python, code, "tell", str(out), "a b", "", **more)) == 0
    content: dict[str, Any] = yaml.safe_load(out.read_text())
    return content


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def wait_for(path: Path) -> str:
    limit = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)
    return path.read_text()


def wait_gone(pid: int) -> None:
    limit = time.monotonic() + 60
    while not gone(pid):
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_program_is_what_it_is_alone_with_its_packages_loaded(
    home: Path, code: Path, tmp_path: Path
) -> None:
    asked = told(interpreter(home), code, tmp_path / "asked", ONLY="this program's")
    alone = told(Path(sys.executable), code, tmp_path / "alone", ONLY="this program's")
    assert (asked.pop("loaded"), alone.pop("loaded")) == (True, False)
    assert "server.py" in asked.pop("command")
    assert "server.py" not in alone.pop("command")
    assert asked.pop("pid") != alone.pop("pid")
    for one in (asked, alone):
        one["argv"].pop(1)
    set_by_packages = {"KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
    for name in asked["environ"].keys() - alone["environ"].keys():
        assert name in set_by_packages, name
        del asked["environ"][name]
    assert asked == alone


@pytest.mark.parametrize("how", ["words", "code", "bug", "killed", "ends"])
def test_it_ends_as_it_ends_alone(home: Path, code: Path, how: str) -> None:
    ends = []
    for python in (interpreter(home), Path(sys.executable)):
        process = start(python, code, how)
        out, err = process.communicate()
        ends.append((process.returncode, out, err.splitlines()[:1], err.splitlines()[-1:]))
    assert ends[0] == ends[1]


def test_what_is_asked_for_by_one_is_not_known_to_the_next(
    home: Path, code: Path, tmp_path: Path
) -> None:
    told(interpreter(home), code, tmp_path / "first", ROIFLOW_SQL="pa55-of-the-shop")
    assert "ROIFLOW_SQL" not in told(interpreter(home), code, tmp_path / "second")["environ"]
    pid = parent(home, code, tmp_path)
    for map_ in Path(f"/proc/{pid}/maps").read_text().splitlines():
        start_, _, end = map_.split()[0].partition("-")
        if "[heap]" not in map_:
            continue
        with Path(f"/proc/{pid}/mem").open("rb") as memory:
            memory.seek(int(start_, 16))
            assert b"pa55-of-the-shop" not in memory.read(int(end, 16) - int(start_, 16))


def parent(home: Path, code: Path, folder: Path) -> int:
    """The warm process itself."""
    process = start(interpreter(home), code, "waits", str(folder / "parent"))
    pid = int(wait_for(folder / "parent"))
    found = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    process.kill()
    end(process)
    return found


def test_another_environment_for_the_packages_is_the_real_interpreter_s(
    home: Path, code: Path, tmp_path: Path
) -> None:
    other = told(interpreter(home), code, tmp_path / "other", OMP_NUM_THREADS="3")
    assert not other["loaded"]
    assert other["environ"]["OMP_NUM_THREADS"] == "3"


def test_whoever_is_not_this_user_cannot_ask(home: Path) -> None:
    assert (folder_of(home) / "socket").stat().st_mode & 0o777 == 0o600


def test_a_killed_program_takes_its_fork_with_it(home: Path, code: Path, tmp_path: Path) -> None:
    process = start(interpreter(home), code, "waits", str(tmp_path / "pid"))
    pid = int(wait_for(tmp_path / "pid"))
    process.kill()
    end(process)
    wait_gone(pid)
    assert end(start(interpreter(home), code, "ends")) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_the_fork_s(home: Path, code: Path, tmp_path: Path, number: int) -> None:
    ends = []
    for python in (interpreter(home), Path(sys.executable)):
        path = tmp_path / f"{python.parents[1].name}-{number}"
        process = start(python, code, "waits", str(path))
        wait_for(path)
        process.send_signal(number)
        _, err = process.communicate()
        ends.append((process.returncode, err.splitlines()[-1:]))
    assert ends[0] == ends[1]


def test_without_a_warm_process_it_is_the_real_interpreter(code: Path, tmp_path: Path) -> None:
    with warm(tmp_path, 120.0):
        asks = interpreter(tmp_path)
        assert asks != Path(sys.executable)  # it was waited for
        first = start(asks, code, "waits", str(tmp_path / "pid"))
        pid = int(wait_for(tmp_path / "pid"))
    assert end(first) == -signal.SIGKILL
    wait_gone(pid)
    assert interpreter(tmp_path) == Path(sys.executable)
    assert not told(asks, code, tmp_path / "told")["loaded"]


def test_a_killed_warm_process_takes_its_programs_with_it(code: Path, tmp_path: Path) -> None:
    with warm(tmp_path):
        ready(tmp_path)
        process = start(interpreter(tmp_path), code, "waits", str(tmp_path / "pid"))
        pid = int(wait_for(tmp_path / "pid"))
        server = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        assert end(process) == -signal.SIGKILL
        wait_gone(pid)
        assert not told(interpreter(tmp_path), code, tmp_path / "told")["loaded"]


def test_a_killed_repro_takes_its_stage_with_it(only: Path, code: Path, tmp_path: Path) -> None:
    stage = {"cmd": "python -m roiflow.jobs.program waits pid", "outs": ["pid"]}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"slow": stage}}))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    real = Path(sys.executable)
    subprocess.run([real, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    path = os.pathsep.join([str(only.parent), os.environ["PATH"]])
    with subprocess.Popen(
        ["python", "-m", "dvc", "repro"], cwd=tmp_path, env=variables(code, PATH=path)
    ) as process:
        pid = int(wait_for(tmp_path / "pid"))
        process.kill()
    wait_gone(pid)
    assert not (tmp_path / "dvc.lock").exists()


def test_dvc_repro_leaves_the_same_bytes(only: Path, tmp_path: Path) -> None:
    """The stages of the real pipeline up to the ranker, in a small world."""
    locks = []
    for python in (Path(sys.executable), only):
        folder = tmp_path / python.parent.name
        for name in ("src", ".dvc/config", ".dvcignore", "dvc.yaml"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        content = planted_content()
        content["ingest"]["simulator"]["synthetic"] |= WORLD
        content["train_ranker"] |= {"epochs": 1}
        (folder / "params.yaml").write_text(yaml.safe_dump(content))
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
        done = subprocess.run(
            ["python", "-m", "dvc", "repro", "train_candidates", "train_ranker"],
            cwd=folder,
            env=variables(folder / "src", PATH=path, ROIFLOW_HOME=str(folder / "home")),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        locks.append((folder / "dvc.lock").read_text())
    assert locks[0] == locks[1]


def test_dvc_writes_the_same_lock_where_a_text_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock is written, a stage of it altered and another added; dvc.yaml keeps its comments."""
    from dvc.utils import strictyaml  # type: ignore[import-untyped]
    from dvc.utils.serialize import _yaml, load_yaml  # type: ignore[import-untyped]

    # Put back at the end, whatever `remember_yaml` sets.
    for module, name in ((_yaml, "parse_yaml"), (_yaml, "_dump"), (strictyaml, "parse_yaml")):
        monkeypatch.setattr(module, name, getattr(module, name))
    digits = "12345678901234567890123456789e12"

    def written(folder: Path) -> list[bytes]:
        folder.mkdir()
        found = []
        values: tuple[Any, ...] = (digits, 1e-05, "no", None, [], {"deep": [1, 2.5, "yes"]})
        for number, value in enumerate(values):
            with _yaml.modify_yaml(folder / "dvc.lock") as lock:
                lock.setdefault("schema", "2.0")
                stages = lock.setdefault("stages", OrderedDict())
                stages["first"] = OrderedDict(cmd="python -m one", params=value)
                stages[f"more {number}"] = OrderedDict(deps=[OrderedDict(md5=digits, size=12)])
            assert load_yaml(folder / "dvc.lock")["stages"]["first"]["params"] == value
            found.append((folder / "dvc.lock").read_bytes())
        (folder / "dvc.yaml").write_text("# a remark\nstages:\n  one:   {cmd: true}\n")
        with _yaml.modify_yaml(folder / "dvc.yaml") as pipeline:
            pipeline["more"] = 1
        return [*found, (folder / "dvc.yaml").read_bytes()]

    own = written(tmp_path / "own")
    server.remember_yaml()
    assert written(tmp_path / "remembered") == own
    assert b"# a remark" in own[-1]
