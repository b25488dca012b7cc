"""What `roiflow features` shows."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from roiflow.artefacts.parity import Example, Fault, FeatureFinding
from roiflow.cli import main as cli
from roiflow.cli.features import features_table, package_table
from roiflow.features.spec import SPECS
from tests.records import compared

ROOT = Path(__file__).parents[3]


def shown(table: Table) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(table)
    return out.getvalue()


def test_every_feature_of_params_yaml_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "250")
    text = CliRunner().invoke(cli.app, ["features", "list"]).output
    assert f"{len(SPECS)} dense features" in text
    for spec in SPECS:
        (line,) = (line for line in text.splitlines() if f" {spec.name} " in line)
        assert spec.unit in line
    for words in ({spec.owner for spec in SPECS}, ("pre-selection", "ranker", "policy")):
        assert all(word in text for word in words)


def test_names_are_whole_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(cli.app, ["features", "list"]).output
    assert [spec.name for spec in SPECS if f" {spec.name} " not in text] == []


def test_differences_are_told_by_feature() -> None:
    package = compared(
        compared=1000,
        different=1001,
        sampled=1002,
        not_final=1003,
        ahead=1004,
        degraded=1005,
        not_kept=1006,
        stale_share=0.0125,
        fault=Fault("dropped hour", 0.98, "2026-01-14T13:00 UTC", {"dropped hour": 0.98}),
        features=(
            FeatureFinding("ad_ctr_56d", 12, 5, 0.125, (Example("r7", "a3", 1, 0.5, 0.375),)),
            FeatureFinding(
                "log_hours_since_behaviour", 1, 1, "inf", (Example("r9", "", -1, "nan", 1.0),)
            ),
        ),
    )
    text = shown(package_table(package))
    assert "dropped hour: 2026-01-14T13:00 UTC, explains 98 %" in text
    assert "1.25 %" in text
    assert "1,006" in text
    first, second = (line for line in shown(features_table(package)).splitlines() if "│ r" in line)
    cells = [cell.strip() for cell in first.strip("│").split("│")]
    assert cells == ["ad_ctr_56d", "5", "12", "0.125", "r7", "a3", "0.5", "0.375"]
    cells = [cell.strip() for cell in second.strip("│").split("│")]
    assert cells[3:] == ["inf", "r9", "-", "nan", "1"]
