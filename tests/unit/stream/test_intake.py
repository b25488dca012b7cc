"""What one poll comes to."""

from roiflow.stream.arrivals import Arrived
from roiflow.stream.duplicates import Seen
from roiflow.stream.intake import take_in
from tests.unit.stream.streams import LIMITS, NOW, behaviour, encode


def arrived(*payloads: bytes) -> Arrived:
    size = len(payloads)
    return Arrived(list(payloads), [NOW - 7] * size, [f"p@{n}" for n in range(size)], {"p": size})


def test_a_message_without_known_time_became_known_when_the_broker_took_it() -> None:
    event = behaviour("b", "u", "a", NOW - 9)
    event.known_time = None
    found = take_in(arrived(*encode([event])), Seen(), now=NOW, oldest=0, limits=LIMITS)
    (row,) = found.events.to_pylist()
    assert row["known_time"].timestamp() == (NOW - 7) / 1e6


def test_no_event_is_known_after_now() -> None:
    ahead = behaviour("b", "u", "a", NOW, NOW + 5_000_000)
    found = take_in(arrived(*encode([ahead])), Seen(), now=NOW, oldest=0, limits=LIMITS)
    (row,) = found.events.to_pylist()
    assert row["known_time"].timestamp() == NOW / 1e6


def test_the_first_of_equal_events_is_taken_and_all_is_counted() -> None:
    first, second = behaviour("b", "u1", "a", NOW), behaviour("b", "u2", "a", NOW)
    some = arrived(*encode([first, second, first]), b"{", b"{")
    found = take_in(some, Seen(), now=NOW, oldest=0, limits=LIMITS)
    assert found.events["user_id"].to_pylist() == ["u1"]
    assert found.counts == {"behaviour": 1, "duplicate": 2, "malformed": 2}
    assert [letter.source for letter in found.letters] == ["p@3", "p@4"]
    assert found.keys.size == found.hours.size == 1


def test_nothing_comes_to_nothing() -> None:
    found = take_in(arrived(), Seen(), now=NOW, oldest=0, limits=LIMITS)
    assert (found.events.num_rows, found.letters, dict(found.counts)) == (0, [], {})
