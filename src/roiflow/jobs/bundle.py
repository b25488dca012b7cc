"""Build the Bentos of the registered model's champion, and of its challenger beside it."""

from pathlib import Path

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Bentos, Built, Promoted, Registered
from roiflow.bundle import build_bento
from roiflow.errors import RegistryError
from roiflow.jobs.refusal import nothing_to_serve
from roiflow.registry import CHAMPION, Registry
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(registered: Path, screen: Path, promoted: Path, service: Path, bento: Written) -> None:
    """Build each unless it is there; write tags, digests, model and versions to `bento`.

    `service` is the folder of the Bento's source. Raises RegistryError where the model of
    `registered` has neither champion nor challenger: it says which of the checks of `screen`
    refused the version, and what to do.
    """
    settings = Settings()
    registry = Registry(settings.registry_uri, settings.home)
    version = Registered.read(registered)
    name, challenger = version.name, Promoted.read(promoted).challenger
    # The champion is the one of the registry, where a person may have moved the alias since.
    champion = registry.by_alias(name, CHAMPION)
    tried = registry.find(name, challenger) if challenger else None
    if champion and tried and champion.digest == tried.digest:
        tried = None
    stable, canary = (champion, tried) if champion else (tried, None)
    if stable is None:
        source = version.tags["source"]
        raise RegistryError(nothing_to_serve(name, version.version, source, Decision.read(screen)))
    built = [_build(registry, one, service, settings) for one in (stable, canary) if one]
    Bentos(name, built[0], built[1] if canary else None).write(bento)


def _build(registry: Registry, version: Registered, service: Path, settings: Settings) -> Built:
    tags = version.tags
    labels = {"model": version.name, "source": tags["source"], "week": tags["week"]}
    found = build_bento(
        registry.package(version), str(version.version), service, settings.home, labels
    )
    return Built(found.tag, found.digest, version.version)


if __name__ == "__main__":
    run(main)
