"""Planned looks: published critical values, and what they promise of walks without drift."""

import numpy as np
import pytest

from roiflow.experiment.boundaries import quantile
from roiflow.experiment.group_sequential import critical_values, spent


def test_the_five_looks_of_gsdesign() -> None:
    wanted = [3.2527, 2.9860, 2.6917, 2.3737, 2.0253]
    assert critical_values(5, 0.025, -4.0) == pytest.approx(wanted, abs=5e-5)


def test_one_look_is_the_fixed_test() -> None:
    assert critical_values(1, 0.025, -4.0) == (quantile(0.975),)


def test_all_of_alpha_is_spent_in_the_end() -> None:
    for shape in (-4.0, 0.0, 1.0):
        assert spent(1.0, 0.025, shape) == pytest.approx(0.025)
        assert spent(0.0, 0.025, shape) == 0.0
    assert spent(0.5, 0.025, -4.0) < spent(0.5, 0.025, 0.0) < spent(0.5, 0.025, 1.0)


def test_walks_without_drift_cross_as_often_as_alpha_says() -> None:
    rng = np.random.default_rng(7)
    walks, values = 40_000, np.array(critical_values(3, 0.025, -4.0))
    z = np.cumsum(rng.normal(size=(walks, 3)), axis=1) / np.sqrt([1, 2, 3])
    crossed = float((z > values).any(axis=1).mean())
    assert abs(crossed - 0.025) < 3 * (0.025 / walks) ** 0.5
