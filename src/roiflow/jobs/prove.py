"""Take a registered version's decision again from what is locked; it must come out the same."""

import ast
from collections.abc import Callable
from pathlib import Path

from roiflow.artefacts.run import Registered
from roiflow.errors import GateError
from roiflow.jobs.screen import Case, digest_of
from roiflow.registry import Registry, model_name, read_digest
from roiflow.settings import Settings
from roiflow.stages.command import run
from roiflow.weekly.checkout import recreate, remove
from roiflow.weekly.run import fetch, job

JOB = "screen"


def main(source: str, version: int) -> None:
    """Prove one version's decision and print its digest."""
    print(prove(Path.cwd(), Settings(), source, version, print).tags["decision"])


def prove(
    repository: Path, settings: Settings, source: str, version: int, show: Callable[[str], None]
) -> Registered:
    """The version, if code, data and parameters of its commit give the decision it is tagged with.

    Works in a checkout of its own, which is removed. Raises RunError where the commit or its data
    are gone, GateError where the package or the decision come out different.
    """
    registry = Registry(settings.registry_uri, settings.home)
    known = registry.get(model_name(source), version)
    folder = settings.home.absolute() / "proofs" / f"{source}-{version}"
    # Not the run's own checkout, in which somebody may be at work, and which may be gone.
    recreate(repository, folder, known.tags["commit"])
    case = Case.of(Path())
    try:
        # What the stages made. The parity report is not theirs: what it said is a tag.
        named = parameters(folder, JOB)
        stages = ("features", "labels", "evaluation", "agreement", "package")
        made = [str(getattr(case, name)) for name in stages if name in named]
        fetch(folder, settings.home, made, show)
        if (found := read_digest(folder / case.package)) != known.digest:
            raise GateError(
                f"{known.name} version {version}: commit {known.tags['commit']} holds package "
                f"{found}, registered was {known.digest}"
            )
        arguments = [str(getattr(case, name)) for name in named]
        job(folder, settings.home, JOB, arguments, show)
        if (again := digest_of(folder / case.decision)) != known.tags["decision"]:
            raise GateError(
                f"{known.name} version {version}: the decision came out as {again}, "
                f"registered was {known.tags['decision']}"
            )
    finally:
        remove(repository, folder)
    return known


def parameters(checkout: Path, name: str) -> list[str]:
    """What a job's `main` takes in the code of a checkout.

    A version is proven by the code of its commit, whose job may have taken fewer arguments.
    """
    code = ast.parse((checkout / "src/roiflow/jobs" / f"{name}.py").read_text())
    # Parsed and not imported: this process has the modules of now under the same names.
    (main,) = (one for one in code.body if isinstance(one, ast.FunctionDef) and one.name == "main")
    return [one.arg for one in main.args.args]


if __name__ == "__main__":
    run(main)
