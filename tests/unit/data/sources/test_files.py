import uuid
from pathlib import Path

import fsspec
import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.files import Files
from roiflow.errors import SourceError, UnknownWeek
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return worlds.write(tmp_path)


def test_a_week_is_given_as_it_lies_there(root: Path) -> None:
    found = Files(str(root)).pull(SECOND, SECOND.end)
    assert {name: found[name].to_pylist() for name in SCHEMAS} == {
        name: table.to_pylist() for name, table in worlds.tables(SECOND).items()
    }
    assert found["users"].column_names == ["event_time", "known_time", "user_id", "age"]


def test_a_url_is_read_even_with_one_slash_lost(root: Path) -> None:
    folder = f"lake-{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    memory.put(str(root), f"/{folder}", recursive=True)
    try:
        for url in (f"memory://{folder}", str(Path(f"memory://{folder}"))):
            found = Files(url).pull(FIRST, FIRST.end)
            assert found["impressions"].num_rows == 10
        with pytest.raises(UnknownWeek, match="weeks held: 2026-W03, 2026-W04"):
            Files(f"memory://{folder}").pull(FIRST.plus(-1), FIRST.end)
    finally:
        memory.rm(f"/{folder}", recursive=True)


def test_rows_known_after_as_of_are_left_out_and_rows_without_time_are_not(root: Path) -> None:
    rows = worlds.week_rows("impressions", FIRST)
    as_of = rows[5][c.KNOWN_TIME]
    rows[9] |= {c.KNOWN_TIME: None}
    lake.write(root, "impressions", FIRST, worlds.table("impressions", rows))
    found = Files(str(root)).pull(FIRST, as_of)["impressions"][c.IMPRESSION].to_pylist()
    assert found == [f"2026-W03-i{number}" for number in (0, 1, 2, 3, 4, 9)]


def test_a_missing_week_and_a_corrupt_file_are_named(root: Path) -> None:
    with pytest.raises(UnknownWeek, match=r"impressions/week=2026-W05/part-.*held: 2026-W03, "):
        Files(str(root)).pull(SECOND.plus(1), SECOND.plus(1).end)
    lake.partition(root, "ads", FIRST).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"ads/week=2026-W03/part-0.parquet: not readable"):
        Files(str(root)).pull(FIRST, FIRST.end)


def test_a_week_in_parts_is_read_in_the_order_of_their_numbers(root: Path) -> None:
    rows = worlds.table("conversions", worlds.week_rows("conversions", FIRST))
    lake.partition(root, "conversions", FIRST).unlink()
    for number, part in enumerate((rows.slice(0, 1), rows.slice(1))):
        name = f"part-{(2, 10)[number]}.parquet"
        lake.write_parquet(root / "conversions" / f"week={FIRST}" / name, part)
    assert Files(str(root)).pull(FIRST, FIRST.end)["conversions"].equals(rows)
