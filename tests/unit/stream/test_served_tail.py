"""The served log as arrivals."""

from pathlib import Path

import pytest

from roiflow.stream.arrivals import Arrivals
from roiflow.stream.served_log import EventLog
from roiflow.stream.served_tail import ServedLogArrivals
from tests.unit.stream.arrivals_contract import ArrivalsContract, Door
from tests.unit.stream.streams import click


class ServedDoor:
    """Lines in one open segment."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "00000000000000000001-7-000000.jsonl.open"

    def put(self, payloads: list[bytes]) -> None:
        with self._file.open("ab") as file:
            file.write(b"".join(payload + b"\n" for payload in payloads))

    def reader(self) -> Arrivals:
        return ServedLogArrivals(self._folder)


class TestServedLogArrivals(ArrivalsContract):
    @pytest.fixture
    def door(self, tmp_path: Path) -> Door:
        return ServedDoor(tmp_path)


def impressions(arrivals: ServedLogArrivals, limit: int = 100) -> list[str]:
    found = []
    while payloads := arrivals.poll(limit, 0.06).payloads:
        found += [payload.split(b'"')[7].decode() for payload in payloads]
    return found


def test_segments_that_are_sealed_meanwhile_are_read_once(tmp_path: Path) -> None:
    log = EventLog(tmp_path, segment_bytes=300)
    arrivals = ServedLogArrivals(tmp_path)
    found = []
    for number in range(40):
        log.write([click(f"i{number}", 1 + number)])
        found += impressions(arrivals, 3) if number % 3 == 0 else []
    log.close()
    assert found + impressions(arrivals) == [f"i{number}" for number in range(40)]
    assert impressions(ServedLogArrivals(tmp_path), 7) == [f"i{number}" for number in range(40)]


def test_two_writers_are_both_read(tmp_path: Path) -> None:
    logs = [EventLog(tmp_path) for _ in range(2)]
    arrivals, found = ServedLogArrivals(tmp_path), list[str]()
    for number in range(20):
        logs[number % 2].write([click(f"i{number}", 1 + number)])
        found += impressions(arrivals)
    assert found == [f"i{number}" for number in range(20)]


def test_a_line_comes_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "1-1-000000.jsonl.open"
    arrivals = ServedLogArrivals(tmp_path)
    path.write_bytes(b"one\ntw")
    assert arrivals.poll(9, 0.06).payloads == [b"one"]
    assert arrivals.poll(9, 0.0).payloads == []
    path.write_bytes(b"one\ntwo\n" + b"x" * 9_000_000 + b"\nlast\n")
    found = arrivals.poll(9, 0.06)
    assert [len(payload) for payload in found.payloads] == [3, 9_000_000, 4]
    assert found.sources[0] == "served/1-1-000000@4"
    assert found.position == {"served/1-1-000000": 9_000_014}


def test_reading_goes_on_where_it_was_left(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    for number in range(10):
        log.write([click(f"i{number}", 1 + number)])
    first = ServedLogArrivals(tmp_path).poll(4, 0.0)
    later = ServedLogArrivals(tmp_path)
    later.seek(first.position)
    log.close()
    assert impressions(later) == [f"i{number}" for number in range(4, 10)]


def test_no_folder_is_no_events(tmp_path: Path) -> None:
    assert ServedLogArrivals(tmp_path / "none").poll(5, 0.0).payloads == []
