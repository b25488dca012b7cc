"""The tree as it is now, as a repository of its own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def clone_tree(clone: Path, params: dict[str, Any] | None = None) -> None:
    """Copy tracked and new files, with other params.yaml where given, and commit them."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    if params is not None:
        (clone / "params.yaml").write_text(yaml.safe_dump(params))
    identity = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "Tree"]):
        subprocess.run(["git", *identity, *arguments], cwd=clone, check=True)
