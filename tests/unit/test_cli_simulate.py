"""Which command a call of `roiflow simulate` is."""

import pytest
from typer.testing import CliRunner

from roiflow import cli
from roiflow.errors import SourceError


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
