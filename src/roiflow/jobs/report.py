"""Write the weekly report of a run, with what was decided, served and seen in the weeks before."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from roiflow.deployment.start_page import write_start_page
from roiflow.evaluation.gate import PRIMARY
from roiflow.evaluation.report import MODEL_BASED, PastWeek, write_report
from roiflow.files import read_json
from roiflow.jobs.gate import PARITY
from roiflow.settings import Settings
from roiflow.stages.arguments import Written
from roiflow.stages.command import run
from roiflow.weekly.checkout import Lineage


def main(
    lineage: Path,
    drift: Annotated[Path, "the drift report to link (data/drift/drift.html)"],
    report: Annotated[Written, "the weekly report, one HTML file (data/report/report.html)"],
) -> None:
    """Write `report` from the run that holds `lineage`; `drift` is linked where it was made."""
    made = Lineage.read(lineage)
    folder = lineage.absolute().parents[1]
    promoted = _read(folder / "data" / "promoted.json")
    served = _read(folder / "data" / "deployed.json")
    extra = {
        "source": made.source,
        "drift": _relative(drift.absolute(), report.absolute()) if drift.exists() else None,
        "links": {"Slate service": served["address"]} if served else {},
        "facts": {
            "Commit": made.commit,
            "Registered version": str(promoted.get("version", "none")),
            "Promoted": promoted.get("rule", "no") if promoted.get("promoted") else "no",
            "Feature parity": parity_line(_read(folder / PARITY)),
            "Served": ", ".join(f"{arm['tag']} ({arm['arm']})" for arm in served.get("arms", ())),
        },
        "history": list(history(Settings().runs, made)),
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    write_report(folder, report, extra)
    write_start_page(Settings())


def parity_line(report: dict[str, Any]) -> str:
    """What served the week against what training sees, in one line."""
    if not report:
        return "not checked"
    return f"{report['verdict']}: {report['reason'] or report['summary']}"


def history(runs: Path, lineage: Lineage) -> Iterator[PastWeek]:
    """Estimated ROI of each finished run of the source up to its week, oldest first.

    Each says what estimated it: weeks without propensities have the model's word alone.
    """
    for folder in sorted(runs.glob(f"{lineage.source}-*")):
        week = folder.name.removeprefix(f"{lineage.source}-")
        estimates = _read(folder / "data" / "evaluation" / "report.json").get("roi", {})
        name = PRIMARY if PRIMARY in estimates else MODEL_BASED
        roi = estimates.get(name, {}).get("roi", {})
        if week <= lineage.week and roi.get("value") is not None:
            yield PastWeek(week, name, roi["value"], roi["low"], roi["high"], roi["verdict"])


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


if __name__ == "__main__":
    run(main)
