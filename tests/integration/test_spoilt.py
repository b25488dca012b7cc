"""Challengers spoilt on purpose, on trial in 60 weeks of finished loops: none becomes champion.

ROIFLOW_TEST_LOOPS names the loops' home, as in e2e/test_loop.py, where one week runs in small.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests import spoilt
from tests.conftest import Record
from tests.needs import full_size

KINDS: dict[str, spoilt.Spoil] = {
    "head shuffled": spoilt.head_shuffled,
    "price x 100": spoilt.price_scaled,
    "four weeks stale": spoilt.stale,
}
WEEKS = 60
LOOPS = "ROIFLOW_TEST_LOOPS"
pytestmark = [pytest.mark.timeout(14400), pytest.mark.proof]


def finished() -> list[tuple[spoilt.Finished, str]]:
    """Weeks of all the loops there are, evenly drawn, each with the next kind of spoiling."""
    homes = sorted((Path(os.environ[LOOPS]) / "loop").glob("seed-*"))
    weeks = [
        week
        for home in homes
        for week in spoilt.weeks_with_a_champion(home)
        if (week.run_before(1 + spoilt.STALE_WEEKS)).exists()
    ]
    cases = [(week, kind) for kind in KINDS for week in weeks]
    return [cases[at * len(cases) // WEEKS] for at in range(min(WEEKS, len(cases)))]


def test_no_spoilt_challenger_is_promoted(full: bool, record: Record, tmp_path: Path) -> None:
    if LOOPS not in os.environ:
        full_size(full, f"needs finished loops: their home in {LOOPS}")
        pytest.fail(f"name the home of finished loops in {LOOPS}", pytrace=False)
    promoted, found = [], dict[str, list[spoilt.Tried]]()
    for number, (week, kind) in enumerate(finished()):
        out = tmp_path / str(number)
        one = spoilt.tried(week, KINDS[kind], out)
        shutil.rmtree(out)
        found.setdefault(kind, []).append(one)
        if one.decision.promote:
            promoted.append(f"{week.home.name} {week.week}, {kind}: truly {one.true_lift:+.1%}")
    for kind, some in found.items():
        record(f"spoilt challengers on trial, {kind}: {len(some)} weeks", told(some))
    assert promoted == []
    assert sum(map(len, found.values())) == WEEKS
    for some in found.values():
        # What a trial may cost is what its shares would give a challenger that no look stopped.
        over = sum(one.cost - one.bound for one in some)
        assert over <= 3 * sum(one.error**2 for one in some) ** 0.5


def told(some: list[spoilt.Tried]) -> str:
    """Lifts, what stopped them, cost and bound."""
    lifts = [one.true_lift for one in some]
    trials = [one.decision.trial for one in some if one.decision.trial]
    stopped = [hours for one in trials if (hours := spoilt.stopped_after(one)) is not None]
    verdicts = [one.decision.verdict for one in some]
    counts = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
    return (
        f"true lift {min(lifts):+.1%} to {max(lifts):+.1%}; {counts}; {len(stopped)} stopped by a "
        f"look; cost {sum(one.cost for one in some):,.0f} of at most "
        f"{sum(one.bound for one in some):,.0f}"
    )
