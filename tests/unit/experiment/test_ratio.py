"""Sample-ratio mismatch, against the binomial law."""

import numpy as np
import pytest

from roiflow.experiment.ratio import mismatch, of_phases


def test_against_the_binomial_law() -> None:
    # Two-sided exact: P(X <= 460 or X >= 540), X of 1,000 at a half.
    assert mismatch(460, 1000, 0.5) == pytest.approx(0.01244, abs=2e-4)
    assert mismatch(500, 1000, 0.5) == 1.0
    assert mismatch(30, 1000, 0.05) == pytest.approx(0.0047, abs=1e-3)


def test_a_share_of_all_or_none_has_no_exception() -> None:
    assert (mismatch(0, 10, 0.0), mismatch(10, 10, 1.0), mismatch(9, 10, 1.0)) == (1.0, 1.0, 0.0)


def test_users_count_and_not_their_requests() -> None:
    # One user of 100 made nine in ten requests.
    user = np.r_[np.zeros(900, int), np.arange(100)]
    canary = user < 50
    assert of_phases(user, canary, np.full(1000, 0.5)) == 1.0


def test_every_phase_is_looked_at() -> None:
    rng = np.random.default_rng(7)
    user = np.arange(6000)
    share = np.repeat([0.05, 0.5, 1.0], 2000)
    right = rng.random(6000) < share
    assert of_phases(user, right, share) > 0.001
    lost = right & ~((share == 0.05) & (rng.random(6000) < 0.5))
    assert of_phases(user, lost, share) < 0.001
