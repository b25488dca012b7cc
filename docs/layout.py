"""Write docs/layout.md: every file of the code with the first line that it says of itself."""

import ast
import subprocess
import tomllib
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/layout.md"

HEAD = """\
# Where things are

Written by `python docs/layout.py`, from the files themselves: a module's remark is the first line
of its docstring, another file's its first comment. Run it again after adding, renaming or
rewording; `tests/unit/test_layout.py` holds this page to the files. Folders of the package are in
the order of their imports: a folder imports only from folders below it (import-linter).

"""

# Folders and files at the top: what stands in no docstring.
TOP = {
    "params.yaml": None,
    "dvc.yaml": None,
    "dags/": "WHEN things run: Airflow DAGs, which import nothing heavy",
    "src/roiflow/": None,
    "bentos/ad_ranker/": "what BentoML builds and serves",
    "deploy/base/": "kustomize: the slate service behind its edge",
    "deploy/overlays/local/": "kustomize: one node, with a namespace and a Redis of its own",
    "monitoring/": "what is watched for drift, declared",
    "docs/": "pages and pictures",
    "tests/unit/": "values in, values out; mirrors src/roiflow",
    "tests/integration/": "one real tool each: Airflow, DVC, MLflow, nginx, Redis, Kafka, SQL",
    "tests/e2e/": "the whole platform",
    "tests/benchmarks/": "speed as a ratio against a peer; writes docs/benchmarks.md",
}
REMARKED = {".py", ".j2", ".yaml", ".conf"}
FOLDERS_ALONE = ("docs/", "tests/")
WIDTH = 34


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """The whole page, as it is for the files that lie here now."""
    return HEAD + "```\n" + "\n".join(_tree(_files())) + "\n```\n"


def _files() -> list[str]:
    """Names of files that git tracks or would track, so that a new one counts at once."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({name for name in listed.stdout.splitlines() if (ROOT / name).is_file()})


def _tree(names: list[str]) -> list[str]:
    lines = []
    for top, said in TOP.items():
        if not top.endswith("/"):
            lines.append(_line(top, _remark(ROOT / top)))
        elif top.startswith(FOLDERS_ALONE):
            lines.append(_line(top, str(said)))
        else:
            lines += _branch(top, said, [name for name in names if name.startswith(top)])
    return lines


def _branch(top: str, said: str | None, names: list[str]) -> list[str]:
    lines = []
    for folder in sorted({str(PurePosixPath(name).parent) + "/" for name in names}, key=_place):
        own = said if folder == top and said else _remark(ROOT / folder / "__init__.py")
        lines.append(_line(folder, own))
        for name in names:
            path = PurePosixPath(name)
            if f"{path.parent}/" == folder and _listed(path):
                lines.append(_line(f"  {path.name}", _remark(ROOT / name)))
    return lines


def _listed(path: PurePosixPath) -> bool:
    return path.suffix in REMARKED and path.name != "__init__.py"


def _place(folder: str) -> tuple[int, str]:
    """Folders in the order of import-linter's layers; what is no layer goes by its name."""
    parts = PurePosixPath(folder).parts
    layer = parts[2] if parts[:2] == ("src", "roiflow") and len(parts) > 2 else ""
    return (_layers().get(layer, -1), folder)


def _layers() -> dict[str, int]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    lines = next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    return {
        name.strip().removeprefix("roiflow."): number
        for number, names in enumerate(lines)
        for name in names.split("|")
    }


def _line(name: str, said: str) -> str:
    return f"{name:<{WIDTH - 1}} {said}".rstrip()


def _remark(path: Path) -> str:
    """The first line that a file says of itself, without its full stop; empty if it says none."""
    text = path.read_text() if path.is_file() else ""
    said = _docstring(text) if path.suffix == ".py" else _comment(text)
    return said.removesuffix(".")


def _docstring(text: str) -> str:
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


def _comment(text: str) -> str:
    """The first line's comment: `# ...`, or `{# ... #}` in a template."""
    first = text.partition("\n")[0]
    if first.startswith("{#"):
        return first.strip("{#-} ")
    return first.removeprefix("#").strip() if first.startswith("#") else ""


if __name__ == "__main__":
    main()
