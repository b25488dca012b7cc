"""One checkout per run over one DVC cache: real git, real DVC, a tiny pipeline."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from pydantic import SecretStr

from roiflow.data import lake
from roiflow.errors import ParamsError, RunError, UnknownWeek
from roiflow.stages.ingest import VOCABULARY
from roiflow.weekly import run
from roiflow.weekly.checkout import checkout_of, code_of, commit, prepare
from roiflow.weekly.reasons import busy, reason
from tests.clones import clone_tree
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND

ROOT = Path(__file__).parents[2]

PIPELINE = """
stages:
  ingest:
    cmd: python -m tiny ingest data/raw
    deps: [src/tiny.py]
    params: [ingest]
    outs: [data/raw]
  evaluate:
    cmd: python -m tiny evaluate data/score
    deps: [data/raw]
    params: [evaluate.seed]
    outs: [data/score]
  export:
    cmd: python -m tiny export data/package
    deps: [data/score]
    params: [export.parity_rows]
    outs: [data/package]
"""
STAGES = ("ingest", "evaluate", "export")
STAGE = """
    import os, sys, time
    from pathlib import Path

    import yaml

    stage, out = sys.argv[1], Path(sys.argv[2])
    params = yaml.safe_load(Path("params.yaml").read_text())
    with Path("ran.log").open("a") as log:
        log.write(stage + "\\n")
    out.mkdir(parents=True)
    (out / "half").write_text("half of it")
    if Path("slow").exists() and stage == "evaluate":
        Path("slow").write_text("started")
        time.sleep(60)
    if Path("environ").exists():
        print(dict(os.environ))
        (out / "environ").write_bytes(Path("/proc/self/environ").read_bytes())
    if params["ingest"]["week"] == "2026-W08" and stage == "evaluate":
        sys.exit("RunError: dvc.lock blocks the table 'clicks': it is busy, try the lock later")
    if params["ingest"]["week"] == "2026-W09" and stage == "evaluate":
        sys.exit("GateError: week 2026-W09: nothing to evaluate")
    (out / "half").unlink()
    (out / "whole").write_text(str(params[stage]))
