"""A job works on the paths that it is given, and the chain of effects gives it all of them."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path, PurePosixPath

import pytest

from roiflow.jobs import screen
from roiflow.jobs.prove import parameters
from roiflow.jobs.screen import Case
from roiflow.stages.arguments import described
from roiflow.weekly import places
from roiflow.weekly.effects import EFFECTS, effect
from roiflow.weekly.steps import Step, read_stages

ROOT = Path(__file__).parents[3]
JOBS = sorted((ROOT / "src/roiflow/jobs").glob("*.py"))
MADE = [path for step in (*read_stages(ROOT / "dvc.yaml"), *EFFECTS) for path in step.writes]

NOT_GIVEN = {
    # Committed is dvc.lock, which is whole once the last stages are done.
    "commit": {"dvc.lock", "data/evaluation", "data/package"},
}
"""What an effect waits for without reading the file itself."""


def texts(code: str) -> Iterator[str]:
    """Every string of a module but those that say something to people."""
    tree = ast.parse(code)
    said = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated")
        for inner in ast.walk(node)
        if not (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_names_no_path_of_its_own(path: Path) -> None:
    folders = {"data", "metrics", "plots"}
    named = [text for text in texts(path.read_text()) if folders & set(PurePosixPath(text).parts)]
    assert named == []


def test_a_path_that_a_job_names_would_be_seen() -> None:
    code = 'A = x / "data" / "y"\nf(f"{a}/data/b", Path("metrics/c"))\n"""data/said"""\n'
    assert sorted(texts(code)) == ["/data/b", "data", "metrics/c", "y"]


@pytest.mark.parametrize("step", EFFECTS, ids=lambda step: step.name)
def test_an_effect_declares_what_its_job_reads_and_writes(step: Step) -> None:
    name, *arguments = step.command.split()
    main = importlib.import_module(f"roiflow.jobs.{name}").main
    parameters = described(main)
    assert len(parameters) == len(arguments)
    given = list(zip(arguments, [meaning for _, _, meaning in parameters], strict=True))
    written = [path for path, meaning in given if meaning.startswith("written")]
    read = [path for path, meaning in given if not meaning.startswith("written")]
    pairs = zip(written, step.writes, strict=True)
    assert all(one == out or one.startswith(f"{out}/") for one, out in pairs)
    for path in read:
        if any(_shared(path, made) for made in MADE):
            assert any(_shared(path, one) for one in step.reads), f"{path} is not waited for"
    not_given = {one for one in step.reads if not any(_shared(one, path) for path in read)}
    assert not_given == NOT_GIVEN.get(step.name, set())


def _shared(one: str, other: str) -> bool:
    first, second = PurePosixPath(one), PurePosixPath(other)
    return first.is_relative_to(second) or second.is_relative_to(first)


def test_a_case_is_what_the_screen_s_job_takes_in_its_order() -> None:
    names = [one.name for one in fields(Case)]
    assert names == [parameter.name for parameter, _, _ in described(screen.main)]
    case = Case.of(Path("run"))
    given = [str(getattr(case, name)) for name in names]
    assert given == [f"run/{path}" for path in effect("screen").command.split()[1:]]


def test_a_version_is_proven_with_the_arguments_of_its_own_code(tmp_path: Path) -> None:
    """The job of an earlier commit takes fewer, or others: each by its name."""
    assert parameters(ROOT, "screen") == [one.name for one in fields(Case)]
    job = tmp_path / "src/roiflow/jobs/screen.py"
    job.parent.mkdir(parents=True)
    job.write_text("def other() -> None: ...\ndef main(package, params, decision) -> None: ...\n")
    assert parameters(tmp_path, "screen") == ["package", "params", "decision"]


def test_the_places_of_stages_are_those_of_dvc_yaml() -> None:
    stages = [path for step in read_stages(ROOT / "dvc.yaml") for path in step.writes]
    for name, place in vars(places).items():
        if isinstance(place, Path):
            assert any(place.is_relative_to(made) for made in stages), name
