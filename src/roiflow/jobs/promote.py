"""Move the alias `champion` to the registered version where the gate's decision says so."""

import json
import time
from pathlib import Path
from typing import Any

from roiflow.deployment.start_page import write_start_page
from roiflow.errors import RegistryError
from roiflow.files import write_file
from roiflow.jobs.register import read_decision
from roiflow.registry import Registered, Registry
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run

GATE = "gate"
PROMOTED = Path("data/promoted.json")


def main(gate: Path, registered: Path, promoted: Written) -> None:
    """Promote, or leave the champion; write which of the two, why and who then serves.

    The same decision twice changes nothing. Raises RegistryError where the decision is about
    another package, or where the champion it was compared with no longer is the champion.
    """
    settings = Settings()
    decision = read_decision(gate)
    version = Registered.read(registered)
    if decision["challenger"] != version.digest:
        raise RegistryError(
            f"{gate}: decides on {decision['challenger']}, {registered} is {version.digest}"
        )
    promote(Registry(settings.registry_uri, settings.home), version, decision)
    write_promoted(promoted, version, decision)
    write_start_page(settings)  # here, too: what was refused gets to no later job that does


def promote(registry: Registry, version: Registered, decision: dict[str, Any]) -> None:
    """Make `version` the champion where the decision says so.

    A version that was promoted before stays where later decisions put it: a run that is repeated
    does not turn back the weeks after it.
    """
    before = {line.version for line in registry.promotions(version.name)}
    if not decision["promote"] or version.version in before:
        return
    override = decision.get("override") if decision["rule"] == "override" else None
    registry.promote(
        version,
        over=decision["champion"],
        verdict=decision["verdict"],
        by=override["who"] if override else GATE,
        why=override["why"] if override else f"rule: {decision['rule']}",
        now=time.time(),
    )


def write_promoted(path: Path, version: Registered, decision: dict[str, Any]) -> None:
    """What became of a decision, and who then serves."""
    content = {
        "version": version.version,
        "promoted": decision["promote"],
        "champion": version.digest if decision["promote"] else decision["champion"],
        "rule": decision["rule"],
        "reason": decision["reason"],
    }
    with write_file(path) as aside:
        aside.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