"""
IDENTITY = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *IDENTITY, *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A fresh repository with the real params.yaml and a three-stage pipeline."""
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (folder / ".dvc" / "config").write_bytes((ROOT / ".dvc" / "config").read_bytes())
    (folder / ".dvcignore").write_bytes((ROOT / ".dvcignore").read_bytes())
    (folder / ".gitignore").write_text("/data/\n/.dvc/cache/\n/.dvc/tmp/\n/.dvc/config.local\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "src" / "tiny.py").write_text(textwrap.dedent(STAGE))
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Start")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def ran(checkout: Path) -> list[str]:
    log = checkout / "ran.log"
    return log.read_text().split() if log.exists() else []


def everything(checkout: Path, home: Path) -> list[str]:
    lines: list[str] = []
    run.repro(checkout, home, STAGES, lines.append)
    return lines


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_second_run_runs_nothing_and_one_number_runs_its_dependents(
    repository: Path, home: Path
) -> None:
    checkout = prepare(repository, home, "simulator", "2026-W05")
    everything(checkout, home)
    assert ran(checkout) == ["ingest", "evaluate", "export"]
    everything(checkout, home)
    assert ran(checkout) == ["ingest", "evaluate", "export"]
    edit(repository / "params.yaml", "parity_rows: 10000", "parity_rows: 10001")
    assert prepare(repository, home, "simulator", "2026-W05") == checkout
    everything(checkout, home)
    assert ran(checkout) == ["ingest", "evaluate", "export", "export"]


def test_a_run_holds_its_week_and_leaves_the_main_checkout_alone(
    repository: Path, home: Path
) -> None:
    before = git(repository, "status", "--porcelain")
    checkout = prepare(repository, home, "kuairand", "2022-W18")
    text = (checkout / "params.yaml").read_text()
    assert "source: kuairand" in text
    assert "week: 2022-W18" in text
    shipped = (ROOT / "params.yaml").read_text()
    assert [line.partition("#")[2] for line in text.splitlines()] == [
        line.partition("#")[2] for line in shipped.splitlines()
    ]
    assert git(repository, "status", "--porcelain") == before
    assert (repository / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_the_cache_is_shared_by_runs(repository: Path, home: Path) -> None:
    first = prepare(repository, home, "simulator", "2026-W05")
    everything(first, home)
    git(repository, "worktree", "remove", "--force", str(first))
    again = prepare(repository, home, "simulator", "2026-W05")
    everything(again, home)
    assert ran(again) == []
    assert (again / "data" / "package" / "whole").exists()


def test_equal_runs_have_equal_commits_and_other_weeks_others(repository: Path, home: Path) -> None:
    checkout = prepare(repository, home, "simulator", "2026-W05")
    everything(checkout, home)
    made = commit(checkout)
    assert commit(checkout) == made
    prepare(repository, home, "simulator", "2026-W05")
    everything(checkout, home)
    assert commit(checkout) == made
    assert set(git(repository, "show", "--name-only", "--format=", made).split()) == {
        "params.yaml",
        "dvc.lock",
    }
    other = prepare(repository, home, "simulator", "2026-W06")
    everything(other, home)
    assert commit(other) != made
    assert git(repository, "cat-file", "-t", made) == "commit"
    assert git(repository, "rev-parse", "HEAD") != made


def test_uncommitted_and_untracked_edits_count(repository: Path, home: Path) -> None:
    (repository / "src" / "new.py").write_text("NUMBER = 3\n")
    edit(repository / "params.yaml", "parity_rows: 10000", "parity_rows: 7")
    checkout = prepare(repository, home, "simulator", "2026-W05")
    assert (checkout / "src" / "new.py").read_text() == "NUMBER = 3\n"
    assert (code_of(checkout, home) / "new.py").exists()
    assert "parity_rows: 7" in (checkout / "params.yaml").read_text()
    assert "?? src/new.py" in git(repository, "status", "--porcelain")


def test_code_has_one_copy_per_content(repository: Path, home: Path) -> None:
    first = prepare(repository, home, "simulator", "2026-W05")
    second = prepare(repository, home, "simulator", "2026-W06")
    assert code_of(first, home) == code_of(second, home)
    with (repository / "src" / "tiny.py").open("a") as code:
        code.write("# changed\n")
    third = prepare(repository, home, "simulator", "2026-W07")
    assert code_of(third, home) != code_of(first, home)


def test_a_failing_stage_says_its_own_words_and_keeps_what_was_done(
    repository: Path, home: Path
) -> None:
    checkout = prepare(repository, home, "simulator", "2026-W09")
    with pytest.raises(RunError, match=r"^stage .* GateError: week 2026-W09: nothing to evaluate$"):
        everything(checkout, home)
    assert (checkout / "data" / "raw" / "whole").exists()
    assert "evaluate" not in (checkout / "dvc.lock").read_text()


def test_a_killed_stage_leaves_nothing_that_is_trusted(repository: Path, home: Path) -> None:
    checkout = prepare(repository, home, "simulator", "2026-W05")
    (checkout / "slow").touch()
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "evaluate"],
        cwd=checkout,
        env=run.environment(checkout, home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        limit = time.monotonic() + 60
        while (checkout / "slow").read_text() != "started":
            assert time.monotonic() < limit
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert (checkout / "data" / "score" / "half").exists()
    (checkout / "slow").unlink()
    everything(checkout, home)
    assert ran(checkout) == ["ingest", "evaluate", "evaluate", "export"]
    assert [path.name for path in (checkout / "data" / "score").iterdir()] == ["whole"]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (("simulator", "2026-W54"), UnknownWeek, "2026-W54"),
        (("simulator", "yesterday"), ParamsError, "ingest.week.*yesterday"),
        (("warehouse", "2026-W05"), ParamsError, "ingest.source.*warehouse"),
    ],
)
def test_a_wrong_run_is_refused_before_anything_changes(
    repository: Path, home: Path, asked: tuple[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        prepare(repository, home, *asked)
    assert not checkout_of(home, *asked).exists()


def test_an_unknown_key_stops_the_run_and_keeps_the_earlier_checkout(
    repository: Path, home: Path
) -> None:
    checkout = prepare(repository, home, "simulator", "2026-W05")
    before = (checkout / "params.yaml").read_bytes()
    edit(repository / "params.yaml", "  parity_tolerance:", "  paraty_rows: 3\n  parity_tolerance:")
    with pytest.raises(ParamsError, match=r"params\.yaml: export\.paraty_rows: .*value 3"):
        prepare(repository, home, "simulator", "2026-W05")
    assert (checkout / "params.yaml").read_bytes() == before


NO_LOCK = (
    "ERROR: failed to reproduce 'evaluate': failed to run: python -m tiny, exited with 1",
    "RunError: dvc.lock blocks the table 'clicks': it is busy, try the lock later",
    "'data/raw' is busy, it is being blocked by:",
    "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated",
    "Blocks: 4",
)
LOCKS = (
    "ERROR: Unable to acquire lock. Most likely another DVC process is running or was terminated "
    "abruptly. Check the page <https://dvc.org/doc/user-guide/troubleshooting#lock-issue> for "
    "other possible reasons and to learn how to resolve this.",
    "ERROR: failed to reproduce 'slow': Unable to acquire lock. Most likely another DVC process is "
    "running or was terminated abruptly.",
    "ERROR: failed to reproduce 'next': '/runs/a/data' is busy, it is being blocked by:",
)


class TestLocks:
    """A run waits where another DVC process works, and only there."""

    @pytest.mark.parametrize("line", LOCKS)
    def test_dvcs_own_words(self, line: str) -> None:
        after = ["  (PID 20747): dvc repro -s slow", "", "If there are no processes, remove rwlock"]
        assert busy(["Running stage 'slow':", line, *after])
        assert not busy([line, "ERROR: failed to reproduce 'slow': exited with 1"])

    def test_a_stages_words(self) -> None:
        assert not busy([*NO_LOCK[1:], NO_LOCK[0]])
        assert not busy(NO_LOCK[1:3])
        assert not busy([])

    def test_a_failure_that_speaks_of_locks_happens_once(
        self, repository: Path, home: Path
    ) -> None:
        checkout = prepare(repository, home, "simulator", "2026-W08")
        with pytest.raises(RunError, match=r"RunError: dvc\.lock blocks the table 'clicks'"):
            everything(checkout, home)
        assert ran(checkout) == ["ingest", "evaluate"]

    @pytest.mark.parametrize("lock", ["lock", "rwlock.lock"])
    def test_a_held_lock_is_waited_for(self, repository: Path, home: Path, lock: str) -> None:
        checkout = prepare(repository, home, "simulator", "2026-W05")
        run.repro(checkout, home, ["ingest"], print)
        lines: list[str] = []
        held = (checkout / ".dvc" / "tmp" / lock).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)

        def show(line: str) -> None:
            lines.append(line)
            if "Unable to acquire lock" in line:
                held.close()

        run.repro(checkout, home, ["evaluate"], show)
        assert any("Unable to acquire lock" in line for line in lines)
        assert ran(checkout) == ["ingest", "evaluate"]

    def test_patience_ends_with_who_holds_it(self, repository: Path, home: Path) -> None:
        checkout = prepare(repository, home, "simulator", "2026-W05")
        run.repro(checkout, home, ["ingest"], print)
        holder = {"pid": os.getpid(), "cmd": "dvc repro by somebody"}
        (checkout / ".dvc/tmp/rwlock").write_text(
            json.dumps({"write": {str(checkout / "data" / "score"): holder}})
        )
        words = rf"is busy, it is being blocked by: \(PID {os.getpid()}\): dvc repro by somebody"
        with pytest.raises(RunError, match=words):
            run.repro(checkout, home, ["evaluate"], print, patience=0.0)


PASSWORD = "pa55-of-the-shop"


class TestSecrets:
    def test_only_stages_that_read_the_source_know_the_password(
        self, repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = f"postgresql://shop:{PASSWORD}@127.0.0.1/shop"
        for name in ("ROIFLOW_SQL", "AIRFLOW_CONN_ROIFLOW_SQL", "AIRFLOW__DATABASE__SQL_ALCHEMY"):
            monkeypatch.setenv(name, uri)
        for name in ("ROIFLOW_REDIS_URL", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, PASSWORD)
        checkout = prepare(repository, home, "simulator", "2026-W05")
        (checkout / "environ").touch()
        lines: list[str] = []
        run.repro(checkout, home, STAGES, lambda _: None, sql=SecretStr(uri))
        knows = {
            stage: PASSWORD.encode() in (checkout / out / "environ").read_bytes()
            for stage, out in zip(STAGES, ("data/raw", "data/score", "data/package"), strict=True)
        }
        assert knows == {"ingest": True, "evaluate": False, "export": False}
        prepare(repository, home, "simulator", "2026-W05", values={"evaluate.seed": 1})
        run.repro(checkout, home, STAGES, lines.append)
        assert ran(checkout)[3:] == ["evaluate", "export"]
        with pytest.raises(RunError):
            run.job(checkout, home, "nothing", [], lines.append)
        assert PASSWORD not in "\n".join(lines)
        assert PASSWORD.encode() not in everything_in_git(repository)

    def test_a_file_that_git_does_not_track_is_in_no_object(
        self, repository: Path, home: Path
    ) -> None:
        for name in (".env", "key.pem", "src/.env", "src/credentials.json", "notes.py"):
            (repository / name).write_text(PASSWORD)
        for name in ("src/new/__init__.py", "monitoring/more.yaml", "src/page.html.j2"):
            (repository / name).parent.mkdir(exist_ok=True)
            (repository / name).write_text(f"# {name}\n")
        (repository / "src" / "tiny.py").write_text("# edited\n")
        checkout = prepare(repository, home, "simulator", "2026-W05")
        assert PASSWORD.encode() not in everything_in_git(repository)
        assert not (checkout / ".env").exists()
        for name in ("src/new/__init__.py", "monitoring/more.yaml", "src/page.html.j2"):
            assert (checkout / name).read_text() == f"# {name}\n"
        assert (checkout / "src" / "tiny.py").read_text() == "# edited\n"
        assert "?? .env" in git(repository, "status", "--porcelain")


def everything_in_git(repository: Path) -> bytes:
    """Every object, reachable or not."""
    command = ["git", "cat-file", "--batch-all-objects", "--batch", "--unordered"]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True).stdout


def test_another_owner_of_the_checkout_is_named_with_the_remedy(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    words = rf"dubious ownership.* git config --global --add safe\.directory {repository}$"
    with pytest.raises(RunError, match=words) as caught:
        prepare(repository, home, "simulator", "2026-W05")
    assert "\n" not in str(caught.value)


def test_outside_a_repository(tmp_path: Path, home: Path) -> None:
    with pytest.raises(RunError, match="not a git repository"):
        prepare(tmp_path, home, "simulator", "2026-W05")


def test_the_name_of_an_error_is_found_among_other_lines() -> None:
    tail = [
        "Running stage 'ingest':",
        "UnknownWeek: week '2026-W99'",
        "ERROR: failed to reproduce 'ingest': exited with 1",
    ]
    assert reason(tail, 255) == "UnknownWeek: week '2026-W99'"
    assert reason(tail[::2], 255).startswith("ERROR: failed")
    assert reason([], -9) == "exit code -9: no output"


@dataclass(frozen=True)
class Tree:
    """The real pipeline over a folder of files; `dvc repro validate` by hand."""

    clone: Path
    own: Path
    """The folder of files."""
    home: Path

    def repro(self) -> dict[str, bool]:
        """Whether each stage ran."""
        variables = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.clone / "src"),
            "ROIFLOW_HOME": str(self.home),
            "ROIFLOW_DATA_FOLDER": str(self.own),
        }
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", "validate"],
            cwd=self.clone,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return {
            name: f"Running stage '{name}'" in done.stdout for name in (*run.READERS, "validate")
        }

    def rows(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads((self.clone / "metrics/validate.json").read_text())[
            "rows"
        ]
        return counts


NOTHING_NEW = {"look": True, "ingest": False, "validate": False}
ALL = dict.fromkeys(NOTHING_NEW, True)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("tree")
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["ingest"] |= {"source": "files", "week": str(SECOND), "files": {"weeks": 2}}
    clone_tree(root / "clone", content)
    (root / "clone" / "metrics").mkdir()
    return Tree(root / "clone", worlds.write(root / "own"), root / "home")


def test_corrected_files_are_pulled_by_dvc_alone(tree: Tree) -> None:
    assert tree.repro() == ALL
    assert tree.rows()["conversions"] == 8
    assert tree.repro() == NOTHING_NEW
    path = lake.partition(tree.own, "conversions", SECOND)
    before = path.read_bytes()
    lake.write_parquet(path, lake.read_parquet(path).slice(1))
    assert tree.repro() == ALL
    assert tree.rows()["conversions"] == 7
    later = lake.partition(tree.own, "conversions", SECOND.plus(1))
    later.parent.mkdir()
    later.write_bytes(path.read_bytes())
    path.touch()
    assert tree.repro() == NOTHING_NEW
    path.write_bytes(before)  # what was pulled once comes from DVC's cache
    assert tree.repro() == NOTHING_NEW
    assert tree.rows()["conversions"] == 8


def test_the_same_files_elsewhere_are_the_same_data(tree: Tree) -> None:
    tree.repro()
    moved = replace(tree, own=tree.own.with_name("moved"))
    shutil.copytree(tree.own, moved.own)
    assert moved.repro() == NOTHING_NEW
    text = (tree.clone / "data" / "held.json").read_text()
    assert json.loads(text)["weeks"] == ["2026-W03", "2026-W04"]
    assert str(tree.clone.parent) not in text


def test_only_an_earlier_weeks_vocabulary_is_pulled(tree: Tree) -> None:
    tree.repro()
    folder = tree.home / "lake" / "files" / "vocabulary"
    for week, expected in ((SECOND, NOTHING_NEW), (FIRST, ALL)):
        rows = pa.table([["ad"], [str(week)], [1]], schema=VOCABULARY)
        lake.write_parquet(folder / f"week={week}.parquet", rows)
        assert tree.repro() == expected


def test_any_name_of_checkout_home_and_folder_will_do(tree: Tree, tmp_path: Path) -> None:
    place = tmp_path / 'it\'s [a] "lake" * 100% é'
    clone_tree(place / "clone", yaml.safe_load((tree.clone / "params.yaml").read_text()))
    here = Tree(place / "clone", worlds.write(place / "own"), place / "home")
    assert here.repro() == ALL
    assert here.repro() == NOTHING_NEW
    checkout = prepare(here.clone, here.home, "files", str(SECOND))
    run.repro(checkout, here.home, [*run.READERS, "validate"], print, data_folder=str(here.own))
    assert (checkout / "metrics" / "validate.json").exists()
    assert commit(checkout) == commit(checkout)
