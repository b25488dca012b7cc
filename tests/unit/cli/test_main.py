"""The command line, without a server."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from roiflow.cli import main as cli
from roiflow.cli.terminal import here
from roiflow.data import lake
from roiflow.data.weeks import Week
from roiflow.errors import RegistryError, RunError, UnknownWeek
from tests.worlds import planted_content

ROOT = Path(__file__).parents[3]
COMMANDS = [
    "demo", "up", "down", "status", "simulate", "stream", "pull", "report", "prove", "approve",
    "leaderboard",
]  # fmt: skip
SMALL = {"users": 40, "ads": 12, "categories": 3}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a small world; the current folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    content = planted_content()
    content["ingest"]["simulator"]["synthetic"] |= SMALL
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    (folder / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ROIFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ROIFLOW_DATA_FOLDER", raising=False)
    monkeypatch.delenv("ROIFLOW_MLFLOW_URI", raising=False)
    return folder


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_help_lists_every_command_and_each_teaches() -> None:
    listed = call("--help")
    for command in COMMANDS:
        assert f" {command} " in listed
        assert "Usage:" in call(command, "--help")


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'pandas', 'pyarrow', 'mlflow', 'torch', 'evidently', 'airflow', 'yaml'}"
    code = (
        "import sys; from typer.testing import CliRunner; from roiflow.cli import main; "
        f"CliRunner().invoke(main.app, ['--help']); print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_expected_failure_is_one_line(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "roiflow.cli.main", "pull", "simulator", "2025-W01", "out"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "UnknownWeek: week 2025-W01: the simulator holds weeks from 2026-W01 on"
    ]


def test_simulated_weeks_are_written_and_equal_for_equal_numbers(repository: Path) -> None:
    call("simulate", "2026-W01", "one", "--weeks", "2")
    call("simulate", "2026-W01", "two", "--weeks", "2")
    written = sorted(path.relative_to("one") for path in Path("one").rglob("*.parquet"))
    assert len(written) == 5 * 2
    for path in written:
        assert ("one" / path).read_bytes() == ("two" / path).read_bytes()


def test_a_pulled_week_is_the_source_s(repository: Path) -> None:
    said = call("pull", "simulator", "2026-W01", "pulled")
    call("simulate", "2026-W01", "world")
    week = Week.parse("2026-W01")
    pulled = lake.read(Path("pulled"), "impressions", week)
    assert pulled.num_rows > 0
    assert pulled.equals(lake.read(Path("world"), "impressions", week))
    assert f"{pulled.num_rows:,}" in said


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["simulate", "2026-W99", "out"], UnknownWeek, "2026-W99"),
        (["simulate", "2026-W05", "--served"], RunError, "simulator-2026-W04: no finished run"),
        (["report"], RunError, "no finished run.*roiflow demo --source simulator"),
        (["report", "--source", "files"], RunError, "no finished run.*demo --source files"),
    ],
)
def test_a_wrong_request_is_named(
    repository: Path, arguments: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert not Path("out").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_version_that_is_not_there_cannot_be_proven(repository: Path) -> None:
    with pytest.raises(RegistryError, match="ad_ranker_simulator version 7"):
        CliRunner().invoke(cli.app, ["prove", "7"], catch_exceptions=False)


def test_a_folder_is_needed_without_served(repository: Path) -> None:
    done = CliRunner().invoke(cli.app, ["simulate", "2026-W01"])
    assert done.exit_code == 2
    assert "name a folder, or --served" in done.output


def test_outside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="not a git repository"):
        CliRunner().invoke(cli.app, ["down"], catch_exceptions=False)
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(RunError, match=r"no dvc\.yaml: run this inside the repository"):
        CliRunner().invoke(cli.app, ["down"], catch_exceptions=False)


def test_every_folder_of_the_repository_has_the_same_home(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROIFLOW_HOME", "kept/here")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "add", "--all"], check=True)
    subprocess.run(["git", *identity, "commit", "--quiet", "--message", "all"], check=True)
    checkout = repository / "kept" / "here" / "runs" / "simulator-2026-W01"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", checkout], check=True)
    for folder in (repository, repository / "sub" / "folder", checkout):
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        assert here()[1].home == repository / "kept" / "here"
    monkeypatch.setenv("ROIFLOW_HOME", "/elsewhere")
    assert here()[1].home == Path("/elsewhere")


def test_down_with_nothing_running(repository: Path) -> None:
    assert "nothing was running" in call("down")
