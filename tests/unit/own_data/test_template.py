"""The example that a newcomer starts from keeps the contract, and says it."""

from pathlib import Path

import pytest

from roiflow.data.schemas import ABOUT, KEYS, MEANINGS, SCHEMAS
from roiflow.data.sources.files import Files
from roiflow.data.validate import validate
from roiflow.data.weeks import Week
from roiflow.errors import SourceError
from roiflow.own_data.facts import Looked
from roiflow.own_data.template import contract, example, write_template
from tests.unit.data.worlds import bounds

WEEKS = Week(2026, 4).window(3)


def test_what_is_written_is_read_and_keeps_the_contract(tmp_path: Path) -> None:
    paths = write_template(tmp_path / "new", WEEKS)
    assert len(paths) == 1 + len(SCHEMAS) * len(WEEKS)
    source = Files(str(tmp_path / "new"))
    assert source.weeks() == WEEKS
    end = WEEKS[-1].end
    for part in validate(Looked(source, end), WEEKS, end, bounds(0.0)):
        wanted = example(part.week)[part.table]
        assert part.clean.to_pylist() == wanted.to_pylist()
        assert part.rows > 0


def test_it_has_every_optional_column_filled_and_empty_somewhere() -> None:
    tables = example(WEEKS[0])
    assert {row["dwell_ms"] is None for row in tables["behaviours"].to_pylist()} == {True, False}
    assert {row["clicked"] for row in tables["impressions"].to_pylist()} == {True, False}


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is there already; name a folder that is not"):
        write_template(tmp_path, WEEKS)


def test_every_table_and_every_column_is_explained() -> None:
    text = contract()
    names = {column.name for schema in SCHEMAS.values() for column in schema}
    assert set(MEANINGS) == names
    assert set(ABOUT) == set(KEYS) == set(SCHEMAS)
    for name, schema in SCHEMAS.items():
        assert f"## {name}\n\n{ABOUT[name]}" in text
        for column in schema:
            empty = "yes" if column.nullable else "no"
            assert f"| {column.name} | {column.type} | {empty} | {MEANINGS[column.name]} |" in text
