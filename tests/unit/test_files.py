"""Atomic writes."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from roiflow import files
from roiflow.files import write_directory, write_file

WRITER = """
import sys, time
from pathlib import Path
from roiflow.files import {kind}
with {kind}(Path(sys.argv[1])) as aside:
    (aside / "half" if aside.is_dir() else aside).write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with write_file(path) as aside:
        aside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert only(path.parent) == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with write_file(path) as aside:
            aside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert only(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for content in ("first", "second"):
        with write_directory(path) as aside:
            (aside / content).touch()
    assert only(path) == ["second"]
    assert only(tmp_path) == ["data"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_put_in_place_in_one_step_where_the_system_can(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was there before under the name aside, and then gone."""
    path, seen = tmp_path / "data", list[list[str]]()
    exchange = files._exchanged

    def watched(one: Path, other: Path) -> bool:
        done = exchanges and exchange(one, other)
        seen.append(only(one))
        return done

    monkeypatch.setattr(files, "_exchanged", watched)
    for content in ("first", "second"):
        with write_directory(path) as aside:
            (aside / content).touch()
    assert seen == [["first"] if exchanges else ["second"]]
    assert (only(path), only(tmp_path)) == (["second"], ["data"])


def test_a_reader_always_finds_a_folder(tmp_path: Path) -> None:
    path, ended, missed = tmp_path / "data", threading.Event(), list[OSError]()

    def read() -> None:
        while not ended.is_set():
            try:
                (path / "number").read_text()
            except OSError as error:
                missed.append(error)

    def write(number: int) -> None:
        with write_directory(path) as aside:
            (aside / "number").write_text(str(number))

    write(0)
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        write(number)
    ended.set()
    reader.join()
    assert not missed


def test_all_of_it_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "data", list[tuple[str, bool]]()
    monkeypatch.setattr(files, "_sync", lambda one: synced.append((one.name, path.exists())))
    with write_directory(path) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "a").touch()
        name = aside.name
    assert {(name, False), ("deep", False), ("a", False), (tmp_path.name, True)} == set(synced)


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir()
    (path / "old").touch()

    def fail() -> None:
        with write_directory(path) as aside:
            (aside / "half").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert only(path) == ["old"]
    assert only(tmp_path) == ["data"]


@pytest.mark.parametrize("kind", ["write_file", "write_directory"])
class TestKilledWriters:
    """What a killed writer leaves goes with the next write; what a living one writes stays."""

    def started(self, kind: str, path: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER.format(kind=kind), str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        return process

    def ended(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def write(self, kind: str, path: Path) -> None:
        if kind == "write_file":
            with write_file(path) as aside:
                aside.write_text("whole")
        else:
            with write_directory(path) as aside:
                (aside / "whole").touch()

    def test_leftovers_go_and_living_writers_stay(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "week=2026-W04 [new]"
        beside = tmp_path / ".week=2026-W04 n.12345678.part"
        beside.touch()
        living = self.started(kind, path)
        try:
            kept = only(tmp_path)
            killed = self.started(kind, path)
            self.ended(killed)
            assert len(only(tmp_path)) == 3
            self.write(kind, path)
            assert only(tmp_path) == sorted([*kept, path.name])
        finally:
            self.ended(living)
        self.write(kind, path)
        assert only(tmp_path) == sorted([beside.name, path.name])

    def test_writers_at_once_take_nothing_from_each_other(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "data"
        code = (
            "import sys\nfrom pathlib import Path\nfrom roiflow.files import write_file\n"
            "for n in range(200):\n"
            "    with write_file(Path(sys.argv[1])) as aside:\n"
            "        aside.write_text(str(n))\n"
        )
        writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
        assert [writer.wait() for writer in writers] == [0, 0, 0]
        assert path.read_text() == "199"
        assert only(tmp_path) == ["data"]


def test_a_full_disk_names_what_was_written(tmp_path: Path) -> None:
    def fill(error: OSError) -> None:
        with write_file(tmp_path / "part-0.parquet"):
            raise error

    with pytest.raises(OSError, match=r"No space left on device: '.*part-0\.parquet'") as caught:
        fill(OSError(errno.ENOSPC, "Error writing bytes to file"))
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="Input/output"):
        fill(OSError(errno.EIO, os.strerror(errno.EIO)))
    assert only(tmp_path) == []


def test_a_disk_without_locks_is_written_and_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    (tmp_path / ".data.12345678.part").touch()
    with write_file(tmp_path / "data") as aside:
        aside.write_text("whole")
    assert only(tmp_path) == [".data.12345678.part", "data"]
