"""Sessions against the laws they are drawn from."""

import numpy as np
import pytest

from roiflow.data.weeks import MICROS_PER_DAY, MICROS_PER_HOUR, Week
from roiflow.simulator.noise import Stream, key
from roiflow.simulator.population import HOUR_SHARES
from roiflow.simulator.visits import Sessions, Visits, draw_visits, time_order

DAY = Week.parse("2026-W02").start
MINUTE = 60_000_000
USERS = 40_000
FAMILY = key(1, Stream.REQUESTS, 9)


def sessions(events: float = 3.0, minutes: float = 4.0, hours: int = 1) -> Sessions:
    return Sessions(events, minutes * MINUTE, np.cumsum(HOUR_SHARES), hours * MICROS_PER_HOUR)


@pytest.fixture(scope="module")
def visits() -> Visits:
    means = np.where(np.arange(USERS) % 2, 1.2, 0.4).astype(np.float32)
    return draw_visits(FAMILY, 0, means, sessions(), DAY)


def by_session(visits: Visits, before_hour: int) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the sessions that start before an hour, so that none is cut."""
    _, first, count = np.unique(visits.session, return_index=True, return_counts=True)
    start = visits.time[first] - DAY
    early = start < before_hour * MICROS_PER_HOUR
    return start[early], count[early]


def test_users_have_poisson_numbers_of_sessions(visits: Visits) -> None:
    """Mean and variance, for two kinds of users."""
    _, first = np.unique(visits.session, return_index=True)
    count = np.bincount(visits.user[first], minlength=USERS)
    for kind, mean in ((0, 0.4), (1, 1.2)):
        mine = count[kind::2]
        error = 4 * np.sqrt(mean / mine.size)
        assert mine.mean() == pytest.approx(mean, abs=error)
        assert mine.var() == pytest.approx(mean, abs=3 * error)
        assert np.mean(mine == 0) == pytest.approx(np.exp(-mean), abs=error)


def test_many_sessions_are_poisson_too() -> None:
    """exp(-mean) is 0 from 745 on: the number is then a sum of such of smaller means."""
    users, mean = 400, 1800.0
    many = draw_visits(FAMILY, 0, np.full(users, mean, np.float32), sessions(events=1.0), DAY)
    count = np.bincount(many.user, minlength=users)
    assert count.mean() == pytest.approx(mean, abs=4 * np.sqrt(mean / users))
    assert count.var() == pytest.approx(mean, rel=4 * np.sqrt(2 / users))


def test_lengths_are_geometric(visits: Visits) -> None:
    """Mean 3: a third are 1 visit, 2/9 are 2."""
    _, length = by_session(visits, 18)
    count = length.size
    assert length.mean() == pytest.approx(3.0, abs=4 * np.sqrt(6 / count))
    for visits_of, share in ((1, 1 / 3), (2, 2 / 9), (3, 4 / 27)):
        error = 4 * np.sqrt(share * (1 - share) / count)
        assert np.mean(length == visits_of) == pytest.approx(share, abs=error)


def test_gaps_are_exponential(visits: Visits) -> None:
    early = visits.time < DAY + 18 * MICROS_PER_HOUR
    order = np.lexsort((visits.time, visits.session))
    session, time = visits.session[order], visits.time[order]
    inside = (session[1:] == session[:-1]) & early[order][1:]
    gap = (time[1:] - time[:-1])[inside] / MINUTE
    count = gap.size
    assert gap.min() > 0
    assert gap.mean() == pytest.approx(4.0, abs=4 * 4 / np.sqrt(count))
    assert np.median(gap) == pytest.approx(4 * np.log(2), abs=4 * 4 / np.sqrt(count))


def test_sessions_start_by_the_hours_shares(visits: Visits) -> None:
    start, _ = by_session(visits, 24)
    hour = start // MICROS_PER_HOUR
    count = np.bincount(hour, minlength=24)
    expected = HOUR_SHARES * hour.size
    chi_square = np.sum((count - expected) ** 2 / expected)
    assert chi_square < 60  # 23 degrees of freedom: 49.7 is passed once in 1,000


def test_one_visit_a_session() -> None:
    alone = draw_visits(FAMILY, 0, np.ones(5000, np.float32), sessions(1.0), DAY)
    assert np.unique(alone.session).size == alone.session.size
    assert alone.user.size == pytest.approx(5000, abs=4 * np.sqrt(5000))


def test_times_are_in_order_inside_the_day_and_off_the_grid(visits: Visits) -> None:
    time = visits.time[visits.order]
    np.testing.assert_array_equal(np.sort(visits.order), np.arange(time.size))
    assert np.all(np.diff(time) >= 0)
    assert time[0] > DAY
    assert time[-1] < DAY + MICROS_PER_DAY
    assert np.all(visits.time % MICROS_PER_HOUR)
    assert np.unique(visits.bits).size == visits.bits.size


def test_a_range_of_users_is_a_part_of_all(visits: Visits) -> None:
    means = np.where(np.arange(USERS) % 2, 1.2, 0.4).astype(np.float32)
    part = draw_visits(FAMILY, 1000, means[1000:1500], sessions(), DAY)
    inside = (visits.user >= 1000) & (visits.user < 1500)
    for name in ("user", "time", "bits", "session"):
        values = getattr(part, name)
        expected = getattr(visits, name)[inside]
        np.testing.assert_array_equal(values + (1000 if name == "user" else 0), expected)


def test_who_never_comes_is_not_there() -> None:
    none = draw_visits(FAMILY, 0, np.zeros(50, np.float32), sessions(), DAY)
    assert none.user.size == 0
    one = np.zeros(50, np.float32)
    one[7] = 30.0
    assert set(draw_visits(FAMILY, 0, one, sessions(), DAY).user.tolist()) == {7}


def test_long_sessions_outgrow_the_room_that_was_made() -> None:
    """A few users of very long sessions bring far more visits than 6 standard errors allow for."""
    long = draw_visits(FAMILY, 0, np.full(3, 0.5, np.float32), sessions(500.0, 0.01), DAY)
    again = draw_visits(FAMILY, 0, np.full(3, 0.5, np.float32), sessions(500.0, 0.01), DAY)
    np.testing.assert_array_equal(long.time, again.time)
    many = [
        draw_visits(
            key(seed, Stream.REQUESTS), 0, np.full(1, 0.01, np.float32), sessions(9e3, 1e-3), DAY
        )
        for seed in range(200)
    ]
    sizes = [one.user.size for one in many]
    assert max(sizes) > 10 * np.mean(sizes)


def test_time_order_is_the_stable_sort() -> None:
    rng = np.random.default_rng(0)
    time = DAY + rng.integers(0, MICROS_PER_DAY, 5000)
    time[::7] = time[0]
    time[1::5] = DAY + rng.integers(0, 3_000_000, time[1::5].size)
    np.testing.assert_array_equal(time_order(time, DAY), np.argsort(time, kind="stable"))
