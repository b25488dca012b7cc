"""Build the Bento of the registered model's champion."""

import json
from pathlib import Path

from roiflow.bundle import build_bento
from roiflow.errors import RegistryError
from roiflow.files import write_file
from roiflow.jobs.refusal import nothing_to_serve
from roiflow.jobs.register import read_decision
from roiflow.registry import CHAMPION, Registered, Registry
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(registered: Path, service: Path, bento: Written) -> None:
    """Build it unless it is there; write tag, digest, model and version to `bento`.

    `service` is the folder of the Bento's source. Raises RegistryError where the model of
    `registered` has no champion: it says which of the gate's checks refused the version, and what
    to do.
    """
    settings = Settings()
    registry = Registry(settings.registry_uri, settings.home)
    version = Registered.read(registered)
    name = version.name
    champion = registry.by_alias(name, CHAMPION)
    if champion is None:
        decision = read_decision(registered.with_name("gate") / "decision.json")
        raise RegistryError(
            nothing_to_serve(name, version.version, version.tags["source"], decision)
        )
    labels = {"model": name, "source": champion.tags["source"], "week": champion.tags["week"]}
    built = build_bento(
        registry.package(champion), str(champion.version), service, settings.home, labels
    )
    content = {"tag": built.tag, "digest": built.digest, "model": name, "version": champion.version}
    with write_file(bento) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
