from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.validate import check_types
from roiflow.data.weeks import Week
from roiflow.errors import SourceError, UnknownWeek
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND


def rows(name: str = "impressions", week: Week = FIRST) -> pa.Table:
    return check_types(name, worlds.tables(week)[name], "-")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    lake.write(tmp_path, "impressions", FIRST, rows())
    path = tmp_path / "impressions" / "week=2026-W03" / "part-0.parquet"
    assert lake.partition(tmp_path, "impressions", FIRST) == path
    assert lake.read(tmp_path, "impressions", FIRST) == rows()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    assert chunk.compression == "ZSTD"
    assert not chunk.has_dictionary_page
    assert [file.name for file in path.parent.iterdir()] == ["part-0.parquet"]


def test_weeks_are_read_one_after_the_other(tmp_path: Path) -> None:
    for week in (SECOND, FIRST):
        lake.write(tmp_path, "impressions", week, rows(week=week))
    assert lake.held(tmp_path, "impressions") == [FIRST, SECOND]
    both = lake.read_weeks(tmp_path, "impressions", [FIRST, SECOND])
    assert both == pa.concat_tables([rows(), rows(week=SECOND)])


def test_only_users_keep_further_columns(tmp_path: Path) -> None:
    lake.write(tmp_path, "users", FIRST, rows("users"))
    assert lake.read(tmp_path, "users", FIRST).column_names[-1] == "age"
    extra = rows().append_column("more", rows()[c.USER])
    lake.write(tmp_path, "impressions", FIRST, extra)
    assert lake.read(tmp_path, "impressions", FIRST) == rows()


def test_a_missing_week_names_the_file_and_the_weeks_there_are(tmp_path: Path) -> None:
    lake.write(tmp_path, "impressions", FIRST, rows())
    with pytest.raises(UnknownWeek, match=r"week=2026-W04/part-0.*no such file.*held: 2026-W03"):
        lake.read(tmp_path, "impressions", SECOND)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_corrupt_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = lake.partition(tmp_path, "impressions", FIRST)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"week=2026-W03/part-0.parquet: not readable"):
        lake.read(tmp_path, "impressions", FIRST)


def test_a_wrong_type_or_a_missing_column_is_named(tmp_path: Path) -> None:
    good = rows()
    place = good.column_names.index(c.BID)
    lake.write(
        tmp_path, "impressions", FIRST, good.set_column(place, c.BID, good[c.BID].cast("int32"))
    )
    with pytest.raises(SourceError, match=r"part-0.parquet: column 'bid_micros' is of type int32"):
        lake.read(tmp_path, "impressions", FIRST)
    lake.write(tmp_path, "impressions", FIRST, good.drop_columns([c.BID]))
    with pytest.raises(SourceError, match=r"part-0.parquet: no column 'bid_micros'"):
        lake.read(tmp_path, "impressions", FIRST)


def test_a_failed_write_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.write(tmp_path, "impressions", FIRST, rows())

    def half(_: pa.Table, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", half)
    with pytest.raises(OSError, match="disk full"):
        lake.write(tmp_path, "impressions", FIRST, rows(week=SECOND))
    assert lake.read(tmp_path, "impressions", FIRST) == rows()
    folder = lake.partition(tmp_path, "impressions", FIRST).parent
    assert [file.name for file in folder.iterdir()] == ["part-0.parquet"]
