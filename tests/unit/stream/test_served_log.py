"""The served-event log: whole records only, whatever ends the process."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roiflow.data import schemas
from roiflow.errors import ContractError, ServiceError
from roiflow.stream.events import Click, Conversion, Shown, Slate
from roiflow.stream.served_log import EventLog, read, segments

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


def log(folder: Path, **options: float) -> EventLog:
    return EventLog(folder, **options)  # type: ignore[arg-type]


def test_rows_follow_the_contract(tmp_path: Path) -> None:
    writer = log(tmp_path)
    writer.append(slate(0))
    writer.append(slate(1, ads=3))
    writer.append(click("r1:3", 1500, 1600))
    writer.append(
        Conversion(impression_id="r1:3", revenue_micros=5_000, event_time=1700, known_time=1800)
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
    writer = log(tmp_path)
    for number in range(10):
        writer.append(slate(number, ads=1))
    writer.append(click("r3:1", 1500, 5000))
    writer.close()
    early = read(tmp_path, 1002, 1005)["impressions"]
    assert early["request_id"].to_pylist() == ["r2", "r3", "r4"]
    assert not any(early["clicked"].to_pylist())  # the click is not known yet


def test_an_empty_log_has_no_rows(tmp_path: Path) -> None:
    assert len(read(tmp_path / "none", 0, FOREVER)["impressions"]) == 0
    log(tmp_path).close()
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 0


def test_a_full_segment_is_sealed_and_the_next_opened(tmp_path: Path) -> None:
    writer = log(tmp_path, buffer_bytes=1, segment_bytes=500)
    for number in range(10):
        writer.append(slate(number))
    names = [path.suffix for path in segments(tmp_path)]
    assert len(names) > 3
    assert names[:-1] == [".jsonl"] * (len(names) - 1)
    assert names[-1] == ".open"
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 20


def test_a_torn_line_is_not_a_row(tmp_path: Path) -> None:
    writer = log(tmp_path)
    writer.append(slate(0))
    writer.flush()
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
        log(tmp_path / "file" / "log")


def test_a_record_is_flushed_within_the_second(tmp_path: Path) -> None:
    now = [0.0]
    writer = EventLog(tmp_path, clock=lambda: now[0])
    writer.append(slate(0))
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 0
    now[0] = 1.0
    writer.append(slate(1))
    assert len(read(tmp_path, 0, FOREVER)["impressions"]) == 4


def test_what_cannot_be_written_is_refused_and_the_log_goes_on(tmp_path: Path) -> None:
    writer = log(tmp_path)
    path = segments(tmp_path)[0]
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limit[1]))
        writer._buffer_bytes = 1
        with pytest.raises(ServiceError, match="cannot be written"):
            writer.append(slate(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    writer.append(slate(1))
    writer.close()
    assert read(tmp_path, 0, FOREVER)["impressions"]["request_id"].to_pylist() == ["r1", "r1"]


WRITER = """
import sys
from pathlib import Path
from tests.unit.stream.test_served_log import log, slate
writer = log(Path(sys.argv[1]), buffer_bytes=int(sys.argv[2]), segment_bytes=20_000)
number = 0
while True:
    writer.append(slate(number))
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("buffer_bytes", [1, 2_000])
def test_a_killed_process_loses_at_most_its_buffer(tmp_path: Path, buffer_bytes: int) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(buffer_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        lines = [child.stdout.readline() for _ in range(200)]
        os.kill(child.pid, signal.SIGKILL)
        lines += child.stdout.readlines()
    told = int([line for line in lines if line.endswith("\n")][-1])
    requests = read(tmp_path, 0, FOREVER)["impressions"]["request_id"].to_pylist()
    kept = len(requests) // 2
    assert kept >= told - buffer_bytes // 200 - 1  # a record has over 200 bytes
    assert requests == [f"r{number}" for number in range(kept) for _ in range(2)]
