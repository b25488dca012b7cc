"""dvc.yaml, params.yaml and roiflow.stages hold together."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from roiflow.params import Params, load_params
from roiflow.run import READERS

ROOT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

SECTION = {"look": "ingest"}
"""What a stage reads that has no number of its own."""
HELD = "data/held.json"
"""Read by no stage: that it is another makes `ingest` run."""

PLUMBING = {
    "roiflow",
    "roiflow.compiled",
    "roiflow.entry",
    "roiflow.errors",
    "roiflow.files",
    "roiflow.params",
    "roiflow.settings",
    "roiflow.columns",
    "roiflow.progress",
    "roiflow.stages",
    "roiflow.stages.arguments",
    "roiflow.stages.command",
}
"""What says where things are, how they are called and how they fail; it computes nothing."""


def paths(stage: dict[str, Any]) -> list[str]:
    """Outputs, metrics and plots."""
    return [
        next(iter(out)) if isinstance(out, dict) else out
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
    ]


def data_deps(stage: dict[str, Any]) -> list[str]:
    return [dep for dep in stage["deps"] if not dep.startswith("src/") and dep != HELD]


def source(module: str) -> Path | None:
    base = ROOT / "src" / Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


@cache
def parsed(module: str) -> ast.Module:
    path = source(module)
    assert path is not None
    return ast.parse(path.read_text())


def main_of(stage: str) -> ast.FunctionDef:
    (main,) = (
        node
        for node in parsed(f"roiflow.stages.{stage}").body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    return main


def statements(tree: ast.Module, whole: bool) -> Iterator[ast.AST]:
    """What importing runs; what its functions may run, too, where `whole`."""
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if whole or not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from ast.walk(node)


def imports(module: str, whole: bool) -> Iterator[tuple[str, bool]]:
    """First-party modules that a module imports, and whether their functions can be called.

    Of a package that is named only to reach one of its modules, just its own import runs.
    """
    for node in statements(parsed(module), whole):
        if isinstance(node, ast.Import):
            yield from ((one.name, True) for one in node.names if one.name.startswith("roiflow"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("roiflow"):
            assert node.module is not None
            inner = [f"{node.module}.{one.name}" for one in node.names]
            yield from ((name, True) for name in inner if source(name))
            yield node.module, not all(source(name) for name in inner)


@cache
def closure(module: str) -> frozenset[str]:
    """Every first-party module that a stage can run."""
    seen: set[tuple[str, bool]] = set()
    todo = [(module, True)]
    while todo:
        name, whole = todo.pop()
        if (name, whole) in seen or (name, True) in seen:
            continue
        seen.add((name, whole))
        todo.extend(imports(name, whole))
        parents = (".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1))
        todo.extend((parent, False) for parent in parents)
    return frozenset(name for name, _ in seen)


def code_in(path: Path) -> bool:
    """Whether there is more than a docstring."""
    body = ast.parse(path.read_text()).body
    return any(not isinstance(node, ast.Expr) for node in body)


def covered(path: Path, deps: list[str]) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return any(name == dep or name.startswith(f"{dep}/") for dep in deps)


def test_one_stage_is_one_module() -> None:
    modules = {path.stem for path in (ROOT / "src/roiflow/stages").glob("*.py")}
    assert set(STAGES) == modules - {"__init__", "arguments", "command"}


def test_one_stage_is_one_section_of_params() -> None:
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    assert {SECTION.get(name, name) for name in STAGES} < sections
    assert set(PARAMS) == sections
    load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("name", STAGES)
class TestStage:
    def test_command_calls_the_module_of_the_same_name(self, name: str) -> None:
        assert STAGES[name]["cmd"].startswith(f"python -m roiflow.stages.{name} ")

    def test_paths_of_the_command_are_the_declared_ones(self, name: str) -> None:
        stage = STAGES[name]
        argv = stage["cmd"].split()[3:]
        assert argv[-1] == "params.yaml"
        named = argv[:-1]
        assert len(named) == len(set(named))
        for dep in data_deps(stage):
            assert any(dep == path or dep.startswith(f"{path}/") for path in named), dep
        inside = {path for path in named for dep in data_deps(stage) if dep.startswith(f"{path}/")}
        assert set(named) == (set(data_deps(stage)) & set(named)) | inside | set(paths(stage))

    def test_command_fits_the_signature(self, name: str) -> None:
        argv = STAGES[name]["cmd"].split()[3:]
        parameters = main_of(name).args.args
        assert len(parameters) == len(argv)
        for parameter, argument in zip(parameters, argv, strict=True):
            assert parameter.annotation is not None
            made = argument in paths(STAGES[name])
            assert ast.unparse(parameter.annotation) == ("Written" if made else "Path")
            assert parameter.arg in argument.replace("/", " ").replace(".", " ").split(), argument

    def test_sections_that_are_read_are_declared(self, name: str) -> None:
        read = {
            node.attr.rstrip("_")
            for node in ast.walk(parsed(f"roiflow.stages.{name}"))
            if isinstance(node, ast.Attribute) and node.attr.rstrip("_") in PARAMS
        }
        assert SECTION.get(name, name) in read
        declared = {param.split(".")[0] for param in STAGES[name]["params"]}
        assert read == declared

    def test_everything_it_imports_is_a_dependency(self, name: str) -> None:
        deps = STAGES[name]["deps"]
        needed = [source(module) for module in sorted(closure(f"roiflow.stages.{name}") - PLUMBING)]
        # The __init__ of a package runs, too, but an empty one does nothing.
        missing = [path for path in needed if path and not covered(path, deps) and code_in(path)]
        assert missing == []

    def test_every_listed_source_is_there_and_used(self, name: str) -> None:
        used = [source(module) for module in closure(f"roiflow.stages.{name}")]
        for dep in (dep for dep in STAGES[name]["deps"] if dep.startswith("src/")):
            assert (ROOT / dep).exists(), dep
            assert any(path and covered(path, [dep]) for path in used), f"{dep} is not imported"


def test_no_output_has_two_owners() -> None:
    outs = [path for stage in STAGES.values() for path in paths(stage)]
    assert len(outs) == len(set(outs))
    nested = [(a, b) for a in outs for b in outs if a != b and b.startswith(f"{a}/")]
    assert nested == []


def test_every_data_dependency_has_an_owner() -> None:
    outs = [path for stage in STAGES.values() for path in paths(stage)]
    for stage in STAGES.values():
        for dep in data_deps(stage):
            assert any(dep == out or dep.startswith(f"{out}/") for out in outs), dep


def test_a_pull_depends_on_what_a_look_at_the_source_found() -> None:
    assert STAGES["look"]["always_changed"]
    assert STAGES["look"]["outs"] == [HELD]
    assert [name for name, stage in STAGES.items() if HELD in stage["deps"]] == ["ingest"]
    assert [name for name, stage in STAGES.items() if "always_changed" in stage] == ["look"]
    assert set(READERS) == {"look", "ingest"}
