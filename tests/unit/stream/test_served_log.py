"""The served-event log: whole records only, whatever ends the process."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from roiflow.data import schemas
from roiflow.errors import ContractError, ServiceError
from roiflow.stream.events import Click, Conversion, Shown, Slate
from roiflow.stream.served_log import EventLog, read, segments
from tests.full_disk import no_file_over, small_disk

FOREVER = 1 << 60


def slate(number: int, ads: int = 2, at: int = 1000) -> Slate:
    shown = [Shown(f"ad{place}", 100 * (place + 1), 0.5, 0.1, 7.0) for place in range(ads)]
    return Slate(
        request_id=f"r{number}",
        user_id="ann",
        event_time=at,
        known_time=at + number,
        placement="top",
        device="phone",
        arm="stable",
        degraded=False,
        policy_version="v1",
        impression_share=0.1,
        click_share=0.5,
        conversion_share=0.25,
        ads=shown,
    )


def click(impression: str, at: int, known: int) -> Click:
    return Click(impression_id=impression, event_time=at, known_time=known)


def test_rows_follow_the_contract(tmp_path: Path) -> None:
    writer = EventLog(tmp_path)
    writer.write([slate(0)])
    writer.write([slate(1, ads=3)])
    writer.write([click("r1:3", 1500, 1600)])
    writer.write(
        [Conversion(impression_id="r1:3", revenue_micros=5_000, event_time=1700, known_time=1800)]
    )
    writer.close()
    tables = read(tmp_path, 0, FOREVER)
    impressions, conversions = tables["impressions"], tables["conversions"]
    assert impressions.schema == schemas.IMPRESSIONS
    assert conversions.schema == schemas.CONVERSIONS
    assert impressions["impression_id"].to_pylist() == ["r0:1", "r0:2", "r1:1", "r1:2", "r1:3"]
    assert impressions["position"].to_pylist() == [1, 2, 1, 2, 3]
    assert impressions["slate_size"].to_pylist() == [2, 2, 3, 3, 3]
    assert impressions["clicked"].to_pylist() == [False] * 4 + [True]
    # bid x (0.1 + 0.5 clicked + 0.25 converted)
    assert impressions["cost_micros"].to_pylist() == [10, 20, 10, 20, 255]
    assert set(impressions["policy_version"].to_pylist()) == {"v1"}
    assert conversions["revenue_micros"].to_pylist() == [5_000]


def test_a_window_takes_what_became_known_in_it(tmp_path: Path) -> None:
    writer = EventLog(tmp_path)
    for number in range(10):
        writer.write([slate(number, ads=1)])
    writer.write([click("r3:1", 1500, 5000)])
    writer.close()
    early = read(tmp_path, 1002, 1005)["impressions"]
    assert early["request_id"].to_pylist() == ["r2", "r3", "r4"]
    assert not any(early["clicked"].to_pylist())  # the click is not known yet


def test_an_empty_log_has_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path / "none", 0, FOREVER)["impressions"]) == 0
    EventLog(tmp_path).close()
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 0


def test_a_full_segment_is_sealed_and_the_next_opened(tmp_path: Path) -> None:
    writer = EventLog(tmp_path, segment_bytes=500)
    for number in range(10):
        writer.write([slate(number)])
    names = [path.suffix for path in segments(tmp_path)]
    assert len(names) > 3
    assert names[:-1] == [".jsonl"] * (len(names) - 1)
    assert names[-1] == ".open"
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 20


def test_a_torn_line_is_not_a_row(tmp_path: Path) -> None:
    writer = EventLog(tmp_path)
    writer.write([slate(0)])
    path = segments(tmp_path)[0]
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(whole), 7):
        path.write_bytes(whole[:cut])
        assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 0
    path.write_bytes(whole)
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 2


def test_a_foreign_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"kind": 7}\n')
    with pytest.raises(ContractError, match=r"x\.jsonl: not a served-event segment"):
        read(tmp_path, 0, FOREVER)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="file/log"):
        EventLog(tmp_path / "file" / "log")


def test_what_was_written_is_there_for_others_at_once(tmp_path: Path) -> None:
    writer = EventLog(tmp_path)
    for number in range(3):
        writer.write([slate(number)])
        assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 2 * (number + 1)


@pytest.mark.parametrize("room", [0, 100], ids=["nothing", "a torn line"])
def test_what_cannot_be_written_is_refused_and_the_log_goes_on(tmp_path: Path, room: int) -> None:
    writer = EventLog(tmp_path)
    writer.write([slate(0)])
    with no_file_over(segments(tmp_path)[0].stat().st_size + room):
        with pytest.raises(ServiceError, match="cannot be written: File too large"):
            writer.write([slate(1)])
        for _ in range(3):
            with pytest.raises(ServiceError, match="cannot be written"):
                writer.check()
        assert len(segments(tmp_path)) == 1  # no empty one is left of each try
    writer.check()
    writer.write([slate(2)])
    writer.close()
    found = read(tmp_path, 0, FOREVER)["impressions"]["request_id"].to_pylist()
    assert found == ["r0", "r0", "r2", "r2"]
    assert b"".join(path.read_bytes() for path in segments(tmp_path)).count(b"\n") == 2


def test_a_connection_never_gets_the_logs_lines(tmp_path: Path) -> None:
    """The folder goes away, so that the full segment can be sealed no more and has no next one.

    A log that closes its segment first and keeps the number writes into what is opened next.
    """
    folder = tmp_path / "served"
    writer = EventLog(folder, segment_bytes=1)
    folder.rename(tmp_path / "gone")
    with suppress(ServiceError):
        writer.write([slate(0)])
    connections = [socket.socketpair() for _ in range(4)]  # these get the free numbers
    for number in range(1, 4):
        with suppress(ServiceError):
            writer.write([slate(number)])
    for client, server in connections:
        server.close()
        assert client.recv(1 << 16) == b""
        client.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def test_a_full_disk_ends_neither_the_log_nor_a_connection(disk: Path) -> None:
    folder = disk / "served"
    writer = EventLog(folder, segment_bytes=2_000)
    taken, reasons, connections = [], set(), []
    for number in range(310):
        try:
            writer.write([slate(number)])
            taken.append(f"r{number}")
        except ServiceError as error:
            reasons.add(str(error).rpartition(": ")[2])
            connections.append(socket.socketpair())
        if number == 300:  # somebody takes complete segments away
            for path in folder.glob("*.jsonl"):
                shutil.move(path, disk.parent)
    writer.close()
    assert reasons == {"No space left on device"}
    assert taken[-1] == "r309"  # of itself, once there is room
    for client, server in connections:
        server.close()
        assert client.recv(1 << 16) == b""
        client.close()
    found = read(disk.parent, 0, FOREVER)["impressions"]["request_id"].to_pylist()
    assert found == [name for name in taken for _ in range(2)]


WRITER = """
import sys
from pathlib import Path
from roiflow.stream.served_log import EventLog
from tests.unit.stream.test_served_log import slate
writer = EventLog(Path(sys.argv[1]), segment_bytes=20_000)
number = 0
while True:
    writer.write([slate(number)])
    number += 1
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        lines = [child.stdout.readline() for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.readlines()
    told = int([line for line in lines if line.endswith("\n")][-1])
    requests = read(tmp_path, 0, FOREVER)["impressions"]["request_id"].to_pylist()
    kept = len(requests) // 2
    assert kept >= told
    assert requests == [f"r{number}" for number in range(kept) for _ in range(2)]
