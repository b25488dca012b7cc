"""Artefacts for tests: whole ones, of which a test says what it is about."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from roiflow.artefacts.agreement import Agreement
from roiflow.artefacts.decision import Decision, TrialDecision
from roiflow.artefacts.evaluation import (
    Estimate,
    Leaks,
    Metrics,
    Report,
    RoiEstimate,
    Rows,
    SlateCounts,
)
from roiflow.artefacts.labels import Examined, LabelsReport
from roiflow.artefacts.parity import Compared, ParityReport, ParityVerdict
from roiflow.artefacts.record import Artefact
from roiflow.artefacts.run import Promoted
from roiflow.evaluation.canary import no_trial

A, B, J = "a" * 64, "b" * 64, "c" * 64
"""Digests of a challenger, of a champion, and of the package that was judged in A's place."""

NOT_SERVED = ParityVerdict(
    "2026-W04", "not served", "", "no package of ours served the week", 0, 0.0
)
SAME = ParityVerdict("2026-W04", "pass", "", "990 slates compared, 0 differ", 0, 0.0)


def estimate(
    value: float | None, low: float | None = None, high: float | None = None, **more: Any
) -> Estimate:
    """Conclusive, unless `more` says otherwise."""
    rest: Mapping[str, Any] = {
        "name": "dr",
        "verdict": "conclusive",
        "reason": "",
        "model_based": False,
        "diagnostics": None,
    }
    return Estimate(value=value, low=low, high=high, **{**rest, **more})


def roi_estimate(roi: Estimate, lift: Estimate | None = None) -> RoiEstimate:
    """Money is the same of all; `lift` is that of value and of ROI."""
    found = lift or estimate(0.0, 0.0, 0.0)
    return RoiEstimate(estimate(1.25e9), found, roi, found, 2.5e6, 1.25e6, 0.9)


def labels_report() -> LabelsReport:
    """Of a window whose second category has no conversion and whose test week is away."""
    return LabelsReport(
        examination=Examined({"position_1": 1.0}, {"position_1": 1.0}, {}, {}, 0),
        maturity={"train": 0.999, "validation": 0.813, "test": None},
        mean_delay_hours={"shoes": 12.5},
        mean_delay_hours_of_all=12.5,
        returned=None,
        conversions=9,
        without_conversions=("<games>",),
        left_out=0,
        longest_age_hours=672,
    )


def metrics(**values: float | None) -> Metrics:
    """Metrics of clicks by their short names."""
    return {f"test_full_click_{name}": value for name, value in values.items()}


def report(**more: Any) -> Report:
    """A week's evaluation: a ranker that is good enough, and no estimate but the logged one."""
    whole: Mapping[str, Any] = {
        "week": "2026-W04",
        "package": J,
        "ranker": "rosa",
        "impressions": Rows(train=1234, validation=10, test=5678),
        "slates": SlateCounts(whole=90, with_propensities=90, evaluated=80),
        "propensities_logged": True,
        "models": {"rosa": metrics(auc=0.7, auc_low=0.68, auc_high=0.72, ece=0.01)},
        "examination": (1.0, 0.6),
        "maturity": 0.9,
        "roi": {"logged": roi_estimate(estimate(0.111, 0.011, 0.9))},
        "policy": {"test_policy_arp": 10.0, "test_policy_coverage": 0.5},
        "suspected_leak": Leaks((), ()),
        "suspicious_lift": 0.5,
    }
    return Report(**{**whole, **more})


def decision(**more: Any) -> Decision:
    """A first model's that nothing can be tried beside, and that is promoted by the rule for it."""
    whole: Mapping[str, Any] = {
        "verdict": "pass",
        "promote": True,
        "rule": "first model",
        "reason": "",
        "checks": (),
        "challenger": A,
        "champion": None,
        "override": None,
        "digest": "d" * 64,
        "comparison": None,
        "parity": NOT_SERVED,
        "agreement": agreement(),
    }
    return Decision(**{**whole, **more})


def trial_decision(**more: Any) -> TrialDecision:
    """Nothing was on trial."""
    return replace(no_trial("simulator", "2026-W04"), **more)


def agreement(**more: Any) -> Agreement:
    """A refit that behaves as what was judged."""
    whole: Mapping[str, Any] = {
        "judged": J,
        "shipped": A,
        "requests": 2000,
        "overlap": 0.8,
        "value_ratio": 1.05,
        "propensity": 0.7,
    }
    return Agreement(**{**whole, **more})


def compared(**more: Any) -> Compared:
    """A package whose slates had the features that training sees."""
    whole: Mapping[str, Any] = {
        "policy_version": "0123456789ab",
        "digest": "0123456789ab" + "0" * 52,
        "slates": 1000,
        "not_kept": 0,
        "degraded": 2,
        "compared": 990,
        "not_final": 8,
        "ahead": 0,
        "different": 0,
        "sampled": 20,
        "corrupt": (),
        "stale_share": 0.25,
        "features": (),
        "fault": None,
    }
    return Compared(**{**whole, **more})


def parity_report(verdict: ParityVerdict = SAME, *packages: Compared) -> ParityReport:
    """A verdict with its packages."""
    return ParityReport(**vars(verdict), packages=packages)


def promoted(**more: Any) -> Promoted:
    """Version 1, which its trial made champion."""
    whole: Mapping[str, Any] = {
        "version": 1,
        "promoted": True,
        "champion": A,
        "challenger": None,
        "rule": "evidence",
        "reason": "",
    }
    return Promoted(**{**whole, **more})


def leave(checkout: Path, *artefacts: Artefact) -> None:
    """Write each where a run has it."""
    for one in artefacts:
        one.write(checkout / one.place)
