"""What rankers make of planted exposures, and of logs that say little or nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from roiflow.candidates import selector as candidates
from roiflow.data.split import TEST, TRAIN
from roiflow.features.table import Features
from roiflow.labels.model import Labels
from roiflow.ranking.baselines import popularity
from roiflow.ranking.baselines.din import DinRanker
from roiflow.ranking.baselines.sasrec import SasRecRanker
from roiflow.ranking.examples import Examples
from roiflow.ranking.protocol import Ranker
from roiflow.ranking.rosa import RosaRanker
from roiflow.ranking.train import fit
from tests.labels import planted_labels
from tests.unit.ranking.worlds import CANDIDATES, PARAMS, World, build

QUICK = PARAMS.model_copy(update={"epochs": 2})
TRAINERS: dict[str, Callable[[Features, Labels], Ranker]] = {
    "popularity": popularity.fit,
    "logistic": lambda features, labels: candidates.fit(features, labels, CANDIDATES, "logistic"),
    "xgboost": lambda features, labels: candidates.fit(features, labels, CANDIDATES, "xgboost"),
    "sasrec": lambda features, labels: fit(SasRecRanker, features, labels, QUICK)[0],
    "din": lambda features, labels: fit(DinRanker, features, labels, QUICK)[0],
    "rosa": lambda features, labels: fit(RosaRanker, features, labels, QUICK)[0],
}

KNOWN = [0.0, *np.linspace(0.02, 0.98, 600)]
"""P(known) by age in hours, up to 25 of the window's 28 days."""


def censored(world: World) -> tuple[Features, Labels]:
    """Conversions that are known only as `KNOWN` says at the time of the label."""
    features, labels = world.features, planted_labels([1.0, 0.6, 0.4], KNOWN)
    log = features.impressions
    known = labels.matured(features, np.arange(log.ad.size))
    ripe = np.random.default_rng(5).random(known.size) < known
    seen = log.converted & ripe
    cut = replace(log, converted=seen, revenue=np.where(seen, log.revenue, 0))
    kept = seen[features.outcomes.row]
    outcomes = type(features.outcomes)(
        **{name: values[kept] for name, values in vars(features.outcomes).items()}
    )
    return replace(features, impressions=cut, outcomes=outcomes), labels


@pytest.mark.parametrize("name", TRAINERS)
def test_planted_looks_and_delays_are_undone(name: str) -> None:
    """Predictions at position 1 and of ripe conversions are unbiased, over all and by position."""
    world = build(users=250, per_user=60, behaviours=4, history_length=4, seed=2)
    features, labels = censored(world)
    log, rows = features.impressions, features.rows(TRAIN)
    examples = Examples.of(features, labels).take(rows)
    # Seen naively far too little converts: this is what is to be undone.
    naive = examples.clicks.converted.mean() / world.conversion[rows][examples.clicked].mean()
    assert naive < 0.75
    ranker = TRAINERS[name](features, labels)
    found = ranker.predict(features, rows)
    truth = world.click[rows] / labels.examined(log.position[rows])
    # 500 clicks of the validation rows set the level: a standard error of 4.5 %.
    assert found.click.mean() / truth.mean() == pytest.approx(1, abs=0.12)
    both = (truth * world.conversion[rows]).mean()
    assert found.conversion.mean() / both == pytest.approx(1, abs=0.2)
    shown = ranker.predict(features, rows, logged_position=True)
    for position in (1, 2, 3):
        here = log.position[rows] == position
        assert shown.click[here].mean() / world.click[rows][here].mean() == pytest.approx(
            1, abs=0.15
        )
    np.testing.assert_allclose(
        shown.conversion, found.conversion * labels.examined(log.position[rows]), rtol=1e-6
    )


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("case", ["no clicks", "no conversions", "all young", "all converted"])
def test_a_log_that_says_little_gives_finite_predictions(name: str, case: str) -> None:
    world = build(users=30, per_user=20, behaviours=5, history_length=4)
    features, labels = world.features, world.labels
    log = features.impressions
    never, none = np.zeros_like(log.clicked), np.zeros_like(log.revenue)
    if case == "no clicks":
        log = replace(log, clicked=never, converted=never, revenue=none)
    elif case == "all converted":
        log = replace(log, clicked=~never, converted=~never)
    else:
        log = replace(log, converted=never, revenue=none)
    features = replace(features, impressions=log)
    if case == "all young":
        labels = planted_labels([1.0, 0.6, 0.4], [0.0] * 2000)
        assert not labels.matured(features, features.rows(TRAIN)).any()
    rows = features.rows(TEST)
    found = TRAINERS[name](features, labels).predict(features, rows)
    for values in vars(found).values():
        assert np.isfinite(values).all()
        assert (values >= 0).all()
    assert (found.conversion <= found.click).all()
    assert (found.click <= 1).all()
    if case == "no clicks":
        assert found.click.max() < 0.02
    if case == "all young" and name != "popularity":
        # Nothing is known of conversions: neither that there are none nor that there are many.
        given = found.conversion / found.click
        np.testing.assert_allclose(given, 0.01, rtol=0.1)


def test_what_comes_back_is_taken_off_by_its_rate_and_not_again() -> None:
    features = build(users=30, per_user=20).features
    log, sold = features.impressions, np.flatnonzero(features.impressions.converted)
    back = sold[:3]
    outcomes = features.outcomes
    order = np.argsort(np.concatenate([outcomes.row, back]), kind="stable")
    returned = type(outcomes)(
        np.concatenate([outcomes.row, back])[order],
        np.concatenate([outcomes.known_time, log.event_time[back] + 1])[order],
        np.concatenate([outcomes.revenue, -log.revenue[back]])[order],
    )
    features = replace(features, outcomes=returned)
    labels = planted_labels([1.0], [])
    share = np.full_like(labels.delays[0].returned, 0.25)
    labels = replace(labels, delays=(replace(labels.delays[0], returned=share),))
    found = Examples.of(features, labels).earned
    np.testing.assert_allclose(found[sold], 0.75 * log.revenue[sold])
    assert np.count_nonzero(found) == sold.size
