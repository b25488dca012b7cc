"""Calibration to logs whose parameters are known."""

from dataclasses import replace

import numpy as np
import pytest

from roiflow.calibration.calibrate import BOUNDS, calibrate, value_of, with_values
from roiflow.calibration.fidelity import simulated_log
from roiflow.calibration.logs import Log
from roiflow.calibration.marginals import MARGINALS
from tests.unit.simulator.conftest import Make

RATES = {"click_rate": 0.3, "conversion_rate": 0.3}


def only(log: Log, *names: str) -> Log:
    """The log without all other marginals."""
    return replace(log, lacks=dict.fromkeys(set(MARGINALS) - set(names), "left out"))


@pytest.fixture(scope="module")
def log(make: Make) -> Log:
    """A week of another seed, all of whose users ever come."""
    planted = make(**RATES, seed=9, users=2000, requests_per_user_day=2.0)
    return simulated_log(planted, days=7, positions=3)


def test_a_rate_is_found_from_far_below_and_nothing_else_moves(make: Make, log: Log) -> None:
    start = make(click_rate=0.01, conversion_rate=0.3, requests_per_user_day=2.0)
    done = calibrate(start, only(log, "click"), users=500)
    assert set(done.values) == {"click_rate"}
    assert done.values["click_rate"] == pytest.approx(0.3, rel=0.15)
    assert done.before.distance["click"] > 0.8
    assert done.after.distance["click"] < 0.03


def test_prices_give_their_median_and_spread(make: Make) -> None:
    rng = np.random.default_rng(3)
    # The world spreads categories' log prices evenly over -1 to 1.
    spread = rng.choice(np.linspace(-1, 1, 4), 20_000) + 0.7 * rng.standard_normal(20_000)
    log = simulated_log(make(), days=7, positions=3)
    real = only(replace(log, price=50 * np.exp(spread)), "price")
    done = calibrate(make(price_sigma=0.1), real, users=200)
    assert done.values["synthetic.price_median"] == pytest.approx(50, rel=0.02)
    assert done.values["synthetic.price_sigma"] == pytest.approx(0.7, abs=0.05)


def test_examination_is_found_in_either_model(make: Make, log: Log) -> None:
    start = make(**RATES, requests_per_user_day=2.0, exponent=0.0)
    done = calibrate(start, only(log, "position"), users=2000)
    planted = value_of(make(), "examination.exponent")
    assert done.values["examination.exponent"] == pytest.approx(planted, abs=0.08)
    cascade = make(**RATES, seed=9, users=2000, model="cascade", after_skip=0.6, after_click=0.6)
    real = only(simulated_log(cascade, days=7, positions=3), "position")
    start = with_values(cascade, {"examination.after_skip": 0.9, "seed": 3})
    done = calibrate(start, real, users=2000)
    assert set(done.values) == {"examination.after_skip"}
    assert done.values["examination.after_skip"] == pytest.approx(0.6, abs=0.08)


def test_it_is_repeatable_told_of_and_within_bounds(make: Make, log: Log) -> None:
    told: list[tuple[float, str]] = []
    real = only(log, "popularity", "conversion")
    start = make(**RATES, popularity_exponent=0.1)
    first = calibrate(start, real, 200, lambda done, what: told.append((done, what)))
    assert calibrate(start, real, 200).values == first.values
    fractions, texts = zip(*told, strict=True)
    assert list(fractions) == sorted(fractions)
    assert fractions[-1] <= 1
    assert set(texts) == {"fit popularity", "fit conversion"}
    for key, value in first.values.items():
        low, high = BOUNDS[key]
        assert low <= value <= high


def test_any_world_s_synthetic_half_is_fitted(make: Make, log: Log) -> None:
    panel = make(**RATES, world="panel")
    assert calibrate(panel, only(log, "conversion"), users=200).after.log == log.name


def test_values_are_set_by_key(make: Make) -> None:
    changed = with_values(make(), {"synthetic.users": 7, "click_rate": 0.5})
    assert value_of(changed, "synthetic.users") == 7
    assert value_of(changed, "click_rate") == 0.5
    assert with_values(changed, {"synthetic.users": 200, "click_rate": 0.035}) == make()
