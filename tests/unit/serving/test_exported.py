import numpy as np
import pytest

from roiflow.data.split import TEST
from roiflow.errors import ParityError
from roiflow.features.engine import open_engine
from roiflow.features.folder import read
from roiflow.features.table import Singles
from roiflow.policy.candidate_sets import first_rows
from roiflow.ranking.protocol import Predictions
from roiflow.serving.exported import compare, latency_ms, served
from roiflow.serving.recommender import Recommender
from tests.unit.serving.packages import TinyWorld

PRESENT = np.array([[True, True, False], [True, False, False]])


def predictions(click: float = 0.2, revenue: float = 5e6) -> Predictions:
    """Every candidate alike, but for click and revenue of the one at (1, 0)."""

    def filled(value: float, last: float) -> Singles:
        values = np.full(PRESENT.shape, value, np.float32)
        values[1, 0] = last
        return values

    return Predictions(filled(0.2, click), filled(0.02, 0.02), filled(5e6, revenue))


def test_the_largest_difference_of_each_output() -> None:
    found = compare(predictions(), predictions(0.25, 6e6), PRESENT, 10, tolerance=0.5)
    assert found.rows == 3
    assert found.click == pytest.approx(0.05, rel=1e-6)
    assert found.conversion == 0
    assert found.revenue == pytest.approx(0.2)  # relative


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        (predictions(click=0.25), r"click: 1 of 3 rows .* request 1, candidate 0: 0\.2.* 0\.25"),
        (predictions(click=float("nan")), r"click: 1 of 3 rows .* nan as exported"),
        (predictions(revenue=5.01e6), r"revenue: 1 of 3 rows .* 5000000\.0 .* 5010000\.0"),
    ],
    ids=["click", "not a number", "revenue"],
)
def test_what_differs_is_named_with_both_values(exported: Predictions, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        compare(predictions(), exported, PRESENT, 10, tolerance=1e-3)


def test_absent_candidates_and_rows_beyond_the_limit_are_not_compared() -> None:
    other = predictions(click=0.9)
    other.click[0, 2] = 0.9
    assert compare(predictions(), other, PRESENT, 2, tolerance=1e-6).rows == 2


def test_the_serving_path_on_logged_requests(world: TinyWorld, recommender: Recommender) -> None:
    # The known networks of tests.unit.serving.packages: conversion is click / 10, revenue 5.
    features = read(world.features)
    rows = first_rows(features, features.rows(TEST))[:4]
    requests = open_engine(world.features).requests(features, rows, features.catalogues[-1])
    found = served(recommender.models, features, requests)
    assert found.click.shape == requests.ad.shape
    np.testing.assert_allclose(found.conversion, found.click / 10, rtol=1e-5)
    np.testing.assert_allclose(found.revenue, 5e6)
    assert 0 < latency_ms(recommender.models, features, requests) < 1000
