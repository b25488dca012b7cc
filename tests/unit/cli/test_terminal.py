"""Where a command is called from makes no difference to what it finds."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roiflow.cli import main as cli
from roiflow.deployment import processes

SOURCE = Path(cli.__file__).parent


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a subfolder and a run's checkout in its home."""
    monkeypatch.delenv("ROIFLOW_HOME", raising=False)
    main = tmp_path / "main"
    (main / "docs").mkdir(parents=True)
    (main / "dvc.yaml").write_text("stages: {}\n")
    git(main, "init", "-q")
    git(main, "add", "dvc.yaml")
    git(main, "commit", "-qm", "start")
    git(main, "worktree", "add", "-q", "--detach", ".roiflow/runs/simulator-2026-W04")
    return main


def test_no_command_asks_the_environment_on_its_own() -> None:
    asking = [path.name for path in SOURCE.glob("cli*.py") if "Settings()" in path.read_text()]
    assert asking == []


@pytest.mark.parametrize("folder", ["docs", ".roiflow/runs/simulator-2026-W04"])
def test_down_from_a_folder_inside_ends_what_was_started(
    repository: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    port = processes.free_port()
    server = processes.Server(
        "web",
        (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"),
        f"http://127.0.0.1:{port}",
        processes.port_ready(port),
    )
    home = repository / ".roiflow"
    processes.start([server], home)
    try:
        monkeypatch.chdir(repository / folder)
        done = CliRunner().invoke(cli.app, ["down"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "web" in done.output
        assert processes.running(home) == {}
    finally:
        processes.stop_all(home)
