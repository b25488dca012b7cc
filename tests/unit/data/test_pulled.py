from pathlib import Path

import pytest

from roiflow.data.pulled import Pulled, read_pulled, write_pulled
from roiflow.data.weeks import Week
from roiflow.errors import SourceError

WEEK = Week(2026, 4)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pulled = Pulled("files", WEEK.window(3), WEEK.end)
    write_pulled(tmp_path, pulled)
    assert read_pulled(tmp_path) == pulled
    assert pulled.week == WEEK


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"source": "files", "weeks": 3, "as_of": 1}', '{"as_of": "x"}']
)
def test_anything_else_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "pulled.json").write_text(content)
    with pytest.raises(SourceError, match=r"pulled.json: not a description"):
        read_pulled(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"pulled.json: No such file"):
        read_pulled(tmp_path)
