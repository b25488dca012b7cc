"""Write the weekly report of a run, with what was decided, served and seen in the weeks before."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.evaluation import PRIMARY, Report
from roiflow.artefacts.labels import LabelsReport
from roiflow.artefacts.parity import ParityReport, ParityVerdict
from roiflow.artefacts.run import Deployed, Lineage, Promoted
from roiflow.artefacts.validation import Validation
from roiflow.deployment.start_page import write_start_page
from roiflow.errors import ArtefactError
from roiflow.evaluation.plots import MODEL_BASED, PastWeek
from roiflow.evaluation.report import Told, write_report
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    lineage: Path,
    evaluation: Path,
    canary: Path,
    screen: Path,
    parity: Path,
    promoted: Path,
    deployed: Path,
    metrics: Annotated[Path, "folder of one JSON a stage (metrics)"],
    plots: Annotated[Path, "folder of one CSV a plot (plots)"],
    drift: Annotated[Path, "the drift report to link (data/drift/drift.html)"],
    report: Annotated[Written, "the weekly report, one HTML file (data/report/report.html)"],
) -> None:
    """Write `report`; what is not there yet, such as a deployment, it leaves out."""
    made, outcome, served = Lineage.read(lineage), Promoted.find(promoted), Deployed.find(deployed)
    trial = TrialDecision.find(canary / TrialDecision.place.name)
    told = Told(
        source=made.source,
        report=Report.read(evaluation / Report.place.name),
        plots=plots,
        decision=Decision.find(screen),
        trial=trial,
        validation=Validation.find(metrics / Validation.place.name),
        labels=LabelsReport.find(metrics / LabelsReport.place.name),
        drift=_relative(drift.absolute(), report.absolute()) if drift.exists() else None,
        links={"Slate service": served.address} if served else {},
        facts={
            "Commit": made.commit,
            "Registered version": str(outcome.version) if outcome else "none",
            "Promoted": outcome.rule if outcome and outcome.promoted else "no",
            "On trial": trial_line(trial),
            "Feature parity": parity_line(ParityReport.find(parity)),
            "Served": ", ".join(f"{arm.tag} ({arm.arm})" for arm in served.arms) if served else "",
        },
        history=list(history(Settings().runs, made)),
    )
    write_report(report, told)
    write_start_page(Settings())


def trial_line(trial: TrialDecision | None) -> str:
    """What became of what was on trial in the week, in one line."""
    if trial is None:
        return "not judged"
    return f"{trial.verdict}: {trial.reason}" if trial.reason else trial.verdict


def parity_line(parity: ParityVerdict | None) -> str:
    """What served the week against what training sees, in one line."""
    return parity.line if parity else "not checked"


def history(runs: Path, lineage: Lineage) -> Iterator[PastWeek]:
    """Estimated ROI of each finished run of the source up to its week, oldest first.

    Each says what estimated it: weeks without propensities have the model's word alone.
    """
    for folder in sorted(runs.glob(f"{lineage.source}-*")):
        week = folder.name.removeprefix(f"{lineage.source}-")
        # Weeks after it are left out, so that an old week's report, written again, is the one of
        # then.
        if week > lineage.week or (report := _past(folder / Report.place)) is None:
            continue
        name = PRIMARY if PRIMARY in report.roi else MODEL_BASED
        estimate = report.roi.get(name)
        if estimate is not None and estimate.roi.value is not None:
            roi = estimate.roi
            yield PastWeek(
                week, name, estimate.roi.value, roi.low, roi.high, roi.verdict, estimate.maturity
            )


def _past(path: Path) -> Report | None:
    try:
        return Report.find(path)
    except ArtefactError as error:
        # An earlier version of the code wrote it, and this week's report is none the worse.
        print(f"left out of the history: {error}")
        return None


def _relative(target: Path, page: Path) -> str:
    # Relative, so that the link still leads there when the checkout is copied or served from
    # elsewhere.
    return Path(os.path.relpath(target, page.parent)).as_posix()


if __name__ == "__main__":
    run(main)
