"""The edge's configuration and its hash split."""

import pytest

from roiflow.deployment.edge import Arm, render
from roiflow.errors import ServiceError
from tests.split import arm, murmur2

STABLE = Arm("stable", 95.0, "127.0.0.1:1")
CANARY = Arm("canary", 5.0, "127.0.0.1:2")


def conf(*arms: Arm) -> str:
    return render(arms, "salt", "127.0.0.1:80", "/nowhere")


def test_the_canary_holds_the_lowest_range_and_falls_back_on_stable() -> None:
    text = conf(CANARY, STABLE)
    assert 'split_clients "salt$unit" $arm {\n        5.00% canary;\n        * stable;' in text
    assert (
        "server 127.0.0.1:2 max_fails=1 fail_timeout=2s;\n        server 127.0.0.1:1 backup" in text
    )
    assert text.count("backup") == 1


def test_one_arm_takes_every_user() -> None:
    assert "$arm {\n        * stable;" in conf(Arm("stable", 100.0, "127.0.0.1:1"))


def test_shares_that_do_not_add_up_are_named() -> None:
    with pytest.raises(ServiceError, match="add to 90 percent, not 100: canary 5, stable 85"):
        conf(CANARY, Arm("stable", 85.0, "127.0.0.1:1"))


def test_a_negative_share_is_named() -> None:
    with pytest.raises(ServiceError, match="-5 percent"):
        conf(Arm("canary", -5.0, "x:1"), Arm("stable", 105.0, "x:2"))


def test_a_name_taken_twice_is_named() -> None:
    with pytest.raises(ServiceError, match="twice"):
        conf(CANARY, Arm("canary", 95.0, "x:2"))


@pytest.mark.parametrize(
    ("text", "value"),
    # From the reference C code (Appleby, MurmurHash2, seed 0).
    [("", 0), ("a", 2456313694), ("abcd", 646393889), ("hello world", 1151865881)],
)
def test_murmur2(text: str, value: int) -> None:
    assert murmur2(text.encode()) == value


def test_a_growing_canary_keeps_its_users() -> None:
    users = [f"user-{number}" for number in range(2000)]
    held: set[str] = set()
    for percent in (1.0, 5.0, 25.0, 50.0, 100.0):
        split = {"canary": percent, "stable": 100.0 - percent}
        now = {user for user in users if arm(user, "s", split) == "canary"}
        assert held <= now
        assert len(now) / 2000 == pytest.approx(percent / 100, abs=0.03)
        held = now
    assert len(held) == 2000
