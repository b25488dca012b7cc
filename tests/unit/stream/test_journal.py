"""The journal comes back whole up to its last whole frame."""

import multiprocessing
import os
from pathlib import Path

import pytest

from roiflow.data.events import EVENTS
from roiflow.errors import ServiceError
from roiflow.stream import journal as journal_module
from roiflow.stream import rows
from roiflow.stream.journal import START, Journal, State, last_state, numbers, read
from tests.unit.stream.streams import random_events


def state(number: int) -> State:
    return State(100 + number, {"a/1": number, "b/1": number // 3}, {"slate": number})


def write(folder: Path, batches: int) -> Journal:
    journal = Journal(folder)
    journal.open(0)
    for number in range(1, batches + 1):
        journal.append(rows.table(random_events(number, 3)), state(number))
    return journal


def test_batches_and_state_come_back(tmp_path: Path) -> None:
    write(tmp_path, 4).close()
    found = read(tmp_path, 0)
    assert [batch.stamp for batch in found] == [101, 102, 103, 104]
    for number, batch in enumerate(found, 1):
        assert batch.events == rows.table(random_events(number, 3))
        assert batch.events.schema == EVENTS
    assert last_state(tmp_path) == State(104, {"a/1": 4, "b/1": 1}, {"slate": 4})


def test_every_torn_tail_is_ignored(tmp_path: Path) -> None:
    write(tmp_path, 2).close()
    (path,) = tmp_path.glob("*.journal")
    whole, first = path.read_bytes(), tmp_path / "first"
    write(first, 1).close()
    start = len((first / path.name).read_bytes())
    for cut in range(start, len(whole), 101):
        path.write_bytes(whole[:cut])
        assert [batch.stamp for batch in read(tmp_path, 0)] == [101]
        assert last_state(tmp_path).stamp == 101
    for place in range(start, len(whole), 97):  # written in another order than it was sent
        torn = bytearray(whole)
        torn[place] ^= 0xFF
        path.write_bytes(torn)
        assert [batch.stamp for batch in read(tmp_path, 0)] == [101]
    path.write_bytes(whole)
    assert len(read(tmp_path, 0)) == 2


def test_a_new_segment_knows_the_whole_state(tmp_path: Path) -> None:
    journal = write(tmp_path, 3)
    journal.open(1)
    for number in journal.closed():
        journal.remove(number)
    assert numbers(tmp_path) == [1]
    assert last_state(tmp_path) == State(103, {"a/1": 3, "b/1": 1}, {"slate": 3})
    journal.close()
    (tmp_path / "000000002.journal").write_bytes(b"RJ1\n")  # killed when it was begun
    assert last_state(tmp_path).stamp == 103
    assert read(tmp_path, 2) == []


def test_a_batch_without_events_moves_the_position(tmp_path: Path) -> None:
    journal = write(tmp_path, 1)
    journal.append(EVENTS.empty_table(), State(101, {"a/1": 9}, {}))
    journal.close()
    assert len(read(tmp_path, 0)) == 1
    assert last_state(tmp_path).position["a/1"] == 9


def test_later_stamps_are_above_what_is_told(tmp_path: Path) -> None:
    journal = write(tmp_path, 1)
    journal.open(5, stamp=1_000)
    assert journal.state.stamp == last_state(tmp_path).stamp == 1_000


def test_no_journal_is_the_start(tmp_path: Path) -> None:
    assert last_state(tmp_path / "none") == START
    assert read(tmp_path, 7) == []


def test_what_cannot_be_written_leaves_it_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = write(tmp_path, 1)
    pwrite = os.pwrite

    def half(file: int, content: memoryview, at: int) -> int:
        if len(content) < 300:
            raise OSError(28, "No space left on device")
        return pwrite(file, content[: len(content) // 2], at)

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", half)
        with pytest.raises(ServiceError, match=r"000000000\.journal: cannot be written: No space"):
            journal.append(rows.table(random_events(2, 3)), state(2))
        with pytest.raises(ServiceError, match=r"000000001\.journal"):
            journal.open(1)
    assert numbers(tmp_path) == [0]
    assert journal.state.stamp == last_state(tmp_path).stamp == 101
    journal.append(rows.table(random_events(3, 3)), state(3))
    assert [batch.stamp for batch in read(tmp_path, 0)] == [101, 103]


def test_large_frames_are_written_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, left, at: pwrite(file, left[:700], at))
    write(tmp_path, 2).close()
    assert len(read(tmp_path, 0)) == 2


def _hold(folder: Path) -> None:
    Journal(folder)
    os.kill(os.getpid(), 9)


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -9
    Journal(tmp_path).close()


def test_a_journal_closed_twice_closes_nothing_of_others(tmp_path: Path) -> None:
    journal = write(tmp_path / "journal", 1)
    journal.close()
    others = [os.open(tmp_path, os.O_RDONLY) for _ in range(4)]  # one has the lock's number
    journal.close()
    for descriptor in others:
        os.close(descriptor)  # raises OSError where somebody did before


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="file/journal"):
        Journal(tmp_path / "file" / "journal")


def test_a_segment_of_an_older_schema_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = EVENTS.remove(EVENTS.get_field_index("dwell_ms"))
    with monkeypatch.context() as before:
        before.setattr(journal_module, "EVENTS", older)
        journal = Journal(tmp_path)
        journal.open(0)
        journal.append(rows.table(random_events(1, 3)).select(older.names), state(1))
        journal.close()
    (batch,) = read(tmp_path, 0)
    assert batch.events.schema == EVENTS
    assert batch.events["dwell_ms"].null_count == batch.events.num_rows
