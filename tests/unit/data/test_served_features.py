"""Which slates parity is checked on, from either lake."""

from pathlib import Path

import msgspec
import pyarrow as pa

from roiflow.data import event_lake, served_features
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.stream import rows
from roiflow.stream.events import Slate
from tests.unit.stream.streams import click, slate

WEEK = Week.parse("2026-W04")


def served(name: str, time: int, known: int, **evidence: object) -> Slate:
    return msgspec.structs.replace(slate(name, "u1", ["a1", "a2"], time, known), **evidence)


def test_the_streams_slates_are_those_requested_in_the_week(tmp_path: Path) -> None:
    """Also where they become known in the next one; clicks and the like are left out."""
    made = {"as_of": WEEK.start - 7, "features": "0123456789abcdef", "vector": b"\x00\xff"}
    start, end = WEEK.start, WEEK.end
    events = rows.table(
        [
            served("before", start - 1, start + 5, **made),
            served("r2", start + MICROS_PER_HOUR, start + MICROS_PER_HOUR + 1, **made),
            served("r1", start, start + 9, as_of=3, features="f"),
            served("degraded", start + 1, start + 9),
            served("late", end - 1, end + 2, **made),
            served("after", end, end + 3, **made),
            click("r1:1", start + 5, start + 10),
        ]
    )
    event_lake.write(tmp_path, 1, events)
    found = served_features.read(tmp_path, "stream", WEEK)
    assert found is not None
    assert found.schema == served_features.SERVED
    assert found["request_id"].to_pylist() == ["r1", "degraded", "r2", "late"]
    assert found["ads"].to_pylist() == [["a1", "a2"]] * 4
    assert found["as_of"].to_pylist() == [3, None, start - 7, start - 7]
    assert found["vector"].to_pylist() == [None, None, b"\x00\xff", b"\x00\xff"]
    assert served_features.read(tmp_path, "stream", WEEK.plus(5)) is None


def test_a_kept_week_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert served_features.read(tmp_path, "simulator", WEEK) is None
    table = served_features.SERVED.empty_table()
    served_features.write(tmp_path, "simulator", WEEK, table)
    assert served_features.read(tmp_path, "simulator", WEEK) is None
    row = {
        "request_id": ["r"], "user_id": ["u"], "event_time": pa.array([WEEK.start + 5]),
        "placement": ["p"], "device": ["d"], "policy_version": ["v"], "ads": [["a", ""]],
        "p_click": [[0.1, 0.0]], "p_conversion": [[0.01, 0.0]],
        "as_of": [WEEK.start], "features": ["f"], "vector": [b"v"],
        "recalibration": ["d"],
    }  # fmt: skip
    written = pa.table(row).cast(served_features.SERVED)
    served_features.write(tmp_path, "simulator", WEEK, written)
    assert served_features.read(tmp_path, "simulator", WEEK) == written
