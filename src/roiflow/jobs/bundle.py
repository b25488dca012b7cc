"""Build the Bento of the registered model's champion."""

from pathlib import Path

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Bento, Registered
from roiflow.bundle import build_bento
from roiflow.errors import RegistryError
from roiflow.jobs.refusal import nothing_to_serve
from roiflow.registry import CHAMPION, Registry
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(registered: Path, gate: Path, service: Path, bento: Written) -> None:
    """Build it unless it is there; write tag, digest, model and version to `bento`.

    `service` is the folder of the Bento's source. Raises RegistryError where the model of
    `registered` has no champion: it says which of the checks of `gate` refused the version, and
    what to do.
    """
    settings = Settings()
    registry = Registry(settings.registry_uri, settings.home)
    version = Registered.read(registered)
    name = version.name
    champion = registry.by_alias(name, CHAMPION)
    if champion is None:
        source = version.tags["source"]
        raise RegistryError(nothing_to_serve(name, version.version, source, Decision.read(gate)))
    labels = {"model": name, "source": champion.tags["source"], "week": champion.tags["week"]}
    built = build_bento(
        registry.package(champion), str(champion.version), service, settings.home, labels
    )
    Bento(built.tag, built.digest, name, champion.version).write(bento)


if __name__ == "__main__":
    run(main)
