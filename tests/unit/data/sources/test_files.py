import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.files import Files
from roiflow.data.weeks import Week
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


def test_a_url_that_fsspec_knows_is_read(root: Path) -> None:
    folder = f"lake-{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    memory.put(str(root), f"/{folder}", recursive=True)
    try:
        found = Files(f"memory://{folder}")
        assert found.pull(FIRST, FIRST.end)["impressions"].num_rows == 10
        assert found.weeks() == [FIRST, SECOND]
        before = found.state([FIRST])
        memory.touch(f"/{folder}/impressions/week={SECOND}/part-1.parquet")
        assert found.state([FIRST]) == before
        memory.pipe(f"/{folder}/impressions/week={FIRST}/part-0.parquet", b"PAR1")
        assert found.state([FIRST]) != before
        with pytest.raises(UnknownWeek, match="weeks held: 2026-W03, 2026-W04"):
            found.pull(FIRST.plus(-1), FIRST.end)
        with pytest.raises(SourceError, match=rf"memory://{folder}/impressions/.*not readable as"):
            found.pull(FIRST, FIRST.end)
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


def as_csv(root: Path, table: str, week: Week, **options: Any) -> Path:
    """The partition as pandas writes it, instead of Parquet."""
    path = lake.partition(root, table, week)
    rows = lake.read_parquet(path)
    path.unlink()
    rows.to_pandas().to_csv(path.with_suffix(".csv"), **options)
    return path.with_suffix(".csv")


@pytest.mark.parametrize("table", SCHEMAS)
@pytest.mark.parametrize("index", [True, False])
def test_a_csv_is_read_as_its_parquet_would_be(root: Path, table: str, index: bool) -> None:
    before = Files(str(root)).pull(SECOND, SECOND.end)[table]
    as_csv(root, table, SECOND, index=index)
    found = Files(str(root))
    assert found.pull(SECOND, SECOND.end)[table].equals(before)
    assert found.weeks() == [FIRST, SECOND]


def test_cells_with_commas_quotes_and_line_ends_are_kept(root: Path) -> None:
    path = as_csv(root, "users", SECOND, index=False)
    head, first, *rest = path.read_text().splitlines()
    awkward = 'a "b",\nc\té'
    first = first.replace("30-39", '"' + awkward.replace('"', '""') + '"')
    path.write_text("\ufeff" + "\r\n".join([head, first, *rest]) + "\r\n")
    found = Files(str(root)).pull(SECOND, SECOND.end)["users"]["age"].to_pylist()
    assert found == [awkward, "30-39", "30-39"]


def test_a_bad_cell_is_named_in_the_users_own_file(root: Path) -> None:
    path = as_csv(root, "conversions", SECOND, index=False)
    path.write_text(path.read_text().replace("2000000", "free", 1))
    words = rf"^{path}: row 1, column 'revenue_micros': 'free' \(string\) is not a whole number"
    with pytest.raises(SourceError, match=words):
        Files(str(root)).pull(SECOND, SECOND.end)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty: a table without rows still has its header"),
        (b"event_time;known_time\n", r"no column 'event_time'.*columns are separated by commas"),
        (b"event_time,known_time\n1\n", "not readable as CSV.*row 1: Expected 2 columns, got 1"),
        (b"\x00PAR1\x00\n1,2\n", r"not readable as CSV.*Expected 1 columns, got 2: 1,2"),
        (
            b"event_time,known_time,impression_id,revenue_micros\n"
            b"2026-01-19,2026-01-19,i,1\n2026-01-19,2026-01-19,\xfc,1\n",
            r"row 2, column 'impression_id': .*xfc' \(string\) is not text in UTF-8",
        ),
    ],
)
def test_a_file_that_is_no_such_csv_is_named(root: Path, content: bytes, words: str) -> None:
    path = as_csv(root, "conversions", SECOND, index=False)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        Files(str(root)).pull(SECOND, SECOND.end)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_csv_without_rows_is_an_empty_table(root: Path) -> None:
    path = as_csv(root, "conversions", SECOND, index=False)
    path.write_text(path.read_text().splitlines()[0])
    assert Files(str(root)).pull(SECOND, SECOND.end)["conversions"].num_rows == 0


