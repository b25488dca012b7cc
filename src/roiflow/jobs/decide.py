"""Let the gate judge the run's package against the champion, once.

A package that was judged before is judged against the champion of then, so a second attempt and a
proof come to the same decision.
"""

from pathlib import Path

from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.parity import ParityVerdict
from roiflow.artefacts.record import parse
from roiflow.artefacts.run import Registered
from roiflow.errors import GateError
from roiflow.jobs.gate import Case, gate, read_parity
from roiflow.params import load_params
from roiflow.registry import CHAMPION, Registry, model_name, read_digest
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run

NONE = "none"
"""Value of the tag `champion_then` where there was no champion."""


def main(
    package: Path,
    features: Path,
    labels: Path,
    evaluation: Path,
    agreement: Path,
    parity: Path,
    params: Path,
    decision: Written,
) -> None:
    """Write `decision`, or leave the one that is there where it is the registered one."""
    settings = Settings()
    registry = Registry(settings.registry_uri, settings.home)
    config = load_params(params)
    name = model_name(config.ingest.source)
    known = registry.find(name, read_digest(package))
    # A retry, or an override that was signed since: what is there is what is registered.
    if known and digest_of(decision) == known.tags["decision"]:
        return
    # Judged before, it meets the champion of then: it may be champion itself by now.
    champion = champion_then(registry, known) if known else registry.by_alias(name, CHAMPION)
    folder = registry.package(champion) if champion else None
    case = Case(package, features, labels, evaluation, agreement, parity, params, decision)
    # A parity report may have been written again since, with other findings; a version keeps the
    # verdict that it was judged with.
    served = parity_then(known) if known else read_parity(parity, config.ingest.week)
    signature = signed(known) if known else None
    gate(case, folder, config, signature, served, settings.lake)


def champion_then(registry: Registry, known: Registered) -> Registered | None:
    """The champion that a registered version was compared with.

    Raises GateError where the registry no longer holds it.
    """
    digest = known.tags["champion_then"]
    if digest == NONE:
        return None
    found = registry.find(known.name, digest)
    if found is None:
        raise GateError(
            f"{known.name} version {known.version} was compared with {digest}, "
            "which the registry does not hold"
        )
    return found


def signed(known: Registered) -> Override | None:
    """The override under which a version was registered or approved."""
    who = known.tags.get("override_who")
    return Override(who, known.tags["override_why"]) if who else None


def parity_then(known: Registered) -> ParityVerdict | None:
    """The verdict of the parity report with which a registered version was judged."""
    tag = known.tags.get("parity")
    named = f"{known.name} version {known.version}: tag parity"
    return None if tag is None else parse(ParityVerdict, tag, named)


def digest_of(decision: Path) -> str | None:
    """The digest of a decision that was written, or None."""
    found = Decision.find(decision)
    return found.digest if found else None


if __name__ == "__main__":
    run(main)
