"""What each feature adds: the shipped pre-selection without it, beside the one that has them all.

A left-out number is a constant, a left-out code always the same one: models and requests keep their
shape, and the weight of what never varies stays 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from roiflow.artefacts.record import Record
from roiflow.candidates import selector
from roiflow.candidates.selector import Selector
from roiflow.data.split import TEST
from roiflow.features.spec import SPECS
from roiflow.features.table import Features, Ints, Requests, Singles, Statistics
from roiflow.labels.model import Labels
from roiflow.params import CandidatesParams
from roiflow.ranking.metrics import auc, log_loss

EVERYTHING = "everything"
"""The name of the model that has all features."""

CODES = ("context", "ad", "profile")
"""Groups of codes: what a model reads beside the dense features."""

_WORDS = {
    "user": "user",
    "user_category": "user x category",
    "user_campaign": "user x campaign",
    "user_advertiser": "user x advertiser",
    "user_ad": "user x ad",
    "candidate": "price and bid",
    "request": "recency",
}

Worth = Callable[[Selector, Features, Sequence[str]], float]
"""What the greedy policy of a model is worth, in points of the way from random to the oracle."""


@dataclass(frozen=True)
class Measured(Record):
    """One model, on the test week; losses in nats."""

    click_auc: float
    conversion_auc: float
    """Of the clicked rows."""
    click_loss: float
    conversion_loss: float
    """Of the clicked rows, by what was known of them."""
    points: float | None
    """None where the truth is not known."""


@dataclass(frozen=True)
class Gain(Record):
    """What a feature adds to a model that has all the others."""

    click_auc: float
    conversion_auc: float
    click_loss: float
    """How much less it is with the feature."""
    conversion_loss: float
    points: float | None

    @classmethod
    def of(cls, full: Measured, without: Measured) -> "Gain":
        """From the model with it and the one without."""
        known = full.points is not None and without.points is not None
        return cls(
            full.click_auc - without.click_auc,
            full.conversion_auc - without.conversion_auc,
            without.click_loss - full.click_loss,
            without.conversion_loss - full.conversion_loss,
            (full.points or 0.0) - (without.points or 0.0) if known else None,
        )

    def suspicious(self, auc_gain: float) -> bool:
        """Whether one feature tells what no feature could: it may know the outcome."""
        # By its rank alone. A leak need be of no use to a policy, and a loss has no scale.
        return max(self.click_auc, self.conversion_auc) >= auc_gain


def groups() -> dict[str, tuple[str, ...]]:
    """What is left out together, by a group's words: features by what they count, then codes."""
    found: dict[str, list[str]] = {}
    for spec in SPECS:
        found.setdefault(_WORDS.get(spec.entity, spec.entity), []).append(spec.name)
    return {name: tuple(members) for name, members in found.items()} | {
        f"codes of the {name}": (f"code:{name}",) for name in CODES
    }


def plans() -> dict[str, tuple[str, ...]]:
    """Every model by its name, with what it lacks: none first, then one, then whole groups."""
    single = {spec.name: (spec.name,) for spec in SPECS}
    return {EVERYTHING: ()} | single | groups()


def without(features: Features, left_out: Sequence[str]) -> Features:
    """The same rows with some features, or codes, that are the same in all of them."""
    log, about = features.impressions, features.statistics
    columns = [at for at, name in enumerate(features.dense_names) if name in left_out]
    if columns:
        dense = np.array(log.dense)
        dense[:, columns] = 0.0
        log = replace(log, dense=dense)
        about = _constant(about, columns)
    if "code:context" in left_out:
        log = replace(log, context=np.zeros_like(log.context))
    return replace(
        features,
        impressions=log,
        statistics=about,
        attributes=_blank(features.attributes, "code:ad" in left_out),
        profile=_blank(features.profile, "code:profile" in left_out),
    )


def requests_without(requests: Requests, left_out: Sequence[str]) -> Requests:
    """Candidates as a model without some codes reads them; a left-out number weighs nothing."""
    blank = "code:context" in left_out
    return replace(requests, context=np.zeros_like(requests.context)) if blank else requests


def _blank(table: Ints, out: bool) -> Ints:
    return np.zeros_like(table) if out else table


def _constant(about: Statistics, columns: Sequence[int]) -> Statistics:
    def put(values: Singles, to: float) -> Singles:
        changed = np.array(values)
        changed[list(columns)] = to
        return changed

    return Statistics(put(about.mean, 0), put(about.std, 1), put(about.low, 0), put(about.span, 1))


def pre_selection(features: Features, labels: Labels, params: CandidatesParams) -> Selector:
    """The shipped logistic pre-selection."""
    return selector.fit(features, labels, params, "logistic")


def measure(
    features: Features,
    labels: Labels,
    params: CandidatesParams,
    left_out: Sequence[str],
    worth: Worth | None,
) -> Measured:
    """Train without some features and test; `worth` is asked where the truth is known."""
    table = without(features, left_out)
    model = pre_selection(table, labels, params)
    rows, log = features.rows(TEST), features.impressions
    shown = model.predict(table, rows, logged_position=True)
    ranked = model.predict(table, rows)
    clicked, bought = log.clicked[rows], log.converted[rows]
    # Of a click alone: P(click and conversion) by P(click), and known by now.
    rate = ranked.conversion[clicked] / np.maximum(ranked.click[clicked], 1e-12)
    ripe = labels.matured(features, rows[clicked])
    return Measured(
        click_auc=auc(ranked.click, clicked),
        conversion_auc=auc(rate, bought[clicked]),
        click_loss=log_loss(shown.click, clicked),
        conversion_loss=log_loss(rate * ripe, bought[clicked]),
        points=worth(model, table, left_out) if worth else None,
    )


def gains(measured: Mapping[str, Measured]) -> dict[str, Gain]:
    """By feature and group, of the models that are there so far."""
    full = measured[EVERYTHING]
    return {name: Gain.of(full, one) for name, one in measured.items() if name != EVERYTHING}