def test_parquet_beside_csv_is_refused(root: Path) -> None:
    path = lake.partition(root, "ads", SECOND)
    before = path.read_bytes()
    as_csv(root, "ads", SECOND)
    path.write_bytes(before)
    with pytest.raises(SourceError, match=r"ads/week=2026-W04: both Parquet and CSV: leave one"):
        Files(str(root)).pull(SECOND, SECOND.end)


@pytest.mark.parametrize(
    "name", ["[a]", "it's", 'a "b"', "two  words", "*", "100%20", "é漢😀", "{x}?#&"]
)
def test_a_folders_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    root = worlds.write(tmp_path / name)
    for place in (str(root), f"file://{quote(str(root))}"):
        found = Files(place)
        assert found.weeks() == [FIRST, SECOND]
        assert found.pull(FIRST, FIRST.end)["impressions"].num_rows == 10
        before = found.state([FIRST])
        assert before != found.state([SECOND])


def test_the_newest_snapshot_holds_until_there_is_another(root: Path) -> None:
    before = Files(str(root)).state([SECOND])
    for name in ("ads", "users"):
        lake.partition(root, name, SECOND).unlink()
    found = Files(str(root))
    assert found.pull(SECOND, SECOND.end)["ads"].equals(worlds.tables(FIRST)["ads"])
    assert found.weeks() == [FIRST, SECOND]
    once = found.state([SECOND])
    assert once != before
    lake.write(root, "ads", FIRST, worlds.table("ads", [worlds.ad(FIRST, 7)]))
    assert found.state([SECOND]) != once


def test_without_a_snapshot_the_error_says_what_one_is(root: Path) -> None:
    lake.partition(root, "ads", FIRST).unlink()
    words = (
        rf"^{root}/ads/week=2026-W03/part-0\.parquet \(or \.csv\): no such file; weeks held: "
        "2026-W04: ads are a whole snapshot, not changes: write the one that holds"
    )
    with pytest.raises(UnknownWeek, match=words):
        Files(str(root)).pull(FIRST, FIRST.end)
    assert Files(str(root)).weeks() == [SECOND]


def test_a_week_that_still_runs_is_not_listed(root: Path) -> None:
    assert Files(str(root), SECOND.end).weeks() == [FIRST, SECOND]
    assert Files(str(root), SECOND.end - 1).weeks() == [FIRST]


def test_a_file_of_another_name_is_pointed_at(root: Path) -> None:
    path = lake.partition(root, "impressions", SECOND)
    path.rename(path.with_name("data.parquet"))
    with pytest.raises(UnknownWeek, match=r"week=2026-W04/data\.parquet is not read"):
        Files(str(root)).pull(SECOND, SECOND.end)


def test_a_link_to_nowhere_is_not_left_out(root: Path) -> None:
    path = lake.partition(root, "conversions", SECOND).with_name("part-1.parquet")
    path.symlink_to(root / "nowhere")
    with pytest.raises(SourceError, match=rf"^{path}: .*No such file"):
        Files(str(root)).pull(SECOND, SECOND.end)


def test_linked_weeks_are_followed_and_circles_end(root: Path) -> None:
    week = lake.partition(root, "conversions", SECOND).parent
    week.rename(root / "elsewhere")
    week.symlink_to(root / "elsewhere")
    (week / "again").symlink_to(root)
    assert Files(str(root)).pull(SECOND, SECOND.end)["conversions"].num_rows == 4


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    place = tmp_path / "absent"
    with pytest.raises(SourceError, match=rf"^{place}: no such folder.*ROIFLOW_DATA_FOLDER"):
        Files(str(place)).pull(FIRST, FIRST.end)
    with pytest.raises(SourceError, match=rf"^{place}: no such folder.*ROIFLOW_DATA_FOLDER"):
        Files(str(place)).weeks()


@pytest.mark.parametrize("place", ["file://host/own", "file://own"])
def test_a_file_url_of_another_host_is_refused(place: str) -> None:
    with pytest.raises(SourceError, match=rf"^{place}: no such place: write file:///the/whole"):
        Files(place)
