"""The split of the users: the edge's hash for many users at once."""

import numpy as np
import pytest

from roiflow.experiment.assignment import SALT, edge_of, in_canary, murmur2, salt_of, uniform
from tests.split import arm
from tests.split import murmur2 as one_by_one

USERS = [f"user-{number}" for number in range(5000)]


def test_the_hash_is_appleby_s() -> None:
    # Every remainder of four, the empty key, and bytes over 127.
    keys = [b"", b"a", b"ab", b"abc", b"abcd", b"abcde", "Zürich: 日本".encode(), b"\xff" * 9]
    assert murmur2(keys).tolist() == [one_by_one(key) for key in keys]
    assert murmur2([]).size == 0


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.05, 0.25, 0.5, 0.9999])
def test_arms_are_those_of_the_edge(share: float) -> None:
    percents = {"canary": 100 * share, "stable": 100 - 100 * share}
    wanted = [arm(user, SALT, percents) == "canary" for user in USERS]
    assert in_canary(USERS, SALT, share).tolist() == wanted


def test_all_and_none() -> None:
    assert not in_canary(USERS, SALT, 0.0).any()
    assert in_canary(USERS, SALT, 1.0).all()
    assert edge_of(1.0) == 2**32 - 1


def test_a_share_of_each_request() -> None:
    shares = np.where(np.arange(len(USERS)) % 2 == 0, 0.05, 0.5)
    found = in_canary(USERS, SALT, shares)
    assert (found[::2] == in_canary(USERS, SALT, 0.05)[::2]).all()
    assert (found[1::2] == in_canary(USERS, SALT, 0.5)[1::2]).all()


def test_who_is_in_grows_with_the_share_and_never_leaves() -> None:
    before = np.zeros(len(USERS), bool)
    for share in (0.01, 0.05, 0.25, 0.5, 1.0):
        now = in_canary(USERS, SALT, share)
        assert (now >= before).all()
        before = now


def test_places_are_even_and_another_week_s_are_others() -> None:
    first, second = uniform(USERS, salt_of("2026-W04")), uniform(USERS, salt_of("2026-W05"))
    for places in (first, second):
        # Kolmogorov's distance of 5,000 uniform places is over 0.0231 once in a hundred times.
        assert np.abs(np.sort(places) - np.arange(5000) / 5000).max() < 0.0231
    assert abs(np.corrcoef(first, second)[0, 1]) < 3 / np.sqrt(5000)
    assert (in_canary(USERS, SALT, 0.05) == (uniform(USERS, SALT) < 0.05)).all()
