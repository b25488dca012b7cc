"""A home as two finished runs and one unfinished run leave it; no server has run."""

import json
import os
from pathlib import Path
from typing import Any

from roiflow.artefacts.decision import TrialDecision
from roiflow.artefacts.run import Bentos, Built, Registered
from roiflow.jobs.promote import outcome
from tests import records
from tests.trials import tried

DIGESTS = {"2026-W04": "a" * 64, "2026-W05": "b" * 64}
MODEL = "ad_ranker_simulator"
BENTO = "ad_ranker:0123456789ab"


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def write_run(
    home: Path, week: str, when: float, trial: TrialDecision | None = None, **decision: Any
) -> Path:
    """A run's checkout with the files that its jobs write; without `decision` it is unfinished."""
    folder = home / "runs" / f"simulator-{week}"
    write(folder / "params.yaml", "ingest: {}\n")
    if decision:
        taken, found = records.decision(**decision), trial or records.trial_decision()
        tags = {"source": "simulator"}
        version = Registered(MODEL, sorted(DIGESTS).index(week) + 1, DIGESTS[week], tags)
        roi = records.roi_estimate(records.estimate(0.31, 0.12, 0.48))
        records.leave(
            folder,
            taken,
            found,
            outcome(version, taken, found, None),
            version,
            Bentos(MODEL, Built(BENTO, DIGESTS["2026-W04"], 1), None),
            records.report(roi={"switch_dr": roi}),
        )
        write(folder / "data/report/report.html", f"<p>report {week}")
        write(folder / "data/drift/drift.html", f"<p>drift {week}")
    for path in folder.rglob("*"):
        os.utime(path, (when, when))
    return folder


def write_home(home: Path) -> None:
    """W04 is champion by the first-model rule, W05's trial inconclusive, W06 not finished."""
    write_run(home, "2026-W04", 1000.0, verdict="inconclusive", promote=True, rule="first model",
              reason="too few effective slates")  # fmt: skip
    write_run(home, "2026-W05", 2000.0, tried(0.02, 0.06), promote=False, rule="none")
    move = {"time": 1000.0, "name": MODEL, "version": 1, "digest": DIGESTS["2026-W04"],
            "previous": None, "verdict": "pass", "by": "screen", "why": "first"}  # fmt: skip
    write(home / "promotions.jsonl", json.dumps(move) + "\n")
    arms = [{"arm": "stable", "percent": 100.0, "tag": BENTO, "limits": "0f3a"}]
    write(home / "deployment.json", {"arms": arms})
