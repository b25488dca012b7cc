from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from roiflow.errors import ContractError
from roiflow.features.vocabulary import SCHEMA, Vocabulary


def extended(
    vocabulary: Vocabulary, kind: str, seen: Iterable[pa.Table], min_count: int
) -> Vocabulary:
    """With the new ids of `seen`."""
    return vocabulary.appended(kind, vocabulary.new(kind, seen, min_count)["id"])


def seen(*rows: tuple[str | None, int]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([name for name, _ in rows], pa.string()),
            "known_time": pa.array([time for _, time in rows], pa.int64()),
            "count": pa.array([1] * len(rows), pa.int64()),
        }
    )


def test_new_ids_follow_by_first_known_time_then_id() -> None:
    first = extended(Vocabulary({}), "ad", [seen(("b", 5), ("a", 5)), seen(("c", 1), ("b", 2))], 1)
    assert first.ids("ad").to_pylist() == ["c", "b", "a"]
    assert first.size("ad") == 4


def test_later_weeks_never_renumber() -> None:
    first = extended(Vocabulary({}), "ad", [seen(("b", 5), ("a", 6))], 1)
    second = extended(first, "ad", [seen(("z", 0), ("a", 1), ("b", 1))], 1)
    assert second.ids("ad").to_pylist() == ["b", "a", "z"]


def test_order_of_tables_and_rows_does_not_matter() -> None:
    rows = [seen(("b", 5), ("a", 6)), seen(("c", 5), ("a", 1))]
    one, other = (extended(Vocabulary({}), "ad", tables, 1) for tables in (rows, rows[::-1]))
    assert one.ids("ad").equals(other.ids("ad"))


def test_rare_ids_and_nulls_stay_out() -> None:
    vocabulary = extended(Vocabulary({}), "ad", [seen(("a", 1), ("b", 2), ("b", 3), (None, 1))], 2)
    assert vocabulary.ids("ad").to_pylist() == ["b"]


def test_index_of_known_unknown_and_null() -> None:
    vocabulary = Vocabulary({"ad": pa.array(["x", "y"])})
    assert vocabulary.index("ad", pa.array(["y", None, "q", "x"])).tolist() == [2, 0, 0, 1]
    assert vocabulary.index("ad", pa.chunked_array([["x"], ["y"]])).tolist() == [1, 2]
    assert vocabulary.index("user", pa.array(["x"])).tolist() == [0]
    assert vocabulary.lookup("ad") == {"x": 1, "y": 2}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    vocabulary = Vocabulary({"user": pa.array(["u"]), "ad": pa.array(["x", "y"])})
    vocabulary.write(tmp_path / "vocabulary.parquet")
    found = Vocabulary.read(tmp_path / "vocabulary.parquet")
    assert found.table().equals(vocabulary.table())
    assert found.kinds == ("ad", "user")


@pytest.mark.parametrize(
    ("ids", "indices", "message"),
    [
        (["x", "y"], [1, 3], r"'ad': index 3 of id 'y' where 2 was expected"),
        (["x", "y"], [0, 1], r"'ad': index 0 of id 'x' where 1 was expected"),
        (["x", "x"], [1, 2], r"'ad': id 'x' has two indices"),
    ],
)
def test_a_vocabulary_that_is_not_dense_is_refused(
    tmp_path: Path, ids: list[str], indices: list[int], message: str
) -> None:
    path = tmp_path / "vocabulary.parquet"
    columns = [["ad"] * len(ids), ids, indices]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    pq.write_table(pa.table(arrays, schema=SCHEMA), path)
    with pytest.raises(ContractError, match=message) as caught:
        Vocabulary.read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(ContractError, match="cannot read the vocabulary"):
        Vocabulary.read(path)
    pq.write_table(pa.table({"kind": ["ad"]}), path)
    with pytest.raises(ContractError, match="no column id, index"):
        Vocabulary.read(path)
