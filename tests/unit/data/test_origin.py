from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.origin import MOST_LEFT_OUT, Piece, origin, place, with_origin
from roiflow.data.sources.files import Files
from roiflow.data.validate import RawWindow, validate
from roiflow.errors import QuarantineLimit
from tests.unit.data import worlds
from tests.unit.data.worlds import SECOND, WEEKS, bounds

PIECES = [
    Piece.of_file("a/part-0.csv", 5, [0, 3]),
    Piece.of_file("a/part-1.csv", 2, []),
    Piece("shop.ads", 3, None),
]


def test_a_row_is_named_as_its_file_counts_it() -> None:
    """Of the first file rows 2, 3 and 5 were kept, all of the second; a database has no rows."""
    rows = with_origin(pa.table({"x": range(8)}), PIECES)
    assert origin(rows.schema) == PIECES
    assert [place(rows.schema, row) for row in range(9)] == [
        "a/part-0.csv, row 2",
        "a/part-0.csv, row 3",
        "a/part-0.csv, row 5",
        "a/part-1.csv, row 1",
        "a/part-1.csv, row 2",
        "shop.ads",
        "shop.ads",
        "shop.ads",
        None,
    ]
    assert place(rows.schema) == "a/part-0.csv, a/part-1.csv, shop.ads"


def test_a_table_without_an_origin_has_no_place() -> None:
    assert place(pa.table({"x": [1]}).schema, 0) is None
    assert place(pa.table({"x": [1]}).schema) is None


def test_a_list_of_what_was_left_out_never_grows_large() -> None:
    many = range(MOST_LEFT_OUT + 1)
    piece = Piece.of_file("part-0.csv", 2 * len(many), many)
    assert (piece.kept, piece.row(0)) == (len(many), "part-0.csv")


def test_what_validate_refuses_is_named_by_its_owners_file(tmp_path: Path) -> None:
    """Two parts; a row of the second became known after the window and is not pulled."""
    own = worlds.write(tmp_path / "own [1]")
    rows = worlds.week_rows("impressions", SECOND)
    rows[7][c.COST] = -3
    late = worlds.impression(SECOND, 0, known_time=SECOND.end, impression_id="late")
    folder = own / "impressions" / f"week={SECOND}"
    for number, part in enumerate([rows[:4], [late, *rows[4:]]]):
        pq.write_table(worlds.table("impressions", part), folder / f"part-{number}.parquet")
    for week in WEEKS:
        for name, pulled in Files(str(own)).pull(week, SECOND.end).items():
            lake.write(tmp_path / "raw", name, week, pulled)
    written = lake.partition(tmp_path / "raw", "impressions", SECOND).read_bytes()
    assert str(tmp_path).encode() not in written
    with pytest.raises(QuarantineLimit) as raised:
        list(validate(RawWindow(tmp_path / "raw", "files"), WEEKS, SECOND.end, bounds(0.0)))
    assert (
        f"first: negative bid or cost: source files: impressions/week={SECOND}/part-1.parquet, "
        f"row 5: impression_id='{SECOND}-i7', cost_micros=-3; right: 0 to "
    ) in str(raised.value)
