"""Write the code that each stage of dvc.yaml depends on: the modules that it imports, no others."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "dvc.yaml"
CODE = "src/"

PLUMBING = {
    "roiflow.entry",
    "roiflow.errors",
    "roiflow.files",
    "roiflow.params",
    "roiflow.settings",
    "roiflow.progress",
    "roiflow.stages.arguments",
    "roiflow.stages.command",
}
"""What says where things are, how they are called and how they fail: it computes nothing, and a
word changed in an error is no reason to train again."""


def main() -> None:
    """Write dvc.yaml anew; everything but the deps under src/ stays as it is."""
    PIPELINE.write_text(with_code(PIPELINE.read_text()))


def with_code(text: str) -> str:
    """The text of dvc.yaml with each stage's own code, sorted, before its other deps."""
    lines, stage, inside = list[str](), "", False
    for line in text.splitlines():
        if line.startswith("  ") and line[2:3].isalpha():
            stage = line.strip().partition(":")[0]
        inside = inside and line.startswith("      - ")
        if not (inside and line.strip().startswith(f"- {CODE}")):
            lines.append(line)
        if line == "    deps:":
            inside = True
            lines.extend(f"      - {path}" for path in code_of(stage))
    return "\n".join(lines) + "\n"


def code_of(stage: str) -> list[str]:
    """What a stage imports, as the deps name it: a folder where it imports the whole of it."""
    files = {path_of(module) for module in closure(f"roiflow.stages.{stage}") - PLUMBING}
    whole = {
        one.parent for one in files if one.name == "__init__.py" and _all_in(one.parent, files)
    }
    return sorted(
        {next((up for up in path.parents if up in whole), path).as_posix() for path in files}
    )


def _all_in(folder: Path, files: set[Path]) -> bool:
    return {path.relative_to(ROOT) for path in (ROOT / folder).rglob("*.py")} <= files


@cache
def closure(module: str) -> frozenset[str]:
    """The module and every module of the package that it can import, through whatever chain."""
    seen, todo = set[str](), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(() if name in PLUMBING else imports(name))
    return frozenset(seen)


def imports(module: str) -> Iterator[str]:
    """First-party modules that a module names, inside its functions, too; packages themselves."""
    for node in ast.walk(ast.parse((ROOT / path_of(module)).read_text())):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
        else:
            continue
        yield from (name for name in names if exists(name))


def exists(module: str) -> bool:
    """Whether there is a module of the package by that name."""
    return module.startswith("roiflow") and (ROOT / path_of(module)).is_file()


def path_of(module: str) -> Path:
    """Its file, from the root of the repository."""
    base = Path("src", *module.split("."))
    package = base / "__init__.py"
    return package if (ROOT / package).is_file() else base.with_suffix(".py")


def pipeline() -> dict[str, dict[str, list[str]]]:
    """The stages of dvc.yaml."""
    stages: dict[str, dict[str, list[str]]] = yaml.safe_load(PIPELINE.read_text())["stages"]
    return stages


if __name__ == "__main__":
    main()
