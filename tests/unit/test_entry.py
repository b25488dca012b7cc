"""A program ends with one line on what a disk or a server does, and with a traceback on a bug."""

import errno
import os
import socket
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from roiflow.entry import exit_on_expected, line_of
from roiflow.errors import PackageError


def ended(error: BaseException) -> str:
    with pytest.raises(SystemExit) as end, exit_on_expected():
        raise error
    return str(end.value.code)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_our_own_errors_say_what_they_say() -> None:
    assert ended(PackageError("/p: no manifest.json")) == "PackageError: /p: no manifest.json"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EACCES, "change owner or mode"),
        (errno.EROFS, "ROIFLOW_HOME"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOENT, "check the name"),
    ],
)
def test_what_a_disk_does_names_the_path_and_the_remedy(number: int, words: str) -> None:
    line = ended(OSError(number, os.strerror(number), "/lake/part-0.parquet"))
    assert f"/lake/part-0.parquet: {os.strerror(number)}: " in line
    assert words in line
    assert "\n" not in line


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    import subprocess

    with pytest.raises(SystemExit) as end, exit_on_expected():
        subprocess.run([str(tmp_path / "nginx")], check=True)
    assert str(end.value.code).startswith(f"FileNotFoundError: {tmp_path / 'nginx'}: No such file")


def test_a_file_that_is_no_parquet_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 no more PAR2")
    with pytest.raises(SystemExit) as end, exit_on_expected():
        pq.read_table(tmp_path / "part-0.parquet")
    assert str(end.value.code).startswith("ArrowInvalid: ")
    assert "check this file" in str(end.value.code)


def test_a_server_that_is_away_is_named_with_its_address() -> None:
    import httpx
    import redis

    port = free_port()
    with pytest.raises(SystemExit) as end, exit_on_expected():
        httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    assert str(end.value.code).startswith(f"ConnectError: http://127.0.0.1:{port}/readyz: ")
    assert "roiflow status" in str(end.value.code)
    with pytest.raises(SystemExit) as end, exit_on_expected():
        redis.Redis(port=port).ping()
    assert f"{port}" in str(end.value.code)
    with pytest.raises(SystemExit) as end, exit_on_expected():
        socket.create_connection(("127.0.0.1", port))
    assert "no server answers there" in str(end.value.code)


@pytest.mark.parametrize("bug", [KeyError("week"), TypeError("no"), ValueError("no"), IndexError()])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug)), exit_on_expected():
        raise bug


def test_ctrl_c_is_no_traceback() -> None:
    with pytest.raises(SystemExit) as end, exit_on_expected():
        raise KeyboardInterrupt
    assert end.value.code == 130


def test_an_error_without_number_on_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    short = OSError("4000 requested and 100 written")
    assert "the disk is full" not in line_of(short)
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 0}))
    assert "the disk is full" in line_of(short)
