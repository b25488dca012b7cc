"""How far two packages would do the same, where it is known."""

from dataclasses import replace

import numpy as np
import pytest

from roiflow.data.split import VALIDATION
from roiflow.evaluation.agreement import agreement, overlap, shared_mass, softmax
from roiflow.features.table import Ints
from roiflow.policy.candidate_sets import first_rows
from roiflow.serving.package import Package
from tests.unit.evaluation.weeks import Evaluated


def ads(*rows: list[int]) -> Ints:
    return np.array(rows, np.int32)


def test_ads_are_shared_in_any_order() -> None:
    # 3 of 3, 1 of 3, and 1 of the 2 that are there.
    one = ads([1, 2, 3], [1, 2, 3], [4, 5, -1])
    other = ads([3, 1, 2], [3, 7, 8], [9, 4, -1])
    assert overlap(one, other) == pytest.approx(5 / 8)
    assert overlap(one, one) == 1.0


def test_mass_is_shared_by_ad_and_not_by_column() -> None:
    """p is 3/4, 1/4 of ads 1, 2; q is 1/2, 1/2 of ads 2, 3: they share 1/4."""
    p = (ads([1, 2]), np.log(np.array([[3.0, 1.0]])))
    q = (ads([2, 3]), np.array([[0.0, 0.0]]))
    assert shared_mass(p, q) == pytest.approx(0.25)
    assert shared_mass(q, p) == pytest.approx(0.25)
    assert shared_mass(p, p) == pytest.approx(1.0)
    nothing = (ads([-1, -1]), np.full((1, 2), -np.inf))
    assert softmax(nothing[1]).tolist() == [[0.0, 0.0]]
    assert shared_mass(p, nothing) == 0.0


def test_a_package_agrees_with_itself_and_less_with_another(
    evaluated: Evaluated, package: Package, champion: Package
) -> None:
    """The other has three times the temperature: the same order, other chances."""
    features = evaluated.features
    rows = first_rows(features, features.as_of_end().rows(VALIDATION))[:100]
    same = agreement(package, package, features, evaluated.engine, rows)
    assert (same.overlap, same.value_ratio) == (1.0, 1.0)
    assert same.propensity == pytest.approx(1.0)
    assert (same.judged, same.shipped, same.requests) == (package.digest, package.digest, 100)
    other = agreement(package, champion, features, evaluated.engine, rows)
    assert other.overlap > 0.9
    assert other.value_ratio == pytest.approx(1.0, abs=0.02)
    assert 0.3 < other.propensity < 0.95
    threads = agreement(package, champion, features, evaluated.engine, rows, threads=2)
    assert replace(threads, propensity=0) == replace(other, propensity=0)
