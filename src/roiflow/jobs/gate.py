"""Decide whether a run's package may become champion, and keep the decision beside the run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from roiflow.errors import GateError
from roiflow.evaluation.gate import Decision, Override, check_distinct, decide
from roiflow.evaluation.replay import compare
from roiflow.evaluation.weekly import DRAWS, test_slates
from roiflow.features import folder as feature_store
from roiflow.features.engine import open_engine
from roiflow.files import write_file
from roiflow.params import Params
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models

DECISION = Path("data/gate/decision.json")
REPORT = Path("data/evaluation/report.json")
PARITY = Path("data/parity/report.json")


def gate(
    run_folder: Path,
    champion_package: Path | None,
    params: Params,
    override: Override | None,
    parity: Mapping[str, Any] | None,
) -> Decision:
    """Decide on `run_folder`/data/package and write data/gate/decision.json there.

    `parity` is what `read_parity` gives, or gave when the package was judged first. The same inputs
    give the same decision and the same digest. Raises GateError where no decision can be taken,
    PackageError where a package is not whole.
    """
    report = read_report(run_folder)
    challenger = Package.load(run_folder / "data/package")
    champion = None if champion_package is None else Package.load(champion_package)
    check_distinct(challenger.digest, champion.digest if champion else None)
    comparison: dict[str, Any] | None = None
    if champion is not None:
        logged = report.get("propensities_logged", False)
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
    with write_file(run_folder / DECISION) as path:
        content = {**decision.to_dict(), "comparison": comparison, "parity": parity}
        path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    return decision


def read_report(run_folder: Path) -> dict[str, Any]:
    """The evaluation's report; raises GateError, naming the file."""
    path = run_folder / REPORT
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except OSError as error:
        raise GateError(f"{path}: {error.strerror}: nothing to decide on") from None
    except ValueError as error:
        raise GateError(f"{path}: not JSON: {error}") from None
    return report


def read_parity(run_folder: Path, week: str) -> dict[str, Any] | None:
    """The summary of the parity report on the test week; None where there is none of that week.

    Raises GateError, naming the file, where it is no report.
    """
    path = run_folder / PARITY
    if not path.exists():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text())
        names = ("week", "verdict", "reason", "summary", "different", "max_different_fraction")
        summary = {name: report[name] for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise GateError(f"{path}: not a parity report: {error!r}") from None
    return summary if summary["week"] == week else None


def _compare(
    run_folder: Path,
    challenger: Package,
    champion: Package,
    report: dict[str, Any],
    params: Params,
) -> dict[str, Any]:
    folder = run_folder / "data/features"
    features = feature_store.read(folder)
    slates, _ = test_slates(features, challenger.description.slate_size, params.evaluate)
    estimates = compare(
        Models(challenger),
        Models(champion),
        features,
        open_engine(folder),
        slates,
        np.array([1.0, *report["position_factors"]]),
        draws=DRAWS,
        params=params.gate,
        limits=params.evaluate,
    )
    return {name: estimate.to_dict() for name, estimate in estimates.items()}
