"""The labels' model from one window of features, and what it says of them in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from roiflow.artefacts.labels import Examined, LabelsReport
from roiflow.data.split import TEST, TRAIN, VALIDATION
from roiflow.features.table import CONTEXT, Features, Floats
from roiflow.labels.delays import hours_between
from roiflow.labels.examination import (
    Examination,
    Regression,
    Swapped,
    logged_whole,
    regression,
    swaps,
)
from roiflow.labels.model import Labels
from roiflow.labels.settled import settle
from roiflow.labels.worth import CATEGORY, Delays
from roiflow.params import LabelsParams


@dataclass(frozen=True)
class Fitted:
    """The model, and both estimates of what is looked at."""

    labels: Labels
    by_regression: Floats
    by_swaps: Swapped


def fit(features: Features, params: LabelsParams) -> Fitted:
    """Delays as of each moment at which labels stand; examination from the rows before the test."""
    rows = np.concatenate([features.rows(TRAIN), features.rows(VALIDATION)])
    how = Regression(params.l2, params.prior_clicks, params.max_rows, params.iterations)
    by_regression = regression(features, rows, how)
    # What swaps read needs no past, so that the run-up tells as much.
    before = np.flatnonzero(features.impressions.split != TEST)
    by_swaps = swaps(*logged_whole(features, before))
    examination = Examination(chosen(by_regression, by_swaps, params.max_swap_error))
    moments = sorted({features.known_until[TRAIN], features.known_until[TEST]})
    delays = tuple(_learn(features, moment, params) for moment in moments)
    return Fitted(Labels(examination, delays, params.min_maturity), by_regression, by_swaps)


def chosen(by_regression: Floats, by_swaps: Swapped, max_error: float) -> Floats:
    """Factors by swaps where all of them are told well enough, else by regression.

    Where a policy knows more of users and ads than the regression does, it puts what will be
    clicked on top and the regression takes that for looks; swaps cannot be misled by it.
    """
    factor, error = by_swaps.factor, by_swaps.error
    covers = factor.size >= by_regression.size and factor.size > 1
    told = bool(np.all(error[1:] <= max_error * factor[1:]))  # NaN is not
    return factor if covers and told else by_regression


def _learn(features: Features, moment: int, params: LabelsParams) -> Delays:
    # As of the window's end clicks and conversions of all rows are as they stand then.
    seen = features if moment <= features.known_until[TRAIN] else features.as_of_end()
    segment = CONTEXT.index(params.segment) if params.segment != "none" else -1
    return Delays.learn(
        seen,
        moment,
        segment=segment,
        prior=params.prior_conversions,
        longest_hours=24 * params.longest_days,
    )


def described(features: Features, fitted: Fitted, names: Sequence[str]) -> LabelsReport:
    """In numbers; `names` (categories,) are those of the vocabulary, the unknown one first."""
    labels, log = fitted.labels, features.impressions
    delays = labels.delays[-1]
    shown = np.unique(features.attributes[:, CATEGORY][log.ad]).astype(np.int32)
    told = delays.sales.cell[shown].any(axis=1)
    mean = delays.sales.mean(shown, np.zeros_like(shown))
    sold = delays.rate[shown] * delays.worth[shown]
    maturity = {
        split: settle(labels, features, features.rows(number)).maturity
        for split, number in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    }
    return LabelsReport(
        examination=Examined(
            used=_by_position(labels.examination.factor),
            regression=_by_position(fitted.by_regression),
            swaps=_by_position(fitted.by_swaps.factor),
            swaps_error=_by_position(fitted.by_swaps.error),
            slates=fitted.by_swaps.slates,
        ),
        maturity=maturity,
        mean_delay_hours=dict(
            zip([names[one] for one in shown[told]], mean[told].tolist(), strict=True)
        ),
        mean_delay_hours_of_all=delays.sales.mean_of_all if told.any() else None,
        returned=float(delays.returned[shown] @ sold / sold.sum()) if sold.sum() > 0 else None,
        conversions=int(np.count_nonzero(features.outcomes.revenue >= 0)),
        without_conversions=tuple(names[one] for one in shown[~told]),
        left_out=delays.left_out,
        longest_age_hours=int(
            hours_between(log.event_time.min(initial=delays.as_of), delays.as_of)
        ),
    )


def _by_position(factor: Floats) -> dict[str, Any]:
    return {
        f"position_{number}": float(value) if np.isfinite(value) else None
        for number, value in enumerate(factor.tolist(), start=1)
    }
