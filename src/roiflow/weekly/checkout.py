"""One checkout per weekly run: a git worktree over one shared DVC cache.

A DVC workspace locks while it works, so runs never share one. A run starts from the tree as it is
now (tracked files with their uncommitted edits, and code that is not tracked yet, but no other
file: a key or a .env would stay in git's objects) and ends in a commit of `params.yaml` and
`dvc.lock`, which is the run's lineage key. Equal trees give equal commits, so a second attempt
resumes the first and a third changes nothing.

Code runs from a copy named by its git tree id, not from the checkout: runs of equal code share
compiled files, and files compiled from other code are never taken.
"""

import configparser
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from roiflow.errors import RunError
from roiflow.files import write_directory, write_file
from roiflow.weekly.effects import DECIDES, effect
from roiflow.weekly.values import PARAMS, with_run, with_values

FINISHED = Path(*effect(DECIDES).writes)
"""What the last job that decides leaves in a run's checkout."""
NEW_CODE = (
    "src/**/*.py", "src/**/*.j2", "dags/**/*.py", "bentos/**/*.py", "monitoring/**/*.yaml"
)  # fmt: skip
"""Files that a run takes along before git tracks them."""
_REFS = "refs/roiflow"


def checkout_of(home: Path, source: str, week: str) -> Path:
    """Where the run of one week lives."""
    return home.absolute() / "runs" / f"{source}-{week}"


def is_finished(checkout: Path) -> bool:
    """Whether the run of a checkout got to a decision."""
    return (checkout / FINISHED).exists()


def prepare(
    repository: Path,
    home: Path,
    source: str,
    week: str,
    values: Mapping[str, str | float] | None = None,
) -> Path:
    """Make the run's checkout, or bring an earlier one to the tree as it is now.

    `values` are what this run has at keys of params.yaml, such as train_ranker.epochs, instead.
    Raises RunError where `repository` is no git repository with a commit, ParamsError or
    UnknownWeek where source, week or params.yaml are wrong; the checkout is then not touched.
    """
    base = snapshot(repository)
    # From the snapshot and not from the file, which somebody may save meanwhile: parameters and
    # code are of one moment.
    text = with_values(_git(repository, "show", f"{base}:{PARAMS}"), values or {})
    params = with_run(text, source, week)
    checkout = checkout_of(home, source, week)
    lock = _place(repository, checkout, base)
    # The checkout puts back the lock of the snapshot. The run's own is what DVC knows its finished
    # stages by: without it a second attempt would take them for not run.
    if lock is not None:
        (checkout / "dvc.lock").write_bytes(lock)
    with write_file(checkout / PARAMS) as aside:
        aside.write_text(params)
    return checkout


def recreate(repository: Path, folder: Path, commit: str) -> None:
    """A checkout of an earlier run's commit in `folder`, without its data (`dvc checkout`)."""
    _place(repository, folder, commit)


def remove(repository: Path, folder: Path) -> None:
    """Remove a checkout and everything in it."""
    # Twice --force: git takes one for changed files and two for a locked worktree.
    _git(repository, "worktree", "remove", "--force", "--force", str(folder))


def _place(repository: Path, folder: Path, commit: str) -> bytes | None:
    """Put `commit` into the worktree `folder`; returns the dvc.lock that was there."""
    lock = folder / "dvc.lock"
    kept = lock.read_bytes() if lock.exists() else None
    # A checkout that somebody deleted by hand is still known to git, which would refuse its place.
    _git(repository, "worktree", "prune")
    if (folder / ".git").exists():
        _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _git(repository, "worktree", "add", "--quiet", "--force", "--detach", str(folder), commit)
    _share_cache(main_checkout(folder), folder)
    return kept


def repository_of(folder: Path) -> Path:
    """The checkout that holds `folder`; RunError where it is none of this project's."""
    top = Path(_git(folder, "rev-parse", "--show-toplevel").strip())
    if not (top / "dvc.yaml").exists():
        raise RunError(f"{top}: no dvc.yaml: run this inside the repository")
    return top


def main_checkout(checkout: Path) -> Path:
    """The main checkout a worktree belongs to (itself where it is the main one)."""
    # The common git directory lies in the main checkout, whichever worktree asks.
    common = _git(checkout, "rev-parse", "--path-format=absolute", "--git-common-dir").strip()
    return Path(common).parent


