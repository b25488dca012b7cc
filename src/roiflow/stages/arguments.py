"""What the arguments of stages and jobs are: said once, because the same names come back."""

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

WRITTEN = "written"
Written = Annotated[Path, WRITTEN]
"""A file or folder that the stage or job makes; every other path is read."""

MEANINGS = {
    "held": "JSON of the window and of what the source holds of it now (data/held.json)",
    "raw": "folder of the window's tables as the source gave them, with pulled.json (data/raw)",
    "validated": "folder of the rows that keep the data contract (data/validated)",
    "quarantine": "folder of the rows set aside, each with its reason (data/quarantine)",
    "features": "folder of features, vocabulary and online snapshot (data/features)",
    "labels": "folder of what labels say: delays, and which positions are looked at (data/labels)",
    "candidates": "folder of both pre-selection models and the choice (data/candidates)",
    "ranker": "folder of the trained ranker and of what advertisers pay (data/ranker)",
    "policy": "folder of the slate policy (data/policy)",
    "evaluation": "folder of the test week's evaluation, report.json (data/evaluation)",
    "judged": "folder of the package that the test week judges (data/judged)",
    "refit": "folder of pre-selection and ranker, fitted again on all weeks (data/refit)",
    "agreement": "JSON of how far what ships behaves as what was judged (data/agreement.json)",
    "package": "folder of the model package: all that serving needs (data/package)",
    "metrics": "JSON of the numbers that `dvc metrics diff` compares (metrics/STAGE.json)",
    "plots": "CSV of the curve that `dvc plots show` draws (plots/STAGE.csv)",
    "calibration": "CSV of click calibration on the test week (plots/calibration.csv)",
    "roi": "CSV of ROI by estimator (plots/roi.csv)",
    "params": "every tunable number (params.yaml)",
    "lineage": "JSON of the run's source, week and commit (data/lineage.json)",
    "parity": "JSON of the parity check (data/parity/report.json)",
    "canary": "folder of the decision on what was on trial, and its replays (data/canary)",
    "trial": "JSON of the decision on what was on trial (data/canary/decision.json)",
    "decision": "JSON of the screen's decision (data/screen/decision.json)",
    "screen": "JSON of the screen's decision (data/screen/decision.json)",
    "registered": "JSON of the registered model's name, version, tags (data/registered.json)",
    "promoted": "JSON of who is champion now, why, and who is on trial next (data/promoted.json)",
    "service": "folder of the Bento's source (bentos/ad_ranker)",
    "bento": "JSON of the built Bentos of champion and challenger (data/bento.json)",
    "online": "folder of the online store's content at the week's end (data/features/online)",
    "deployed": "JSON of the service's address and arms (data/deployed.json)",
    "watched": "which columns are watched for drift (monitoring/drift.yaml)",
    "drift": "folder of drift.html and drift.json (data/drift)",
    "source": "a source of params.yaml: simulator, files, sql, ...",
    "week": "the ISO week to test on, such as 2026-W04",
    "version": "number of a registered version",
    "who": "the person who answers for the override",
    "why": "the reason, kept with the decision",
}


def described(main: Callable[..., None]) -> list[tuple[Parameter, type, str]]:
    """Each parameter with its plain type and what it is.

    The words beside the parameter, in Annotated, come before the ones of MEANINGS.
    """
    hints = get_type_hints(main, include_extras=True)
    return [
        (parameter, *_described(name, hints[name]))
        for name, parameter in signature(main).parameters.items()
    ]


def _described(name: str, hint: Any) -> tuple[type, str]:
    kind, *said = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    own = [words for words in said if words != WRITTEN]
    meaning = own[0] if own else MEANINGS.get(name, "")
    if kind is not Path:
        return kind, meaning
    return kind, f"{'written' if WRITTEN in said else 'read'}: {meaning}"
