"""`roiflow check` over a real database and a real S3 server: the same example, the same words."""

import re
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from roiflow import columns as c
from roiflow.cli import main as cli
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.files import Files
from roiflow.data.weeks import Week
from roiflow.own_data.template import example, write_template
from tests.databases import Database
from tests.integration.conftest import NewBucket

ROOT = Path(__file__).parents[2]
WEEKS = Week(2026, 4).window(4)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    for name in ("ROIFLOW_DATA_FOLDER", "ROIFLOW_SQL"):
        monkeypatch.delenv(name, raising=False)


def check(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["check", *arguments])


def of_rows(text: str) -> list[str]:
    """What is said about the rows, whatever the place is called."""
    start, end = text.index("rows by week"), text.index("a run would")
    return [re.sub(r"\s+", " ", line) for line in text[start:end].splitlines()]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_template(tmp_path / "example", WEEKS)
    return tmp_path / "example"


def filled(database: Database, cost: int | None = None) -> None:
    """The public schema's tables with the example's rows, one of them with another cost."""
    for name, schema in SCHEMAS.items():
        tables = [example(week)[name] for week in WEEKS]
        rows = pa.concat_tables(tables)
        for number, column in enumerate(rows.schema):
            if pa.types.is_timestamp(column.type):
                rows = rows.set_column(number, column.name, rows[column.name].cast(pa.int64()))
        listed = rows.to_pylist()
        if name == "impressions" and cost is not None:
            listed[-1][c.COST] = cost
        fields = schema if name != "users" else tables[0].schema
        database.execute(f"DROP TABLE IF EXISTS public.{name}")
        database.create(("public", name), fields, listed)


def test_a_database_says_what_the_folder_says(
    postgres: Database, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(postgres)
    monkeypatch.setenv("ROIFLOW_SQL", postgres.uri)
    found = check()
    assert found.exit_code == 0, found.output
    assert "make demo SOURCE=sql WEEK=2026-W04, with ROIFLOW_SQL set" in found.output
    assert of_rows(found.output) == of_rows(check(str(here)).output)


def test_a_row_of_a_database_is_named_by_its_table_and_key(postgres: Database) -> None:
    filled(postgres, cost=-7)
    found = check(postgres.uri)
    assert found.exit_code == 1
    for text in ("public.impressions", "impression_id '2026-W04-11:2'", "cost_micros: -7"):
        assert text in found.output
    assert postgres.uri not in found.output


def test_a_bucket_says_what_the_folder_says(new_bucket: NewBucket, here: Path) -> None:
    url = f"s3://{new_bucket()}/shop/lake"
    folder = Files(url).folder
    for path in here.rglob("*.csv"):
        with folder.files.open_output_stream(f"{folder.root}/{path.relative_to(here)}") as stream:
            stream.write(path.read_bytes())
    found = check(url)
    assert found.exit_code == 0, found.output
    assert of_rows(found.output) == of_rows(check(str(here)).output)
