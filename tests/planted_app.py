"""The slate app with one planted slate for everybody; logs to the folder SERVED.

It is an application of its own: `uvicorn --factory tests.planted_app:app`.
"""

import os
from pathlib import Path

import numpy as np

from roiflow.ranking.value import CostShares
from roiflow.serving.app import SlateApp, Version
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.stream.checks import Limits
from roiflow.stream.served_log import EventLog

LIMITS = Limits(
    lateness=3_600_000_000, tolerance=1_000_000, message_bytes=65_536, amount=10**15, slate=1_000
)
ROW = np.array([[0, 1, 2]])
HALF = np.full((1, 3), 0.5)
IDS = np.array([["a", "b", "c"]], object)
SLATES = Slates(
    ROW,
    IDS,
    HALF,
    HALF,
    HALF,
    HALF,
    HALF,
    ROW * 100,
    ROW[0, :1],
    np.array([None]),
    np.zeros((1, 1000), np.uint8),
)


class Always:
    def __call__(self, contexts: RequestContexts) -> tuple[Slates, bool]:
        return SLATES, False

    def check(self, at: int) -> None:
        return


def planted(kind: type[EventLog] = EventLog) -> SlateApp:
    log, shares = kind(Path(os.environ["SERVED"])), CostShares(0.0, 1.0, 0.0)
    return SlateApp(Always(), log, Version("v", "v", "2026-W01"), shares, LIMITS)


def app() -> SlateApp:
    return planted()
