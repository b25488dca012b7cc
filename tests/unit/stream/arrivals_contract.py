"""What every way for events to arrive has to do, whatever they arrive through."""

import time
from typing import Protocol

from roiflow.stream.arrivals import Arrivals, Arrived, Position

SECOND = 1_000_000


class Door(Protocol):
    """Where the events of a test come in."""

    def put(self, payloads: list[bytes]) -> None:
        """Returns once readers can see them."""
        ...

    def reader(self) -> Arrivals:
        """One that has read nothing."""
        ...


def events(first: int, end: int) -> list[bytes]:
    return [b'{"kind":"click","impression_id":"r%d:1","event_time":%d}' % (n, n + 1)
            for n in range(first, end)]  # fmt: skip


def drain(arrivals: Arrivals, least: int, limit: int = 1_000) -> list[Arrived]:
    """Polls until there are `least` events and the last poll gave none."""
    polls: list[Arrived] = []
    end = time.monotonic() + 20
    while time.monotonic() < end:
        polls.append(arrivals.poll(limit, 0.2))
        if not polls[-1].payloads and sum(len(poll.payloads) for poll in polls) >= least:
            return polls
    raise AssertionError(f"{sum(len(poll.payloads) for poll in polls)} of {least} events")


def payloads(polls: list[Arrived]) -> list[bytes]:
    return sorted(payload for poll in polls for payload in poll.payloads)


class ArrivalsContract:
    def test_every_event_comes_once_with_its_time_and_place(self, door: Door) -> None:
        before = time.time_ns() // 1_000
        door.put(events(0, 100))
        polls = drain(door.reader(), 100)
        after = time.time_ns() // 1_000
        assert payloads(polls) == sorted(events(0, 100))
        times = [time for poll in polls for time in poll.times]
        sources = [source for poll in polls for source in poll.sources]
        assert len(times) == len(sources) == len(set(sources)) == 100
        assert all(before - SECOND <= time <= after + SECOND for time in times)

    def test_a_reader_waits_for_what_comes(self, door: Door) -> None:
        reader = door.reader()
        door.put(events(0, 3))
        assert payloads(drain(reader, 3)) == sorted(events(0, 3))
        door.put(events(3, 5))
        assert payloads(drain(reader, 2)) == sorted(events(3, 5))

    def test_a_reader_goes_on_from_any_position_another_came_to(self, door: Door) -> None:
        door.put(events(0, 50))
        reader = door.reader()
        drain(reader, 50)
        door.put(events(50, 80))
        polls = drain(reader, 30, limit=7)
        assert max(len(poll.payloads) for poll in polls) <= 7
        for number, poll in enumerate(polls):
            other = door.reader()
            other.seek(poll.position)
            rest = payloads(polls[number + 1 :])
            assert payloads(drain(other, len(rest))) == rest

    def test_the_same_reader_can_go_back(self, door: Door) -> None:
        door.put(events(0, 20))
        reader = door.reader()
        position: Position = drain(reader, 20)[-1].position
        door.put(events(20, 30))
        drain(reader, 10)
        reader.seek(position)
        assert payloads(drain(reader, 10)) == sorted(events(20, 30))
        reader.seek({})
        assert payloads(drain(reader, 30)) == sorted(events(0, 30))

    def test_a_position_of_something_else_says_nothing(self, door: Door) -> None:
        door.put(events(0, 10))
        reader = door.reader()
        reader.seek({"kafka/gone/0": 7, "served/gone": 7})
        assert payloads(drain(reader, 10)) == sorted(events(0, 10))

    def test_nothing_takes_no_longer_than_told(self, door: Door) -> None:
        reader = door.reader()
        reader.poll(10, 0.0)  # connects
        started = time.monotonic()
        poll = reader.poll(10, 0.3)
        assert not poll.payloads
        assert not poll.times
        assert time.monotonic() - started < 1.0

    def test_commit_can_be_said_at_any_time(self, door: Door) -> None:
        reader = door.reader()
        reader.commit({})
        door.put(events(0, 5))
        position = drain(reader, 5)[-1].position
        reader.commit(position)
        reader.commit(position)
