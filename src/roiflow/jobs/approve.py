"""A signed override: judge a registered version again with a person's name and reason."""

import time
from pathlib import Path

from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.run import Promoted, Registered
from roiflow.errors import GateError
from roiflow.jobs.register import decision_tags
from roiflow.jobs.screen import Case, Then, parity_then, screen
from roiflow.params import load_params
from roiflow.registry import CHALLENGER, CHAMPION, Registry, model_name, read_digest
from roiflow.settings import Settings
from roiflow.stages.command import run
from roiflow.weekly.checkout import checkout_of
from roiflow.weekly.choice import finished_weeks


def main(source: str, version: int, who: str, why: str) -> None:
    """Promote a version in the name of `who`, also one that was the champion before."""
    approve(Settings(), source, version, Override(who, why))


def approve(settings: Settings, source: str, version: int, signature: Override) -> None:
    """Promote a version under a signature, also one that was the champion before.

    The decision's digest covers the signature; the same signature twice changes nothing, and
    finishes what was cut short. Raises GateError where the run's checkout no longer holds the
    version's package, or where it is the champion by another decision; its tags are then as before.
    """
    registry = Registry(settings.registry_uri, settings.home)
    known = registry.get(model_name(source), version)
    folder = checkout_of(settings.home, source, known.tags["week"])
    decision = judge(registry, known, folder, signature, settings.lake)
    who, why = signature.who, signature.why
    registry.promote(known, decision.champion, decision.verdict, who, why, time.time())
    # Tags follow the alias: refused, the version keeps the decision that it was registered with.
    for key, value in decision_tags(decision).items():
        registry.set_tag(known, key, value)
    registry.set_alias(known, CHALLENGER)
    # Where the next week's serving looks: what the newest finished run left.
    for week in finished_weeks(settings.home, source)[-1:]:
        place = checkout_of(settings.home, source, str(week)) / Promoted.place
        approved(Promoted.read(place), known, why).write(place)


def approved(outcome: Promoted, known: Registered, why: str) -> Promoted:
    """What a run left, with another champion by a person's word."""
    tried = None if outcome.challenger == known.digest else outcome.challenger
    return Promoted(known.version, True, known.digest, tried, "override", why)


def judge(
    registry: Registry, known: Registered, folder: Path, signature: Override, lake: Path
) -> Decision:
    """The decision on `known` under a signature; the one that made it champion where it is that."""
    case = Case.of(folder)
    # The run may have been repeated with other code since, and its checkout hold another package
    # than the one that somebody signs for.
    held = read_digest(case.package)
    if held != known.digest:
        raise GateError(
            f"{folder}: holds package {held}, version {known.version} is {known.digest}"
        )
    champion = registry.by_alias(known.name, CHAMPION)
    if champion is not None and champion.version == known.version:
        return _taken(known, Decision.read(case.decision), signature)
    package = registry.package(champion) if champion else None
    then = Then(package, parity_then(known), signature)
    return screen(case, then, load_params(case.params), lake)


def _taken(known: Registered, decision: Decision, signature: Override) -> Decision:
    # Only the second half of the same approval may go on: anything else would put a new name under
    # a decision that was taken.
    if decision.override != signature or decision.challenger != known.digest:
        raise GateError(f"{known.name} version {known.version}: is the champion already")
    return decision


if __name__ == "__main__":
    run(main)