def snapshot(repository: Path) -> str:
    """A commit of the working tree; HEAD itself where it is clean.

    What git does not track stays out, but for the code that stages run (NEW_CODE).
    """
    head = _git(repository, "rev-parse", "--verify", "HEAD^{commit}").strip()
    # In an index of its own: the user's, with what is staged there, is left as it is. It starts as
    # a copy, so that only changed files are read.
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"
        own = Path(_git(repository, "rev-parse", "--path-format=absolute", "--git-dir").strip())
        if (own / "index").exists():
            shutil.copy2(own / "index", index)
        _git(repository, "add", "--update", GIT_INDEX_FILE=str(index))
        others = ("ls-files", "--others", "--exclude-standard", "-z", "--", *NEW_CODE)
        if new := _git(repository, *others, GIT_GLOB_PATHSPECS="1").split("\0")[:-1]:
            # Names that were found are names: a file called *.py must not add all others.
            literal = {"GIT_INDEX_FILE": str(index), "GIT_LITERAL_PATHSPECS": "1"}
            _git(repository, "add", "--", *new, **literal)
        tree = _git(repository, "write-tree", GIT_INDEX_FILE=str(index)).strip()
    if tree == _git(repository, "rev-parse", f"{head}^{{tree}}").strip():
        return head
    return _commit_tree(repository, tree, head, "Working tree of a run")


def commit(checkout: Path) -> str:
    """Commit params.yaml and dvc.lock; the same contents give the same commit id."""
    files = [name for name in ("params.yaml", "dvc.lock") if (checkout / name).exists()]
    # By force: a repository may ignore dvc.lock, which only runs commit.
    _git(checkout, "add", "--force", *files)
    tree = _git(checkout, "write-tree").strip()
    head = _git(checkout, "rev-parse", "HEAD").strip()
    if tree == _git(checkout, "rev-parse", "HEAD^{tree}").strip():
        return head
    made = _commit_tree(checkout, tree, head, f"Run {checkout.name}")
    # Under a ref, or git's clean-up would drop the commit once the checkout moves on, and no
    # version could be proven.
    _git(checkout, "update-ref", f"{_REFS}/{checkout.name}/{made}", made)
    _git(checkout, "reset", "--quiet", "--soft", made)
    return made


def _commit_tree(repository: Path, tree: str, parent: str, message: str) -> str:
    """A commit whose id follows from tree, parent and message alone."""
    # The parent's time and a fixed author: now, or the user's name, would make another commit of an
    # equal tree.
    when = _git(repository, "show", "--no-patch", "--format=%cI", parent).strip()
    identity = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", "roiflow"), ("EMAIL", "roiflow@localhost"), ("DATE", when))
    }
    return _git(repository, "commit-tree", tree, "-p", parent, "-m", message, **identity).strip()


def _share_cache(main: Path, checkout: Path) -> None:
    """Point the checkout at the main checkout's DVC cache, keeping the main one's own settings."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(main / ".dvc" / "config.local")
    if not settings.has_section("cache"):
        settings.add_section("cache")
    tracked = configparser.ConfigParser(interpolation=None)
    tracked.read(main / ".dvc" / "config")
    own = settings.get("cache", "dir", fallback=tracked.get("cache", "dir", fallback="cache"))
    # DVC reads a relative folder from the config file's own place, which is another one in the
    # worktree.
    settings.set("cache", "dir", str((main / ".dvc" / own).absolute()))
    with write_file(checkout / ".dvc" / "config.local") as aside, aside.open("w") as stream:
        settings.write(stream)


def code_of(checkout: Path, home: Path) -> Path:
    """The folder `src` of the checkout's commit, one copy per git tree id under `home`."""
    tree = _git(checkout, "rev-parse", "HEAD:src").strip()
    folder = home.absolute() / "code" / tree
    # Whole or not at all: another run of equal code may look at the same time.
    if not folder.exists():
        with write_directory(folder) as aside:
            archive = subprocess.run(
                ["git", "archive", tree], cwd=checkout, capture_output=True, check=True
            )
            subprocess.run(["tar", "-x", "-C", str(aside)], input=archive.stdout, check=True)
    return folder


def _git(folder: Path, *arguments: str, **variables: str) -> str:
    """Raises RunError with git's own message: its reason, and the remedy it names."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RunError(f"{folder}: git {arguments[0]}: {_said(done.stderr, done.returncode)}")
    return done.stdout


def _said(stderr: str, code: int) -> str:
    """Git's words in one line, from its first error on: what comes before is progress and hints."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    starts = [n for n, line in enumerate(lines) if line.startswith(("fatal:", "error:"))]
    return " ".join(lines[starts[0] if starts else 0 :]) or f"exit code {code}"
