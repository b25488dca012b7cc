from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.data.sources.protocol import Source, Tables
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import SourceError, UnknownWeek
from roiflow.simulator.policies import Oracle, logging_policy
from roiflow.simulator.run import DELAYED, nothing, run_week
from roiflow.simulator.served import partition
from roiflow.simulator.source import SimulatorSource
from tests.unit.simulator.conftest import Make

FIRST = Week.parse("2026-W01")
SECOND, THIRD, FOURTH = FIRST.plus(1), FIRST.plus(2), FIRST.plus(3)
FOUR = (FIRST, SECOND, THIRD, FOURTH)


@pytest.fixture
def source(make: Make, tmp_path: Path) -> SimulatorSource:
    """Many conversions, some of them late, many returned."""
    often = {"click_rate": 0.3, "conversion_rate": 0.3, "return_rate": 0.3}
    return SimulatorSource(make(**often, delay_hours=[2.0, 60.0]), tmp_path)


def ids(tables: list[pa.Table], name: str = "impression_id") -> list[str]:
    return [key for table in tables for key in table[name].to_pylist()]


def test_it_is_a_source(source: SimulatorSource) -> None:
    assert isinstance(source.name, str)
    as_source: Source = source
    assert as_source.pull(FIRST, FIRST.end)["impressions"].num_rows


def test_weeks_before_the_first_do_not_exist(source: SimulatorSource) -> None:
    with pytest.raises(UnknownWeek, match=r"2025-W52.*from 2026-W01 on"):
        source.pull(FIRST.plus(-1), FIRST.end)
    with pytest.raises(UnknownWeek, match="2025-W52"):
        source.serve_week(FIRST.plus(-1), Oracle(source.world))


def test_as_of_is_respected(source: SimulatorSource) -> None:
    as_of = SECOND.start + 2 * MICROS_PER_DAY
    whole, part = source.pull(SECOND, SECOND.end), source.pull(SECOND, as_of)
    for name in DELAYED:
        known = part[name]["known_time"].cast(pa.int64()).to_numpy()
        assert known.max() < as_of
        assert 0 < part[name].num_rows < whole[name].num_rows
    assert part["ads"].equals(whole["ads"])


@pytest.mark.parametrize("served", [(), (SECOND,), (FIRST, SECOND), (FIRST, SECOND, THIRD)])
def test_no_row_is_lost_or_doubled_across_weeks(
    source: SimulatorSource, served: tuple[Week, ...]
) -> None:
    """Whoever serves: what came of each week arrives once, in it or in the two after it."""
    world = source.world
    expected: dict[str, list[str]] = {"impressions": [], "conversions": []}
    for week in (FIRST, SECOND):
        policy = Oracle(world) if week in served else logging_policy(world)
        own = run_week(world, week, policy, nothing())
        for name, keys in expected.items():
            keys.extend(ids([own.tables[name], own.pending[name]]))
    for week in served:
        source.serve_week(week, Oracle(world))
    pulled = [source.pull(week, week.end) for week in FOUR]
    for name, keys in expected.items():
        arrived = ids([tables[name] for tables in pulled])
        early = [key for key in arrived if key.startswith((str(FIRST), str(SECOND)))]
        assert sorted(early) == sorted(keys)
    sold = ids([tables["conversions"] for tables in pulled])
    assert max(Counter(sold).values()) == 2  # and its return
    visits = sum(world.behaviours(week).user.size for week in FOUR)
    waiting = source.carried(FOURTH.plus(1))["behaviours"].num_rows
    assert sum(tables["behaviours"].num_rows for tables in pulled) == visits - waiting


@pytest.mark.parametrize("served", [False, True])
def test_returns_arrive_up_to_two_weeks_later(source: SimulatorSource, served: bool) -> None:
    if served:
        source.serve_week(FIRST, Oracle(source.world))
        source.serve_week(SECOND, Oracle(source.world))
    late = source.pull(THIRD, THIRD.end)["conversions"]
    late = late.filter(pc.starts_with(late["impression_id"], str(FIRST)))
    assert 0 < late.num_rows == pc.sum(pc.less(late["revenue_micros"], 0)).as_py()
    later = source.pull(FOURTH, FOURTH.end)["conversions"]
    assert not pc.any(pc.starts_with(later["impression_id"], str(FIRST))).as_py()


def test_a_conversion_follows_its_impression(source: SimulatorSource) -> None:
    source.serve_week(SECOND, Oracle(source.world))
    pulled = [source.pull(week, week.end) for week in (FIRST, SECOND, THIRD)]
    sold: dict[str, int] = {}  # micros
    shown = dict(
        zip(
            ids([tables["impressions"] for tables in pulled]),
            ids([tables["impressions"] for tables in pulled], "event_time"),
            strict=True,
        )
    )
    late = 0
    for week, tables in zip((FIRST, SECOND, THIRD), pulled, strict=True):
        for row in tables["conversions"].to_pylist():
            assert shown[row["impression_id"]] < row["event_time"] < row["known_time"]
            returned = sold.setdefault(row["impression_id"], row["revenue_micros"])
            assert abs(row["revenue_micros"]) == returned  # a return comes after its purchase
            late += str(week) not in row["impression_id"]
    assert late > 0


def test_a_logged_week_equals_a_run_over_what_was_carried(source: SimulatorSource) -> None:
    run = run_week(source.world, SECOND, logging_policy(source.world), source.carried(SECOND))
    pulled = source.pull(SECOND, SECOND.end)
    for name, table in run.tables.items():
        assert pulled[name].equals(table), name


def test_a_served_week_is_read_back_and_names_its_policy(source: SimulatorSource) -> None:
    tables = source.serve_week(SECOND, Oracle(source.world))
    pulled = source.pull(SECOND, SECOND.end)
    for name, table in tables.items():
        assert pulled[name].equals(table), name
    versions = pulled["impressions"]["policy_version"].to_pylist()
    assert set(versions) == {"logging", "oracle"}
    assert versions == sorted(versions)


def test_pulling_alone_equals_pulling_in_order(source: SimulatorSource, make: Make) -> None:
    for week in (FIRST, SECOND):
        source.pull(week, week.end)
    in_order = source.pull(THIRD, THIRD.end)
    fresh = SimulatorSource(source.world.params, Path("/nonexistent"))
    alone = fresh.pull(THIRD, THIRD.end)
    assert all(alone[name].equals(in_order[name]) for name in in_order)


def test_a_half_written_week_is_not_served(
    source: SimulatorSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up while the impressions, which come last, are written."""
    logged = source.pull(SECOND, SECOND.end)
    source.serve_week(SECOND, Oracle(source.world))

    def full(table: pa.Table, path: Path) -> None:
        if "pending" not in path.parts and "impressions" in path.parts:
            raise OSError("No space left on device")

    monkeypatch.setattr("roiflow.simulator.served._write", full)
    with pytest.raises(OSError, match="No space left"):
        source.serve_week(SECOND, Oracle(source.world))
    assert not source.served(SECOND)
    again: Tables = source.pull(SECOND, SECOND.end)
    assert all(again[name].equals(logged[name]) for name in logged)


def test_a_corrupt_lake_file_is_named(source: SimulatorSource, tmp_path: Path) -> None:
    source.serve_week(SECOND, Oracle(source.world))
    path = partition(tmp_path / "simulator", "conversions", SECOND)
    path.write_bytes(b"not parquet")
    with pytest.raises(SourceError, match=str(path)):
        source.pull(SECOND, SECOND.end)
    assert np.array_equal(path.read_bytes(), b"not parquet")
