"""What `roiflow check` prints and how it ends."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roiflow import columns as c
from roiflow.cli import main as cli
from roiflow.data import lake
from roiflow.errors import SourceError
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    for name in ("ROIFLOW_DATA_FOLDER", "ROIFLOW_SQL"):
        monkeypatch.delenv(name, raising=False)


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["check", *map(str, arguments)])


def test_the_example_passes_and_nothing_else_is_written(tmp_path: Path) -> None:
    written = check("--template", tmp_path / "new")
    assert written.exit_code == 0
    assert f"roiflow check {tmp_path / 'new'}" in written.output
    before = sorted(tmp_path.rglob("*"))
    found = check(tmp_path / "new")
    assert found.exit_code == 0, found.output
    assert "a run would go on: make demo SOURCE=files WEEK=2026-W04" in found.output
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check("--template", tmp_path / "new")
    monkeypatch.setenv("ROIFLOW_DATA_FOLDER", str(tmp_path / "new"))
    assert check().exit_code == 0
    older = check("--week", "2026-W03")
    assert older.exit_code == 1
    assert "3 of the 4 weeks that end with 2026-W03 are there" in older.output


def test_without_a_place_it_says_how_to_name_one() -> None:
    found = check()
    assert isinstance(found.exception, SourceError)
    assert "roiflow check FOLDER, or set ROIFLOW_DATA_FOLDER" in str(found.exception)


def test_a_bad_week_ends_with_1_and_names_row_value_and_what_is_right(tmp_path: Path) -> None:
    rows = worlds.week_rows("impressions", SECOND)
    rows[3][c.PROPENSITY] = 1.5
    changed = {("impressions", SECOND): worlds.table("impressions", rows)}
    found = check(worlds.write(tmp_path, changed))
    assert found.exit_code == 1
    for text in (
        "week=2026-W04/part-0.parquet, row 4",
        "impression_id '2026-W04-i3'",
        "propensity: 1.5",
        "right: over 0 and at most 1",
        "1 of 10 rows of impressions in 2026-W04 are set aside, over 1.00%",
        "2 of the 4 weeks that end with 2026-W04 are there",
    ):
        assert text in found.output


def test_a_week_without_a_table_says_which(tmp_path: Path) -> None:
    root = worlds.write(tmp_path)
    shutil.rmtree(root / "conversions" / f"week={SECOND}")
    shutil.rmtree(root / "behaviours" / f"week={FIRST}")
    found = check(root)
    assert found.exit_code == 1
    assert "there is no whole week: a week needs impressions, behaviours and conv" in found.output
    rows = [line for line in found.output.splitlines() if "conversions" in line and "W03" in line]
    assert rows
    assert "2026-W04" in rows[0]
    named = check(root, "--week", str(SECOND))
    assert "2026-W04 is not there as a whole" in named.output


def test_brackets_in_a_name_are_no_markup(tmp_path: Path) -> None:
    rows = worlds.week_rows("ads", SECOND)
    rows[1] |= {c.AD: "[bold]a", c.PRICE: -1}
    root = worlds.write(tmp_path / "[red]")
    lake.write(root, "ads", SECOND, worlds.table("ads", rows))
    assert "ad_id '[bold]a'" in check(root).output
