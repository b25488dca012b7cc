"""How a stage or a job is called, and what its --help says."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import pytest
from docs.layout import ROOT

from roiflow.errors import SourceError
from roiflow.stages.arguments import MEANINGS, Written, described
from roiflow.stages.command import parser, run

CALLED = sorted(
    f"roiflow.{kind}.{path.stem}"
    for kind in ("stages", "jobs")
    for path in (ROOT / "src/roiflow" / kind).glob("*.py")
    if "    run(main)\n" in path.read_text()
)


def sample(
    features: Path,
    version: int,
    ranker: Written,
    roi: Annotated[Written, "100 % of its own words"],
    week: str = "2026-W04",
) -> None:
    """What it does."""
    if version == 13:
        raise SourceError("version 13: refused")
    print(features, version + 1, ranker, roi, week)


def test_every_stage_and_some_jobs_are_found() -> None:
    assert {"roiflow.stages.ingest", "roiflow.jobs.deploy"} <= set(CALLED)
    assert len(CALLED) >= 20


@pytest.mark.parametrize("module", CALLED)
def test_help_says_what_every_argument_is(module: str) -> None:
    main = import_module(module).main
    text = parser(main).format_help()
    assert str(main.__doc__).partition("\n")[0] in text
    for parameter, kind, meaning in described(main):
        words = meaning.removeprefix("read: ").removeprefix("written: ")
        assert len(words) > 8, f"{module}: {parameter.name}: say what it is, or add it to MEANINGS"
        assert kind in (Path, str, int)


def test_no_meaning_is_left_over() -> None:
    used = {one.name for module in CALLED for one, *_ in described(import_module(module).main)}
    assert set(MEANINGS) <= used


def test_meaning_comes_from_the_table_or_from_beside_the_parameter() -> None:
    found = {one.name: (kind, said) for one, kind, said in described(sample)}
    assert found == {
        "features": (Path, f"read: {MEANINGS['features']}"),
        "version": (int, MEANINGS["version"]),
        "ranker": (Path, f"written: {MEANINGS['ranker']}"),
        "roi": (Path, "written: 100 % of its own words"),
        "week": (str, MEANINGS["week"]),
    }


def test_help_shows_words_as_they_are() -> None:
    text = parser(sample).format_help()
    assert "100 % of its own words" in text
    assert "What it does." in text


def called(*argv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["name", *argv])
    run(sample)


def test_arguments_are_what_their_types_say(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called("a", "2", "b", "c", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == "a 3 b c 2026-W04\n"
    called("a", "2", "b", "c", "2026-W05", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == "a 3 b c 2026-W05\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("a", "2"), "the following arguments are required: RANKER, ROI"),
        (("a", "b", "c", "d"), "argument VERSION: invalid int value: 'b'"),
        (("a", "2", "b", "c", "d", "e"), "unrecognized arguments: e"),
    ],
)
def test_a_command_line_that_does_not_fit_is_usage_and_exit_2(
    argv: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        called(*argv, monkeypatch=monkeypatch)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: python -m ")
    assert said in shown


def test_an_expected_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        called("a", "13", "b", "c", monkeypatch=monkeypatch)
    assert ended.value.code == "SourceError: version 13: refused"


def test_help_from_a_shell_names_the_module() -> None:
    command = [sys.executable, "-m", "roiflow.stages.validate", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m roiflow.stages.validate ")
    assert "written: folder of the rows set aside" in done.stdout


def test_arguments_import_nothing_heavy() -> None:
    code = "import sys, roiflow.stages.command; print('typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
