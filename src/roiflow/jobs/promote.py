"""Move the alias `champion` to the registered version where the gate's decision says so."""

import json
import time
from pathlib import Path
from typing import Any

from roiflow.errors import RegistryError
from roiflow.files import write_file
from roiflow.jobs.register import read_decision
from roiflow.registry import CHAMPION, Registered, Registry
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run

GATE = "gate"


def main(gate: Path, registered: Path, promoted: Written) -> None:
    """Promote, or leave the champion; write which of the two, why and who then serves.

    The same decision twice changes nothing. Raises RegistryError where the decision is about
    another package, or where the champion it was compared with no longer is the champion.
    """
    settings = Settings()
    decision = read_decision(gate)
    version = Registered(**json.loads(registered.read_text()))
    if decision["challenger"] != version.digest:
        raise RegistryError(
            f"{gate}: decides on {decision['challenger']}, {registered} is {version.digest}"
        )
    promote(Registry(settings.registry_uri, settings.home), version, decision)
    content = {
        "version": version.version,
        "promoted": decision["promote"],
        "champion": version.digest if decision["promote"] else decision["champion"],
        "rule": decision["rule"],
        "reason": decision["reason"],
    }
    with write_file(promoted) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


def promote(registry: Registry, version: Registered, decision: dict[str, Any]) -> None:
    """Make `version` the champion where the decision says so and it never was."""
    if decision["promote"] and not _done(registry, version):
        _still(registry, version, decision["champion"])
        override = decision.get("override") if decision["rule"] == "override" else None
        registry.promote(
            version,
            verdict=decision["verdict"],
            by=override["who"] if override else GATE,
            why=override["why"] if override else f"rule: {decision['rule']}",
            now=time.time(),
        )


def _done(registry: Registry, version: Registered) -> bool:
    """Whether this version was promoted before; a later champion then stays."""
    return any(line.version == version.version for line in registry.promotions(version.name))


def _still(registry: Registry, version: Registered, champion: str | None) -> None:
    found = registry.by_alias(version.name, CHAMPION)
    now = None if found is None else found.digest
    if now not in (champion, version.digest):
        raise RegistryError(
            f"{version.name}: version {version.version} was compared with {champion}, "
            f"but the champion now is {now}: run the gate again"
        )


if __name__ == "__main__":
    run(main)
