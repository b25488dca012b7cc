"""Lake and journal as one history, in batches that split no stamp."""

from pathlib import Path

import pyarrow as pa
import pytest

from roiflow.data import event_lake
from roiflow.data.event_lake import IDS
from roiflow.stream import history as history_module
from roiflow.stream import rows
from roiflow.stream.history import History
from roiflow.stream.journal import Journal, State
from tests.unit.stream.streams import MONDAY, behaviour


def events(number: int) -> pa.Table:
    """Three events with the stamp of a number."""
    stamp = MONDAY + number
    return rows.table([behaviour(f"b{number}-{n}", "u", "a", stamp) for n in range(3)])


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """Stamps -10 to 9 around a Monday in two parts, 10 to 19 in a segment."""
    monkeypatch.setattr(history_module, "BATCH_ROWS", 10)
    for number in (0, 1):
        stamps = range(10 * number - 10, 10 * number)
        joined = pa.concat_tables([events(stamp) for stamp in stamps])
        event_lake.write(tmp_path / "lake", number, joined)
    journal = Journal(tmp_path / "journal")
    journal.open(2)
    for number in range(10, 20):
        journal.append(events(number), State(MONDAY + number, {}, {}))
    return History(tmp_path / "lake", journal)


def stamps(history: History, after: int) -> list[int]:
    found = [batch.events["known_time"].cast(pa.int64()) for batch in history.after(MONDAY + after)]
    return [known - MONDAY for column in found for known in column.to_pylist()]


@pytest.mark.parametrize("after", [-99, -11, -10, -1, 0, 4, 9, 10, 18, 19])
def test_everything_after_a_stamp_comes_once_and_in_order(history: History, after: int) -> None:
    expected = [number for number in range(max(after + 1, -10), 20) for _ in range(3)]
    assert stamps(history, after) == expected


def test_a_batch_ends_between_two_stamps(history: History) -> None:
    batches = list(history.after(MONDAY - 99))
    assert [batch.events.num_rows for batch in batches[:3]] == [12, 12, 6]
    for batch in batches:
        known = batch.events["known_time"].cast(pa.int64()).to_pylist()
        assert known[-1] == batch.stamp
        assert known.count(batch.stamp) == 3


def test_a_segment_that_is_in_the_lake_too_is_read_once(history: History, tmp_path: Path) -> None:
    some = pa.concat_tables([events(number) for number in range(10, 14)])
    event_lake.write(tmp_path / "lake", 2, some)  # killed before the rest and the removal
    assert stamps(history, 8) == [number for number in range(9, 20) for _ in range(3)]


def test_ids_are_of_all_that_became_known_then_or_later(history: History) -> None:
    found = pa.concat_tables(history.ids(MONDAY + 5))
    expected = [f"b{number}-{n}" for number in range(5, 20) for n in range(3)]
    assert found["event_id"].to_pylist() == expected
    assert found.column_names == list(IDS)


def test_the_last_number_and_stamp(history: History, tmp_path: Path) -> None:
    assert history.last_number() == 2
    assert history.last_stamp() == MONDAY + 19
    empty = Journal(tmp_path / "other")
    lake_alone = History(tmp_path / "lake", empty)
    assert (lake_alone.last_number(), lake_alone.last_stamp()) == (1, MONDAY + 9)
    nothing = History(tmp_path / "none", empty)
    assert (nothing.last_number(), nothing.last_stamp()) == (-1, 0)
