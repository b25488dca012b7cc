import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from roiflow.errors import ServiceError
from roiflow.stream.forward import Forwarder, key_of
from roiflow.stream.kafka import LOOK_SECONDS, Outgoing
from roiflow.stream.served_tail import ServedLogArrivals


class Topics:
    """A broker of one topic that can be away, fail between messages, and be made anew."""

    def __init__(self) -> None:
        self.id = "one"
        self.held: list[bytes] = []
        self.fails_after: int | None = None
        self.away = False

    def made_anew(self, topic: str) -> None:
        self.id, self.held = topic, []

    def topic_id(self) -> str:
        if self.away:
            raise ServiceError("away")
        return self.id

    def send(self, messages: Sequence[Outgoing]) -> None:
        self.topic_id()
        self.held += [message.payload for message in messages[: self.fails_after]]
        if self.fails_after is not None:
            raise ServiceError("fails")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def topics() -> Topics:
    return Topics()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "served").mkdir()
    return tmp_path / "served"


def write(log: Path, segment: str, first: int, end: int) -> None:
    with (log / f"{segment}.jsonl.open").open("ab") as file:
        file.writelines(line + b"\n" for line in lines(first, end))


def lines(first: int, end: int) -> list[bytes]:
    return [b'{"user_id":"u%d"}' % number for number in range(first, end)]


def forwarder(log: Path, topics: Topics, clock: Clock) -> Forwarder:
    return Forwarder(ServedLogArrivals(log), topics, log.parent / "sent.json", clock)


def send_all(one: Forwarder, limit: int = 4) -> None:
    while one.step(limit, 0.0):
        pass


def test_every_line_goes_out_in_order_and_once(log: Path, topics: Topics, clock: Clock) -> None:
    write(log, "a", 0, 10)
    one = forwarder(log, topics, clock)
    assert [one.step(4, 0.0) for _ in range(4)] == [4, 4, 2, 0]
    write(log, "a", 10, 12)
    send_all(one)
    write(log, "b", 12, 15)
    send_all(forwarder(log, topics, clock))  # another process
    assert topics.held == lines(0, 15)


def test_a_batch_that_failed_goes_out_again(log: Path, topics: Topics, clock: Clock) -> None:
    write(log, "a", 0, 10)
    one = forwarder(log, topics, clock)
    one.step(4, 0.0)
    topics.fails_after = 2
    for _ in range(2):
        with pytest.raises(ServiceError, match="fails"):
            one.step(4, 0.0)
    topics.fails_after = None
    send_all(one)
    assert topics.held == lines(0, 4) + lines(4, 6) * 2 + lines(4, 10)


def test_a_process_killed_before_it_kept_its_position_sends_again(
    log: Path, topics: Topics, clock: Clock, tmp_path: Path
) -> None:
    write(log, "a", 0, 10)
    one = forwarder(log, topics, clock)
    one.step(4, 0.0)
    before = (tmp_path / "sent.json").read_bytes()
    one.step(4, 0.0)
    (tmp_path / "sent.json").write_bytes(before)
    send_all(forwarder(log, topics, clock))
    assert topics.held == lines(0, 8) + lines(4, 10)


def test_a_topic_made_anew_gets_what_the_log_still_holds(
    log: Path, topics: Topics, clock: Clock
) -> None:
    write(log, "a", 0, 6)
    write(log, "b", 6, 9)
    one = forwarder(log, topics, clock)
    send_all(one)
    topics.made_anew("two")
    (log / "a.jsonl.open").unlink()
    send_all(one)
    assert topics.held == []  # it has not looked yet, and nothing new came
    clock.now += LOOK_SECONDS
    send_all(one)
    assert topics.held == lines(6, 9)
    topics.made_anew("three")
    send_all(forwarder(log, topics, clock))
    assert topics.held == lines(6, 9)


def test_lines_that_went_to_the_new_topic_unnoticed_go_again(
    log: Path, topics: Topics, clock: Clock
) -> None:
    write(log, "a", 0, 5)
    one = forwarder(log, topics, clock)
    send_all(one)
    topics.made_anew("two")
    write(log, "a", 5, 7)
    send_all(one)
    clock.now += LOOK_SECONDS
    send_all(one)
    assert topics.held == lines(5, 7) + lines(0, 7)


def test_a_state_that_is_something_else_is_named(log: Path, topics: Topics, clock: Clock) -> None:
    (log.parent / "sent.json").write_text('{"topic": 3}')
    with pytest.raises(ServiceError, match=r"sent\.json: not how far a log was sent: "):
        forwarder(log, topics, clock)


@pytest.mark.parametrize(
    ("event", "key"),
    [
        ({"kind": "slate", "user_id": "ann", "ads": []}, b"ann"),
        ({"kind": "click", "impression_id": "r1:2"}, b"r1:2"),
        ({"kind": "behaviour", "user_id": "bob", "ad_id": "a1"}, b"bob"),
        ({"kind": "new", "user_id": 7}, None),
        ({"kind": "new"}, None),
        ([], None),
    ],
)
def test_an_event_goes_by_its_user_or_its_impression(event: object, key: bytes | None) -> None:
    assert key_of(json.dumps(event).encode()) == key


@pytest.mark.parametrize("line", [b"", b"{", b"\xff\xfe", b'{"user_id":"\xff"}'])
def test_a_line_that_is_no_event_goes_anywhere(line: bytes) -> None:
    assert key_of(line) is None
