"""Decide whether a run's package may become champion, and keep the decision beside the run."""

from pathlib import Path

import numpy as np

from roiflow.artefacts.decision import Decision, Override
from roiflow.artefacts.evaluation import Report, RoiEstimate
from roiflow.artefacts.parity import ParityReport, ParityVerdict
from roiflow.evaluation.gate import check_distinct, decide
from roiflow.evaluation.replay import compare, on_log
from roiflow.evaluation.target import LoggedWeek, TargetOnLog
from roiflow.evaluation.weekly import test_slates
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.params import Params
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models

DECISION = Decision.place
PARITY = ParityReport.place


def gate(
    run_folder: Path,
    champion_package: Path | None,
    params: Params,
    override: Override | None,
    parity: ParityVerdict | None,
) -> Decision:
    """Decide on `run_folder`/data/package and write data/gate/decision.json there.

    `parity` is what `read_parity` gives, or gave when the package was judged first. The same inputs
    give the same decision and the same digest. Raises GateError where no decision can be taken,
    ArtefactError without an evaluation, PackageError where a package is not whole.
    """
    report = Report.of(run_folder)
    challenger = Package.load(run_folder / "data/package")
    champion = None if champion_package is None else Package.load(champion_package)
    check_distinct(challenger.digest, champion.digest if champion else None)
    comparison: dict[str, RoiEstimate] | None = None
    if champion is not None:
        # Without propensities no comparison can say anything, and a replay takes a while.
        logged = report.propensities_logged
        comparison = _compare(run_folder, challenger, champion, report, params) if logged else {}
    decision = decide(
        report,
        params.gate,
        challenger=challenger.digest,
        champion=champion.digest if champion else None,
        comparison=comparison,
        parity=parity,
        override=override,
    )
    decision.write(run_folder / DECISION)
    return decision


def read_parity(run_folder: Path, week: str) -> ParityVerdict | None:
    """The verdict of the parity report on the test week; None where there is none of that week.

    Raises ArtefactError where it is no report.
    """
    report = ParityReport.find(run_folder / PARITY)
    return report.outcome if report and report.week == week else None


def _compare(
    run_folder: Path,
    challenger: Package,
    champion: Package,
    report: Report,
    params: Params,
) -> dict[str, RoiEstimate]:
    folder = run_folder / "data/features"
    features, config = feature_store.read(folder), params.evaluate
    slates, _ = test_slates(features, challenger.description.slate_size, config)
    week = LoggedWeek.of(features, np.array([1.0, *report.position_factors]))
    return compare(
        TargetOnLog.read(run_folder / TargetOnLog.place),
        on_log(Models(champion), features, open_engine(folder), slates, week, config),
        slates,
        params.gate,
        config,
    )
