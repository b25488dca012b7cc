"""Screen the run's package on the champion's log, once: whether it may go on trial.

A package that was screened before is held against the champion of then, so a second attempt and a
proof come to the same decision.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.decision import Decision, Override, TrialDecision
from roiflow.artefacts.evaluation import Report, RoiEstimate
from roiflow.artefacts.parity import ParityReport, ParityVerdict
from roiflow.artefacts.record import parse
from roiflow.artefacts.run import Registered
from roiflow.errors import GateError
from roiflow.evaluation.replay import compare, on_log
from roiflow.evaluation.screen import Subject, check_distinct, decide
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.weekly import test_slates
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.labels.model import Labels
from roiflow.params import Params, load_params
from roiflow.registry import CHAMPION, Registry, model_name, read_digest
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import kept
from roiflow.serving.recommender import Models
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.choice import serves_without_a_package
from roiflow.weekly.effects import effect

NONE = "none"
"""Value of the tag `champion_then` where there was no champion."""


@dataclass(frozen=True)
class Case:
    """What a package is screened on, and where the decision goes: the arguments of `screen`."""

    package: Path
    features: Path
    labels: Path
    evaluation: Path
    agreement: Path
    parity: Path
    canary: Path
    params: Path
    decision: Path

    @classmethod
    def of(cls, checkout: Path) -> "Case":
        """The case of a run, by the paths that its effect has: to judge it once more."""
        _, *names = effect("screen").command.split()
        return cls(*(checkout / name for name in names))


@dataclass(frozen=True)
class Then:
    """What a decision rests on besides the files of its run, as it was when it was first taken."""

    champion: Path | None
    """Folder of the champion's package."""
    parity: ParityVerdict | None
    override: Override | None


def main(
    package: Path,
    features: Path,
    labels: Path,
    evaluation: Path,
    agreement: Path,
    parity: Path,
    canary: Path,
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
    case = Case(package, features, labels, evaluation, agreement, parity, canary, params, decision)
    if known:
        # Screened before, it meets the champion of then: it may be champion itself by now. A parity
        # report may have been written again since, with other findings.
        champion = champion_then(registry, known)
        served, signature = parity_then(known), signed(known)
    else:
        champion = successor(registry, name, TrialDecision.read(canary / TrialDecision.place.name))
        served, signature = read_parity(parity, config.ingest.week), None
    folder = registry.package(champion) if champion else None
    screen(case, Then(folder, served, signature), config, settings.lake)


def screen(case: Case, then: Then, params: Params, lake: Path) -> Decision:
    """Decide, and write the decision.

    `params` are those in the case's file. In `lake` lie the champion's recalibrations: what it
    would have done is replayed with those that were in force. The same inputs give the same
    decision and the same digest. Raises GateError where no decision can be taken, ArtefactError
    without an evaluation, PackageError where a package is not whole.
    """
    report = Report.read(case.evaluation / Report.place.name)
    challenger = Package.load(case.package)
    champion = None if then.champion is None else Package.load(then.champion)
    check_distinct(challenger.digest, champion.digest if champion else None)
    comparison: dict[str, RoiEstimate] | None = None
    if champion is not None:
        # Without propensities no comparison can say anything, and a replay takes a while.
        logged = report.propensities_logged
        comparison = _compare(case, challenger, champion, params, lake) if logged else {}
    subject = Subject(
        challenger=challenger.digest,
        champion=champion.digest if champion else None,
        comparison=comparison,
        parity=then.parity,
        agreement=Agreement.find(case.agreement),
        champion_fitted=fitted_to(champion) if champion else None,
        tried=serves_without_a_package(params.ingest.source),
    )
    decision = decide(report, params.screen, subject, then.override)
    decision.write(case.decision)
    return decision


def target_file(digest: str) -> str:
    """Name, beside a trial's decision, of what a package would have done in the week."""
    return f"{digest[:12]}.npz"


def fitted_to(package: Package) -> str | None:
    """The last week that a package was fitted on; None of a judged one, which left its own out."""
    return package.description.week if package.description.judged else None


def successor(registry: Registry, name: str, trial: TrialDecision) -> Registered | None:
    """Who is champion once the trial's decision has taken effect."""
    if trial.promote and trial.challenger is not None:
        return registry.find(name, trial.challenger)
    return registry.by_alias(name, CHAMPION)


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
    """The verdict of the parity report with which a registered version was screened."""
    tag = known.tags.get("parity")
    named = f"{known.name} version {known.version}: tag parity"
    return None if tag is None else parse(ParityVerdict, tag, named)


def digest_of(decision: Path) -> str | None:
    """The digest of a decision that was written, or None."""
    found = Decision.find(decision)
    return found.digest if found else None


def read_parity(path: Path, week: str) -> ParityVerdict | None:
    """The verdict of the parity report on the test week; None where there is none of that week.

    Raises ArtefactError where it is no report.
    """
    report = ParityReport.find(path)
    return report.outcome if report and report.week == week else None


def _compare(
    case: Case, challenger: Package, champion: Package, params: Params, lake: Path
) -> dict[str, RoiEstimate]:
    features, config = feature_store.read(case.features), params.evaluate
    labels = Labels.read(case.labels / Labels.place.name)
    slates, _ = test_slates(features, labels, challenger.description.slate_size, config)
    # The challenger's own reading is kept by the stage `evaluate`, the champion's by the trial
    # where there was one.
    cost_weight = challenger.description.cost_weight
    target = TargetOnLog.read(case.evaluation / TargetOnLog.place.name)
    tried = case.canary / target_file(champion.digest)
    if tried.exists():
        replayed = TargetOnLog.read(tried).only(slates.row)
        return compare(target, replayed, slates, params.screen, config, cost_weight)
    week = LoggedWeek.of(features, labels)
    engine, threads = open_engine(case.features), len(os.sched_getaffinity(0))
    models = Models(champion, kept(lake, params.ingest.source, champion.digest))
    replayed = on_log(models, features, engine, slates, week, config, threads)
    return compare(target, replayed, slates, params.screen, config, cost_weight)


if __name__ == "__main__":
    run(main)
