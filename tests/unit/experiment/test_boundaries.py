"""The boundaries of looks: published numbers, and what it promises of walks without drift."""

import math

import numpy as np
import pytest

from roiflow.experiment.boundaries import (
    Boundary,
    best_rho,
    bound,
    log_mixture,
    quantile,
    tail,
)


def test_the_numbers_of_confseq() -> None:
    rho = best_rho(100.0, 0.05)
    assert rho == pytest.approx(12.60056, abs=5e-6)
    assert bound(100.0, 0.05, rho) == pytest.approx(30.35209, abs=5e-6)
    one = best_rho(100.0, 0.05, sides=1)
    assert bound(100.0, 0.05, one, sides=1) == pytest.approx(27.66071, abs=5e-6)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("v", [0.5, 100.0, 1e8])
def test_the_boundary_is_where_the_martingale_is_one_over_alpha(v: float, sides: int) -> None:
    limit = bound(v, 0.05, 30.0, sides)
    assert log_mixture(limit, v, 30.0, sides) == pytest.approx(math.log(20.0), abs=1e-9)


def test_the_tuned_mixture_is_near_the_narrowest() -> None:
    widths = [bound(100.0, 0.05, rho) for rho in np.geomspace(1.0, 200.0, 400)]
    assert bound(100.0, 0.05, best_rho(100.0, 0.05)) <= 1.001 * min(widths)


def test_any_number_of_looks_misses_as_seldom_as_promised() -> None:
    rng = np.random.default_rng(7)
    looks, walks = 300, 3000
    boundary = Boundary.tuned(0.05, requests=100, error=0.1)
    means = np.cumsum(rng.normal(size=(walks, looks)), axis=1) / np.arange(1, looks + 1)
    widths = [boundary.half_width(n, n**-0.5) for n in range(1, looks + 1)]
    missed = (np.abs(means) > widths).any(axis=1).mean()
    # At any number of looks at most 5 %; a fixed interval of 95 % would miss in half of the walks.
    assert 0.01 < missed <= 0.05
    assert (np.abs(means) > 1.96 * np.arange(1, looks + 1) ** -0.5).any(axis=1).mean() > 0.4


def test_p_value_and_interval_agree() -> None:
    boundary = Boundary.tuned(0.05, requests=9000, error=0.03)
    width = boundary.half_width(5000, 0.04)
    # Two-sided at alpha is a little more than one-sided at alpha / 2: its lower end at the null.
    p = boundary.p_value(5000, width, 0.04, 0.0)
    assert p == pytest.approx(0.025, rel=0.01)
    assert boundary.p_value(5000, 2 * width, 0.04, 0.0) < 1e-4
    assert boundary.p_value(5000, -width, 0.04, 0.0) == 1.0


def test_nothing_is_known_of_an_estimate_without_error_but_its_sign() -> None:
    boundary = Boundary.tuned(0.05, 100, 0.1)
    assert boundary.p_value(10, 0.0, 0.0, 0.0) == 1.0
    assert boundary.p_value(10, 0.0, 0.0, -0.03) == 0.0


def test_the_normal_law() -> None:
    assert quantile(0.975) == pytest.approx(1.959964, abs=1e-6)
    assert tail(1.959964) == pytest.approx(0.025, abs=1e-8)
    assert tail(10.0) == pytest.approx(7.6199e-24, rel=1e-4)
