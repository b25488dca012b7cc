"""The compiled set against a Python set."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from roiflow.data.weeks import MICROS_PER_HOUR
from roiflow.stream import rows
from roiflow.stream.duplicates import Keys, Seen, hours_of, keys_of
from roiflow.stream.events import Event
from tests.unit.stream.streams import NOW, behaviour, click, random_events, slate


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 40), max_size=30), max_size=6))
def test_fresh_is_what_was_not_added_and_comes_first(batches: list[list[int]]) -> None:
    seen, known = Seen(), set[int]()
    for batch in batches:
        keys = np.array(batch, np.uint64) << np.uint64(20)  # all in one place of the table
        expected = [
            key not in known and key not in batch[:place] for place, key in enumerate(batch)
        ]
        assert seen.fresh(keys).tolist() == expected
        seen.add(keys, np.ones(keys.size, np.int32))
        known |= set(batch)
        assert len(seen) == len(known)


def random_keys(seed: int, size: int) -> Keys:
    return np.random.default_rng(seed).integers(1, 1 << 63, size).astype(np.uint64)


def test_it_grows_and_still_knows_everything() -> None:
    seen, keys = Seen(), random_keys(1, 300_000)
    for start in range(0, keys.size, 7_000):
        some = keys[start : start + 7_000]
        assert seen.fresh(some).all()
        seen.add(some, np.full(some.size, 5, np.int32))
    assert not seen.fresh(keys).any()
    assert seen.fresh(random_keys(2, 10_000)).all()


def test_old_hours_are_forgotten_when_room_is_needed() -> None:
    seen = Seen()
    for hour in range(40):
        seen.forget(hour - 2)
        seen.add(random_keys(hour, 10_000), np.full(10_000, hour, np.int32))
    assert len(seen) < 100_000
    assert not seen.fresh(np.concatenate([random_keys(hour, 10_000) for hour in (38, 39)])).any()


def test_a_key_is_of_kind_and_id() -> None:
    events: list[Event] = [
        click("r1:1", NOW), click("r1:2", NOW), slate("click:r1:1", "u", [], NOW),
        behaviour("click:r1:1", "u", "a", NOW),
    ]  # fmt: skip
    keys = keys_of(rows.table(events))
    assert len(set(keys.tolist())) == 4
    again = keys_of(pa.concat_tables([rows.table([event]) for event in reversed(events)]))
    assert sorted(again.tolist()) == sorted(keys.tolist())
    assert keys_of(rows.table([])).size == 0


def test_no_two_of_many_ids_share_a_key() -> None:
    table = rows.table([behaviour(f"b{n}", "u", "a", NOW) for n in range(50_000)])
    assert len(np.unique(keys_of(table))) == 50_000
    assert len(np.unique(keys_of(table) >> np.uint64(44))) > 45_000  # of 2^20 places


def test_hours_are_those_of_the_events() -> None:
    events = random_events(1, 20)
    found = hours_of(rows.table(events))
    expected = sorted(event.event_time // MICROS_PER_HOUR for event in events)
    assert sorted(found.tolist()) == expected
