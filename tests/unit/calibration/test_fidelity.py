"""Distances worked out by hand, and a world against itself."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from roiflow.calibration.fidelity import (
    compare,
    distance,
    kolmogorov_smirnov,
    relative_difference,
    simulated_log,
)
from roiflow.calibration.marginals import MARGINALS, Curve, Distribution
from tests.unit.simulator.conftest import Make


def sample(*values: float, weight: list[float] | None = None) -> Distribution:
    shares = np.array(weight or [1.0] * len(values))
    return Distribution(np.array(values), shares / shares.sum())


def curve(**y: float) -> Curve:
    return Curve(np.array([int(name[1:]) for name in y]), np.array(list(y.values())))


def test_kolmogorov_smirnov_by_hand() -> None:
    assert kolmogorov_smirnov(sample(1, 2, 3, 4), sample(1, 2, 3, 4)) == 0
    assert kolmogorov_smirnov(sample(1, 2), sample(3, 4)) == 1
    # At 2: 1/2 against 1/4.
    assert kolmogorov_smirnov(sample(1, 2, 3, 4), sample(2, 3, 4, 5)) == 0.25
    assert kolmogorov_smirnov(sample(1, 2, weight=[3, 1]), sample(1, 1, 1, 2)) == 0


def test_kolmogorov_smirnov_is_the_two_sample_statistic() -> None:
    rng = np.random.default_rng(5)
    one, other = rng.integers(0, 30, 200) / 10, rng.normal(1, 1, 150)
    ours = kolmogorov_smirnov(sample(*np.sort(one)), sample(*np.sort(other)))
    assert ours == pytest.approx(ks_2samp(one, other).statistic)


def test_relative_difference_by_hand() -> None:
    real = curve(x1=0.2, x2=0.1)
    assert relative_difference(curve(x1=0.2, x2=0.1), real) == 0
    assert relative_difference(curve(x1=0.1, x2=0.1, x3=9), real) == 0.25
    assert relative_difference(curve(x1=0.1, x2=5), real) == 1
    assert relative_difference(curve(x3=0.2), real) == 1
    assert relative_difference(curve(x1=0.0, x2=0.1), curve(x1=0.0, x2=0.1)) == 0


def test_marginals_of_different_kinds_have_no_distance() -> None:
    with pytest.raises(TypeError, match="a Curve against a Distribution"):
        distance(curve(x1=1), sample(1))


def test_a_world_is_like_itself_and_near_another_seed_s(make: Make) -> None:
    rates = {"click_rate": 0.3, "conversion_rate": 0.3}
    one = simulated_log(make(**rates), days=7, positions=3)
    assert not one.lacks
    same = compare(simulated_log(make(**rates), days=7, positions=3), one)
    assert same.overall == 0
    assert set(same.distance) == set(MARGINALS)
    other = compare(simulated_log(make(**rates, seed=4), days=7, positions=3), one)
    unlike = compare(
        simulated_log(make(click_rate=0.05, conversion_rate=0.8), days=7, positions=3), one
    )
    assert 0 < other.distance["gap"] < 0.1
    assert other.distance["click"] < 0.3 < unlike.distance["click"]
    assert other.distance["conversion"] < 0.3 < unlike.distance["conversion"]


def test_what_only_the_real_log_holds_is_at_distance_one(make: Make) -> None:
    real = simulated_log(make(click_rate=0.3, conversion_rate=0.3), days=7, positions=3)
    mute = simulated_log(make(click_rate=0.3, behaviours_per_user_day=0.0), days=7, positions=3)
    assert compare(mute, real).distance["popularity"] == 1
    assert compare(real, mute).lacks["popularity"] == "no behaviours"
    assert "popularity" not in compare(real, mute).distance


def test_a_simulated_log_is_cut(make: Make) -> None:
    log = simulated_log(make(), days=9, positions=2)
    assert log.positions == 2
    assert log.time.max() < 9 * 86_400e6
    assert log.time.max() > 8 * 86_400e6
