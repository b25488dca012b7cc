"""Take a registered version's decision again from what is locked; it must come out the same."""

from collections.abc import Callable
from pathlib import Path

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Registered
from roiflow.errors import GateError
from roiflow.jobs.decide import digest_of
from roiflow.registry import Registry, model_name, read_digest
from roiflow.settings import Settings
from roiflow.stages.command import run
from roiflow.weekly.checkout import recreate, remove
from roiflow.weekly.effects import effect
from roiflow.weekly.run import fetch, perform

INPUTS = ("data/features", "data/evaluation", "data/package")
"""What the gate reads of a run."""


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
    recreate(repository, folder, known.tags["commit"])
    try:
        fetch(folder, settings.home, INPUTS, show)
        if (found := read_digest(folder / "data" / "package")) != known.digest:
            raise GateError(
                f"{known.name} version {version}: commit {known.tags['commit']} holds package "
                f"{found}, registered was {known.digest}"
            )
        perform(folder, settings.home, effect("gate"), show)
        if (again := digest_of(folder / Decision.place)) != known.tags["decision"]:
            raise GateError(
                f"{known.name} version {version}: the decision came out as {again}, "
                f"registered was {known.tags['decision']}"
            )
    finally:
        remove(repository, folder)
    return known


if __name__ == "__main__":
    run(main)
