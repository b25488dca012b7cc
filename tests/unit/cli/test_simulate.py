"""Which command a call of `roiflow simulate` is."""

import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from roiflow.cli import main as cli
from roiflow.errors import SourceError
from tests.worlds import planted_content


def said(*arguments: str) -> str:
    return CliRunner().invoke(cli.app, ["simulate", *arguments]).output


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["2026-W01"], "roiflow simulate weeks"),
        (["2026-W01", "--weeks", "0"], "roiflow simulate weeks"),
        (["weeks"], "roiflow simulate weeks"),
        (["--weeks", "0", "--loop"], "roiflow simulate loop"),
        (["--loop", "--weeks", "0"], "roiflow simulate loop"),
        (["loop", "--weeks", "0"], "roiflow simulate loop"),
        (["calibrate"], "roiflow simulate calibrate"),
        (["fidelity", "--help"], "roiflow simulate fidelity"),
        (["--help"], "roiflow simulate [OPTIONS] COMMAND"),
        ([], "roiflow simulate [OPTIONS] COMMAND"),
    ],
)
def test_it_is_weeks_unless_named_or_a_loop(arguments: list[str], usage: str) -> None:
    printed = said(*arguments).replace("root ", "roiflow ")
    assert f"Usage: {usage}" in printed


def test_an_unknown_log_is_named() -> None:
    with pytest.raises(SourceError, match=r"log nothing: neither one of kuairand.* nor a folder"):
        CliRunner().invoke(
            cli.app, ["simulate", "calibrate", "--log", "nothing"], catch_exceptions=False
        )


def test_a_public_log_needs_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROIFLOW_DATA_FOLDER", raising=False)
    with pytest.raises(SourceError, match=r"log trivago: ROIFLOW_DATA_FOLDER must name the folder"):
        CliRunner().invoke(
            cli.app, ["simulate", "fidelity", "--log", "trivago"], catch_exceptions=False
        )


def test_the_truth_of_a_week_is_told_by_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = planted_content()
    content["ingest"]["simulator"]["synthetic"] |= {"users": 100, "ads": 16, "categories": 4}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "dvc.yaml").touch()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    lines = said("truth", "2026-W02", "--draws", "2").splitlines()
    rows = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    value = {row[0].strip(): float(row[5].split("±")[0].replace(",", "")) for row in rows}
    assert list(value) == ["random", "logging", "clicks", "oracle"]
    assert max(value.values()) == value["oracle"] > value["clicks"]
    assert ["±" in row[5] for row in rows] == [True, True, False, False]
