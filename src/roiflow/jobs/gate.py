"""Decide whether a package may become champion, and keep the decision beside the run."""

import os
from dataclasses import dataclass
from pathlib import Path

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.evaluation import Report, RoiEstimate
from roiflow.artefacts.parity import ParityReport, ParityVerdict
from roiflow.evaluation.gate import check_distinct, decide
from roiflow.evaluation.replay import compare, on_log
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.weekly import test_slates
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.labels.model import Labels
from roiflow.params import Params
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import kept
from roiflow.serving.recommender import Models
from roiflow.weekly.effects import effect


@dataclass(frozen=True)
class Case:
    """What a package is judged on, and where the decision goes: the arguments of `decide`."""

    package: Path
    features: Path
    labels: Path
    evaluation: Path
    agreement: Path
    parity: Path
    params: Path
    decision: Path

    @classmethod
    def of(cls, checkout: Path) -> "Case":
        """The case of a run, by the paths that its effect has: to judge it once more."""
        _, *names = effect("gate").command.split()
        return cls(*(checkout / name for name in names))


def gate(
    case: Case,
    champion_package: Path | None,
    params: Params,
    override: Override | None,
    parity: ParityVerdict | None,
    lake: Path,
) -> Decision:
    """Decide, and write the decision.

    `params` are those in the case's file, `parity` is what `read_parity` gives, or gave when the
    package was judged first. In `lake` lie the champion's recalibrations: what it would have done
    is replayed with those that were in force. The same inputs give the same decision and the same
    digest. Raises GateError where no decision can be taken, ArtefactError without an evaluation,
    PackageError where a package is not whole.
    """
    report = Report.read(case.evaluation / Report.place.name)
    challenger = Package.load(case.package)
    champion = None if champion_package is None else Package.load(champion_package)
    check_distinct(challenger.digest, champion.digest if champion else None)
    comparison: dict[str, RoiEstimate] | None = None
    if champion is not None:
        # Without propensities no comparison can say anything, and a replay takes a while.
        logged = report.propensities_logged
        comparison = _compare(case, challenger, champion, params, lake) if logged else {}
    decision = decide(
        report,
        params.gate,
        challenger=challenger.digest,
        champion=champion.digest if champion else None,
        comparison=comparison,
        parity=parity,
        override=override,
        agreement=Agreement.find(case.agreement),
        champion_fitted=fitted_to(champion) if champion else None,
    )
    decision.write(case.decision)
    return decision


def fitted_to(package: Package) -> str | None:
    """The last week that a package was fitted on; None of a judged one, which left its own out."""
    return package.description.week if package.description.judged else None


def read_parity(path: Path, week: str) -> ParityVerdict | None:
    """The verdict of the parity report on the test week; None where there is none of that week.

    Raises ArtefactError where it is no report.
    """
    report = ParityReport.find(path)
    return report.outcome if report and report.week == week else None


def _compare(
    case: Case,
    challenger: Package,
    champion: Package,
    params: Params,
    lake: Path,
) -> dict[str, RoiEstimate]:
    features, config = feature_store.read(case.features), params.evaluate
    labels = Labels.read(case.labels / Labels.place.name)
    slates, _ = test_slates(features, labels, challenger.description.slate_size, config)
    week = LoggedWeek.of(features, labels)
    engine, threads = open_engine(case.features), len(os.sched_getaffinity(0))
    in_force = kept(lake, params.ingest.source, champion.digest)
    return compare(
        TargetOnLog.read(case.evaluation / TargetOnLog.place.name),
        # The challenger's own reading is kept by the stage `evaluate`; only the champion's is made
        # here.
        on_log(Models(champion, in_force), features, engine, slates, week, config, threads),
        slates,
        params.gate,
        config,
    )
