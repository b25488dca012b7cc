"""The README's tree names every module, with a remark."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tree_has_one_remark_per_file() -> None:
    block = (ROOT / "README.md").read_text().split("```\n")[3].splitlines()
    named, folder = set(), ""
    for line in block:
        if line.startswith("  "):
            match = re.fullmatch(r"  (\S+)\s+\S.+", line)
            assert match, f"no remark: {line}"
            named.add(folder + match[1])
        else:
            folder = line.split()[0]
    listed = subprocess.run(
        ["git", "ls-files", "--", "src/roiflow", "dags", "bentos/*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert named == {name for name in listed if not name.endswith("__init__.py")}
