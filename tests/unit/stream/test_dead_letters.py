"""Dead letters as files."""

from pathlib import Path

import msgspec
import pytest

from roiflow.errors import ServiceError
from roiflow.stream.arrivals import Letter
from roiflow.stream.dead_letters import FileDeadLetters
from tests.full_disk import no_file_over

DAY = 86_400_000_000


def test_letters_by_day_with_all_that_is_known(tmp_path: Path) -> None:
    letters = FileDeadLetters(tmp_path / "dead")
    letters.put([Letter("malformed", "not JSON", "events/3@7", b'a\xff\x00"\n', 5)])
    large = Letter("oversized", "too much", "events/3@8", b"x" * 9_000, DAY)
    letters.put([large, Letter("late", "by 3 hours", "events/3@9", b"y" * 9_000, DAY)])
    first, second = sorted((tmp_path / "dead").iterdir())
    assert [first.name, second.name] == ["1970-01-01.jsonl", "1970-01-02.jsonl"]
    assert msgspec.json.decode(first.read_bytes()) == {
        "time": "1970-01-01T00:00:00.000005+00:00",
        "reason": "malformed",
        "detail": "not JSON",
        "source": "events/3@7",
        "payload": 'a\\xff\x00"\n',
    }
    sizes = [len(msgspec.json.decode(line)["payload"]) for line in second.read_text().splitlines()]
    assert sizes == [1_024, 9_000]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="file/dead"):
        FileDeadLetters(tmp_path / "file" / "dead").put([Letter("late", "", "", b"", 5)])


def test_no_line_is_put_behind_half_of_another(tmp_path: Path) -> None:
    """After a full disk the half is taken back; after a kill the next letter has its own line."""
    letters, path = FileDeadLetters(tmp_path), tmp_path / "1970-01-01.jsonl"
    letters.put([Letter("late", "", "s@1", b"x", 5)])
    whole = path.read_bytes()
    with no_file_over(len(whole) + 20), pytest.raises(ServiceError, match="File too large"):
        letters.put([Letter("late", "", "s@2", b"x", 5)])
    assert path.read_bytes() == whole
    path.write_bytes(whole + whole[:20])
    letters.put([Letter("late", "", "s@3", b"x", 5)])
    first, half, last = path.read_bytes().splitlines()
    assert (first, half) == (whole.strip(), whole[:20])
    assert msgspec.json.decode(last)["source"] == "s@3"
