"""A store that fails is asked again, ever more seldom."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from roiflow.errors import ContractError, ServiceError
from roiflow.stream import rows
from roiflow.stream.journal import Batch
from roiflow.stream.replica import Replica
from tests.unit.stream.streams import NOW, Counts, behaviour


def batch(number: int) -> Batch:
    return Batch(NOW + number, rows.table([behaviour(f"b{number}", "u", "a", NOW + number)]))


def past(stamp: int) -> Iterator[Batch]:
    return (one for number in range(5) if (one := batch(number)).stamp > stamp)


def replica(store: Counts, now: list[float]) -> Replica:
    return Replica("s", store, lambda: None, lambda: now[0])


def total(store: Counts) -> int:
    return sum(store.counts.values())


def test_it_catches_up_and_follows() -> None:
    store = Counts()
    one = replica(store, [0.0])
    assert one.behind
    one.catch_up(past)
    assert (one.behind, one.fault, total(store)) == (False, "", 5)
    one.apply(batch(5), past)
    assert (total(store), store.stamp) == (6, NOW + 5)


def test_the_pause_doubles_until_it_answers() -> None:
    store, now = Counts(), [0.0]
    one, asked = replica(store, now), list[float]()
    store.away = True
    ask = store._ask

    def count() -> None:
        asked.append(now[0])
        ask()

    store._ask = count  # type: ignore[method-assign]
    for tick in range(2_000):
        now[0] = tick / 100
        one.catch_up(past)
    gaps = [later - sooner for sooner, later in pairwise(asked)]
    assert gaps[:7] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0], abs=0.015)
    store.away = False
    now[0] = 100.0
    one.catch_up(past)
    assert not one.behind


def test_a_store_that_another_writer_moved_is_looked_at_again() -> None:
    store = Counts()
    one = replica(store, [0.0])
    one.catch_up(past)
    store.stamp = NOW + 2  # it was given an older snapshot
    one.apply(batch(4), past)
    assert total(store) == 5 + 2


def test_what_was_applied_before_the_answer_was_lost_is_not_applied_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, now = Counts(), [0.0]
    one = replica(store, now)
    one.catch_up(past)
    update = store.update

    def lost(*arguments: object, **named: object) -> bool:
        update(*arguments, **named)  # type: ignore[arg-type]
        raise ServiceError("timed out")

    with monkeypatch.context() as broken:
        broken.setattr(store, "update", lost)
        one.apply(batch(5), past)
    assert one.behind
    now[0] = 1.0
    one.catch_up(lambda stamp: (one for one in (batch(5),) if one.stamp > stamp))
    assert total(store) == 6


def test_a_snapshot_that_is_not_there_is_a_fault_of_the_store_alone() -> None:
    def load() -> None:
        raise ContractError("online/x: cannot read the online snapshot")

    store, now = Counts(), [0.0]
    one = Replica("s", store, load, lambda: now[0])
    one.catch_up(past)
    assert (one.behind, one.fault) == (True, "online/x: cannot read the online snapshot")
    store.stamp, now[0] = NOW, 1.0
    one.catch_up(past)
    assert (one.behind, total(store)) == (False, 4)


def test_people_are_told_what_a_store_knows() -> None:
    store = Counts()
    one = replica(store, [0.0])
    assert one.watermark() == "empty"
    one.catch_up(past)
    assert one.watermark() == "2026-01-21 00:00:00 UTC"
    store.away = True
    assert one.watermark() == "gone"
