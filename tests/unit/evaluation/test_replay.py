"""A package on logged slates: its closed-form networks give the answers."""

import numpy as np
import pytest

from roiflow.artefacts.evaluation import RoiEstimate
from roiflow.evaluation.replay import compare, replay
from roiflow.evaluation.weekly import test_slates
from roiflow.ranking.serving_form import histories
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from tests.unit.evaluation.weeks import EVALUATE, PARAMS, Evaluated
from tests.unit.serving.packages import TOP_K

GATE = PARAMS.gate.model_copy(update={"resamples": 100})


def test_replay_predicts_what_the_package_says(evaluated: Evaluated, package: Package) -> None:
    features, engine = evaluated.features, evaluated.engine
    slates, _ = test_slates(features, 3, EVALUATE)
    rows, catalogue = slates.row[:20], features.catalogues[-1]
    models = Models(package)
    sets = replay(models, features, engine, rows, catalogue)
    assert sets.ad.shape == (20, TOP_K)
    requests = engine.requests(features, rows, catalogue)
    history = histories(
        features.events, requests.user, requests.history_end, models.about.encode_length
    )
    memory = np.where(history.ad > 0, history.action + 1, 0).sum(axis=1)
    column = np.array([[list(catalogue.ad).index(ad) for ad in row] for row in sets.ad])
    dense = requests.dense[np.arange(20)[:, None], column]
    z = 0.1 * dense.mean(axis=2) + 0.01 * sets.ad + 0.02 * memory[:, None]
    np.testing.assert_allclose(sets.click, 1 / (1 + np.exp(2 - z)), rtol=1e-4)


def _compare(
    evaluated: Evaluated, challenger: Package, champion: Package
) -> dict[str, RoiEstimate]:
    slates, _ = test_slates(evaluated.features, 3, EVALUATE)
    return compare(
        Models(challenger),
        Models(champion),
        evaluated.features,
        evaluated.engine,
        slates,
        np.array([1.0, 1.0, 0.7, 0.5]),
        draws=4,
        params=GATE,
        limits=EVALUATE,
    )


def test_a_package_has_no_lift_over_itself(evaluated: Evaluated, package: Package) -> None:
    for estimate in _compare(evaluated, package, package).values():
        assert estimate.lift.value == pytest.approx(0.0, abs=1e-12)
        if estimate.lift.low is not None:
            assert estimate.lift.low == pytest.approx(0.0, abs=1e-12)
            assert estimate.lift.high == pytest.approx(0.0, abs=1e-12)


def test_two_packages_are_compared_both_ways(
    evaluated: Evaluated, package: Package, champion: Package
) -> None:
    forth = _compare(evaluated, package, champion)["ips"].lift.value
    back = _compare(evaluated, champion, package)["ips"].lift.value
    assert forth is not None
    assert back is not None
    assert (1 + forth) * (1 + back) == pytest.approx(1.0)
    assert abs(forth) > 1e-6
