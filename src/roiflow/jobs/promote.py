"""Move the alias `champion` to what its trial promotes, and say who is on trial next.

A trial's verdict becomes a tag of the version that was tried: another run made that version, so the
tag has the commit of this one, by whose code and data the decision can be taken again.
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

from roiflow.artefacts.decision import Decision, Rule, TrialDecision, Tried
from roiflow.artefacts.run import Lineage, Promoted, Registered
from roiflow.deployment.start_page import write_start_page
from roiflow.errors import RegistryError
from roiflow.jobs.register import HEAD, row_of
from roiflow.registry import CHALLENGER, CHAMPION, Registry, trial_tag
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.choice import serves_without_a_package

CANARY, SCREEN = "canary", "screen"
"""Who promotes where no person does."""

EVIDENCE: Rule = "evidence"


def main(trial: Path, screen: Path, lineage: Path, registered: Path, promoted: Written) -> None:
    """Promote, or leave the champion; write which of the two, why, who then serves and is tried.

    The same decisions twice change nothing. Raises RegistryError where the screen's decision is
    about another package, or where the champion of its time no longer is the champion.
    """
    settings = Settings()
    found, decision = TrialDecision.read(trial), Decision.read(screen)
    made, version = Lineage.read(lineage), Registered.read(registered)
    if decision.challenger != version.digest:
        raise RegistryError(
            f"{screen}: decides on {decision.challenger}, {registered} is {version.digest}"
        )
    registry = Registry(settings.registry_uri, settings.home)
    tried = on_trial(registry, version.name, found)
    held = conclude(registry, tried, found, made) if tried else ""
    promote(registry, version, decision)
    result = outcome(version, decision, found, tried)
    if held:
        champion = registry.by_alias(version.name, CHAMPION)
        now = champion.digest if champion else None
        result = replace(result, promoted=False, champion=now, rule="none", reason=held)
    if result.challenger and (next_up := registry.find(version.name, result.challenger)):
        registry.set_alias(next_up, CHALLENGER)
    result.write(promoted)
    write_start_page(settings)  # here, too: what was refused gets to no later job that does


def on_trial(registry: Registry, name: str, trial: TrialDecision) -> Registered | None:
    """The version that was tried.

    Raises RegistryError where the registry does not hold what is to be promoted.
    """
    if trial.challenger is None:
        return None
    found = registry.find(name, trial.challenger)
    if found is None and trial.promote:
        raise RegistryError(f"{name}: no version is {trial.challenger}, which was on trial")
    return found


def conclude(registry: Registry, tried: Registered, trial: TrialDecision, made: Lineage) -> str:
    """Keep what the trial said with the version that was tried, and promote it where it says so.

    Why it was not promoted although it should have been; empty where all went as decided.
    """
    for key, value in trial_tags(trial, made).items():
        registry.set_tag(tried, key, value)
    registry.tell(tried, f"On trial in {trial.week}", describe(trial))
    if not trial.promote or tried.version in _before(registry, tried.name):
        return ""
    champion = registry.by_alias(tried.name, CHAMPION)
    if (champion.digest if champion else None) not in (trial.champion, trial.challenger):
        # Somebody moved the alias while the trial went on: it has not been held against that one.
        return f"the champion was changed by hand: the trial was against {trial.champion}"
    why, now = f"rule: {EVIDENCE}", time.time()
    registry.promote(tried, trial.champion, trial.verdict, CANARY, why, now)
    return ""


def trial_tags(trial: TrialDecision, made: Lineage) -> dict[str, str]:
    """What a version's tags say of its trial in one week; enough to take the decision again."""
    kept = asdict(Tried(made.commit, trial))
    return {
        trial_tag(trial.week): json.dumps(kept, allow_nan=False),
        "verdict_of_trial": trial.verdict,
    }


def describe(trial: TrialDecision) -> str:
    """What a version's page says of its trial in one week, in Markdown."""
    verdict = f"**{trial.verdict}**" + (f", {trial.reason}" if trial.reason else "")
    beside = trial.champion[:12] if trial.champion else "the platform's own policy"
    lines = [f"{verdict}; a {trial.kind} beside `{beside}`", ""]
    if trial.budget is not None:
        left = f"{trial.budget.left:.3f} of {trial.budget.budget:g}"
        lines += [f"Error budget of {trial.budget.year} before it: {left}", ""]
    return "\n".join([*lines, *HEAD, *map(row_of, trial.checks)])


def promote(registry: Registry, version: Registered, decision: Decision) -> None:
    """Make `version` the champion where the screen's decision says so.

    A version that was promoted before stays where later decisions put it: a run that is repeated
    does not turn back the weeks after it.
    """
    if not decision.promote or version.version in _before(registry, version.name):
        return
    # A signature may be there and not have been needed: then the rule promotes, not the person.
    signed = decision.override if decision.rule == "override" else None
    registry.promote(
        version,
        over=decision.champion,
        verdict=decision.verdict,
        by=signed.who if signed else SCREEN,
        why=signed.why if signed else f"rule: {decision.rule}",
        now=time.time(),
    )


def _before(registry: Registry, name: str) -> set[int]:
    """Versions that were promoted; by the log, since the alias tells only who is champion now."""
    return {line.version for line in registry.promotions(name)}


def outcome(
    version: Registered, decision: Decision, trial: TrialDecision, tried: Registered | None
) -> Promoted:
    """What becomes of a run's two decisions: of what was tried, and of what the run registered."""
    return Promoted(
        version=(tried or version).version,
        promoted=trial.promote or decision.promote,
        champion=version.digest if decision.promote else decision.champion,
        challenger=next_on_trial(version, decision, trial),
        rule=EVIDENCE if trial.promote else decision.rule,
        reason=trial.reason if tried else decision.reason or trial.reason,
    )


def next_on_trial(version: Registered, decision: Decision, trial: TrialDecision) -> str | None:
    """Digest of what is tried next week; None where nothing is.

    A trial that goes on keeps its place, and newer packages wait registered.
    """
    if trial.again:
        return trial.challenger
    if decision.promote or decision.verdict == "fail":
        return None
    beside = decision.champion is not None or serves_without_a_package(version.tags["source"])
    return version.digest if beside else None


if __name__ == "__main__":
    run(main)
