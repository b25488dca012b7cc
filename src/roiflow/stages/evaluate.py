"""Measure the week's models and policy on the test week."""

import json
import os
from pathlib import Path

from roiflow.artefacts.evaluation import Report
from roiflow.candidates import selector as preselection
from roiflow.evaluation.target import TargetOnLog
from roiflow.evaluation.weekly import Evaluation, evaluate_week
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.files import write_directory, write_file
from roiflow.labels.model import Labels
from roiflow.params import load_params
from roiflow.progress import progress
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.rosa import RosaRanker
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from roiflow.stages.arguments import Written
from roiflow.stages.command import run


def main(
    features: Path,
    labels: Path,
    candidates: Path,
    ranker: Path,
    judged: Path,
    evaluation: Written,
    metrics: Written,
    calibration: Written,
    roi: Written,
    params: Path,
) -> None:
    """features, labels, candidates, ranker, judged -> report, metrics, calibration and ROI plots.

    What the package would have done on each slate is kept beside the report, for the screen.
    """
    config = load_params(params).evaluate
    with progress("evaluate") as show:
        own = RosaRanker.load(ranker)
        # The package's own ranker first: the evaluation takes the first for it, and its calibration
        # is what is drawn.
        rankers: dict[str, Ranker] = {own.name: own}
        rankers |= {kind: preselection.load(candidates, kind) for kind in preselection.KINDS}
        result = evaluate_week(
            feature_store.read(features),
            Labels.read(labels / Labels.place.name),
            open_engine(features),
            Models(Package.load(judged)),
            rankers,
            config,
            threads=len(os.sched_getaffinity(0)),
            progress=show,
        )
    with write_directory(evaluation) as folder:
        result.report.write(folder / Report.place.name)
        result.target.write(folder / TargetOnLog.place.name)
    with write_file(calibration) as path:
        path.write_text("\n".join(calibration_lines(result)) + "\n")
    with write_file(roi) as path:
        path.write_text("\n".join(roi_lines(result.report)) + "\n")
    with write_file(metrics) as path:
        path.write_text(json.dumps(headline(result.report), indent=1, allow_nan=False) + "\n")


def headline(report: Report) -> dict[str, object]:
    """The numbers that `dvc metrics diff` compares; those that are undefined are left out."""
    models = {
        name: {metric: value for metric, value in values.items() if value is not None}
        for name, values in report.models.items()
    }
    roi = {
        name: {
            key: value
            for key, value in (
                ("roi", estimate.roi.value),
                ("roi_low", estimate.roi.low),
                ("roi_high", estimate.roi.high),
                ("lift", estimate.lift.value),
                ("maturity", estimate.maturity),
            )
            if value is not None
        }
        for name, estimate in report.roi.items()
    }
    return {
        "models": models,
        "roi": roi,
        "policy": report.policy,
        "suspected_leak": len(report.suspected_leak),
    }


def calibration_lines(result: Evaluation) -> list[str]:
    """The calibration plot as CSV."""
    curve = result.calibration
    rows = zip(curve.predicted.tolist(), curve.observed.tolist(), curve.count.tolist(), strict=True)
    return ["predicted,observed,count", *(",".join(map(str, row)) for row in rows)]


def roi_lines(report: Report) -> list[str]:
    """The ROI plot as CSV; estimators without a value are left out."""
    lines = ["estimator,roi,low,high"]
    for name, estimate in report.roi.items():
        roi = estimate.roi
        if roi.value is not None:
            low, high = ("" if end is None else end for end in (roi.low, roi.high))
            lines.append(f"{name},{roi.value},{low},{high}")
    return lines


if __name__ == "__main__":
    run(main)
