"""Move the alias `champion` to the registered version where the gate's decision says so."""

import time
from pathlib import Path

from roiflow.artefacts.decision import Decision
from roiflow.artefacts.run import Promoted, Registered
from roiflow.deployment.start_page import write_start_page
from roiflow.errors import RegistryError
from roiflow.registry import Registry
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
    decision = Decision.read(gate)
    version = Registered.read(registered)
    if decision.challenger != version.digest:
        raise RegistryError(
            f"{gate}: decides on {decision.challenger}, {registered} is {version.digest}"
        )
    promote(Registry(settings.registry_uri, settings.home), version, decision)
    outcome(version, decision).write(promoted)
    write_start_page(settings)  # here, too: what was refused gets to no later job that does


def promote(registry: Registry, version: Registered, decision: Decision) -> None:
    """Make `version` the champion where the decision says so.

    A version that was promoted before stays where later decisions put it: a run that is repeated
    does not turn back the weeks after it.
    """
    # By the log, since the alias tells only who is champion now.
    before = {line.version for line in registry.promotions(version.name)}
    if not decision.promote or version.version in before:
        return
    # A signature may be there and not have been needed: then the checks promote, not the person.
    signed = decision.override if decision.rule == "override" else None
    registry.promote(
        version,
        over=decision.champion,
        verdict=decision.verdict,
        by=signed.who if signed else GATE,
        why=signed.why if signed else f"rule: {decision.rule}",
        now=time.time(),
    )


def outcome(version: Registered, decision: Decision) -> Promoted:
    """What became of a decision, and who then serves."""
    return Promoted(
        version=version.version,
        promoted=decision.promote,
        champion=version.digest if decision.promote else decision.champion,
        challenger=None,
        rule=decision.rule,
        reason=decision.reason,
    )


if __name__ == "__main__":
    run(main)
