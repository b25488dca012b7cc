"""dvc.yaml, params.yaml and roiflow.stages hold together."""

import ast
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import pytest
import yaml
from docs.deps import CODE, PIPELINE, closure, code_of, path_of, with_code

from roiflow.params import Params, load_params
from roiflow.weekly.run import READERS

ROOT = Path(__file__).parents[2]
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())

SECTION = {"look": "ingest"}
"""What a stage reads that has no number of its own."""
HELD = "data/held.json"
"""Read by no stage: that it is another makes `ingest` run."""


def paths(stage: dict[str, Any]) -> list[str]:
    """Outputs, metrics and plots."""
    return [
        next(iter(out)) if isinstance(out, dict) else out
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
    ]


def data_deps(stage: dict[str, Any]) -> list[str]:
    return [dep for dep in stage["deps"] if not dep.startswith("src/") and dep != HELD]


def main_of(stage: str) -> ast.FunctionDef:
    (main,) = (
        node
        for node in parsed(f"roiflow.stages.{stage}").body
        if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    return main


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((ROOT / path_of(module)).read_text())


def lent(stage: str) -> list[str]:
    """The other stages whose functions a stage calls, and whose sections it reads with them."""
    imports = [node for node in parsed(f"roiflow.stages.{stage}").body if is_import(node)]
    modules = [str(node.module).removeprefix("roiflow.stages.") for node in imports]
    return [module for module in modules if module in STAGES]


def is_import(node: ast.stmt) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom)


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
            for module in (name, *lent(name))
            for node in ast.walk(parsed(f"roiflow.stages.{module}"))
            if isinstance(node, ast.Attribute) and node.attr.rstrip("_") in PARAMS
        }
        assert SECTION.get(name, name) in read
        declared = {param.split(".")[0] for param in STAGES[name]["params"]}
        assert read == declared

    def test_its_code_is_what_it_imports_no_more_and_no_less(self, name: str) -> None:
        declared = [dep for dep in STAGES[name]["deps"] if dep.startswith(CODE)]
        assert declared == code_of(name), "run `python docs/deps.py`"


TRAINS = ("train_candidates", "train_ranker", "finetune_policy")


@pytest.mark.parametrize("room", ["parity", "online", "spark", "offline", "serving", "loop"])
def test_no_training_stage_depends_on_a_room_that_it_does_not_use(room: str) -> None:
    for name in TRAINS:
        assert not [module for module in closure(f"roiflow.stages.{name}") if f".{room}." in module]


def test_what_a_function_imports_is_imported() -> None:
    assert "roiflow.data.sources.kuairand" in closure("roiflow.stages.ingest")


def test_the_generator_leaves_all_else_as_it_is() -> None:
    text = PIPELINE.read_text()
    assert with_code(text) == text
    bare = "".join(line for line in text.splitlines(keepends=True) if f"- {CODE}" not in line)
    assert with_code(bare) == text


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
