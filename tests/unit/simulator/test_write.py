"""Bulk generation: the same bytes whatever the threads, the same rows as the source's."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from roiflow import columns as c
from roiflow.data.schemas import SCHEMAS
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.params import SimulatorParams
from roiflow.simulator.run import DELAYED
from roiflow.simulator.scenarios import SCENARIOS
from roiflow.simulator.source import SimulatorSource
from roiflow.simulator.synthetic import shards
from roiflow.simulator.write import write_weeks
from tests.unit.simulator.conftest import Make

FIRST = Week.parse("2026-W01")
WEEKS = [FIRST, FIRST.plus(1), FIRST.plus(2)]
NAMES = {"impressions": c.IMPRESSION, "conversions": c.IMPRESSION, "users": c.USER, "ads": c.AD}


@pytest.fixture(scope="module")
def params(make: Make) -> SimulatorParams:
    """Three parts of users, by many behaviours of few; everything else happens too."""
    return make(
        users=2600, requests_per_user_day=0.6, behaviours_per_user_day=55.0, ads=40,
        click_rate=0.2, conversion_rate=0.3, return_rate=0.2, pricing="second",
        newcomers=0.002, churn=0.02, new_ads_per_week=2, ad_weeks=20.0, model="cascade",
    )  # fmt: skip


@pytest.fixture(scope="module")
def written(params: SimulatorParams, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("one")
    return folder, write_weeks(params, folder, WEEKS, 1)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))
    }


def read(folder: Path, table: str, week: Week) -> pa.Table:
    """All parts."""
    return pq.read_table(folder / table / f"week={week}", partitioning=None)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_bytes_do_not_depend_on_the_threads(
    params: SimulatorParams, written: tuple[Path, int], tmp_path: Path, threads: int
) -> None:
    folder, events = written
    assert write_weeks(params, tmp_path, WEEKS, threads) == events
    one, other = files(folder), files(tmp_path)
    assert list(one) == list(other)
    assert one == other


def test_a_part_of_the_users_is_a_file(params: SimulatorParams, written: tuple[Path, int]) -> None:
    assert len(shards(params)) == 3
    expected = {
        f"{name}/week={week}/part-{part}.parquet"
        for name in SCHEMAS
        for week in WEEKS
        for part in range(3)
        if name != "ads" or part == 0
    }
    assert set(files(written[0])) == expected


def test_the_parts_together_are_the_sources_weeks(
    params: SimulatorParams, written: tuple[Path, int], tmp_path: Path
) -> None:
    """Row by row, where no budget ties one user's slates to another's."""
    source = SimulatorSource(params, tmp_path)
    for week in WEEKS:
        pulled = source.pull(week, week.end)
        for name in SCHEMAS:
            found = read(written[0], name, week)
            assert found.num_rows == pulled[name].num_rows, (name, week)
            order = [(column, "ascending") for column in pulled[name].column_names]
            assert found.sort_by(order).equals(pulled[name].sort_by(order)), (name, week)


def test_each_file_is_in_the_order_of_its_known_times(written: tuple[Path, int]) -> None:
    for name in DELAYED:
        for week in WEEKS:
            for path in sorted((written[0] / name / f"week={week}").iterdir()):
                known = pq.read_table(path, partitioning=None)[c.KNOWN_TIME].cast(pa.int64())
                times = known.to_numpy()
                assert (times[1:] >= times[:-1]).all()
                assert week.start <= times[0]
                assert times[-1] < week.end


def test_ids_are_unique_over_parts_and_weeks(written: tuple[Path, int]) -> None:
    folder, _ = written
    shown = pa.concat_tables([read(folder, "impressions", week) for week in WEEKS])
    assert pc.count_distinct(shown[c.IMPRESSION]).as_py() == shown.num_rows
    assert pc.count_distinct(shown[c.REQUEST]).as_py() == shown.num_rows // 3
    for week in WEEKS:
        for name in ("users", "ads"):
            rows = read(folder, name, week)
            assert pc.count_distinct(rows[NAMES[name]]).as_py() == rows.num_rows


def test_events_are_counted_as_they_happen(written: tuple[Path, int]) -> None:
    """What becomes known only after the last week is counted and not written."""
    folder, events = written
    rows = [read(folder, name, week) for name in DELAYED for week in WEEKS]
    returned = sum(
        pc.sum(pc.less(read(folder, "conversions", week)[c.REVENUE], 0)).as_py() for week in WEEKS
    )
    assert sum(table.num_rows for table in rows) - returned < events
    assert sum(table.num_rows for table in rows) > 0.98 * events


def test_a_returned_purchase_takes_its_revenue_back(written: tuple[Path, int]) -> None:
    sold = pa.concat_tables([read(written[0], "conversions", week) for week in WEEKS])
    by_impression = sold.group_by(c.IMPRESSION).aggregate(
        [(c.REVENUE, "sum"), (c.REVENUE, "count"), (c.EVENT_TIME, "min"), (c.EVENT_TIME, "max")]
    )
    twice = by_impression.filter(pc.equal(by_impression[f"{c.REVENUE}_count"], 2))
    assert twice.num_rows > 100
    assert pc.max(by_impression[f"{c.REVENUE}_count"]).as_py() == 2
    assert pc.sum(pc.abs(twice[f"{c.REVENUE}_sum"])).as_py() == 0
    first, last = (
        twice[f"{c.EVENT_TIME}_{end}"].cast(pa.int64()).to_numpy() for end in ("min", "max")
    )
    assert ((last - first) <= 5 * MICROS_PER_DAY + 1).all()


@pytest.mark.parametrize("scenario", ["logging_bug", "duplicated_hour", "late_backfill"])
def test_a_fault_of_the_log_is_written_as_it_is_pulled(
    make: Make, tmp_path: Path, scenario: str
) -> None:
    params = make(scenario=scenario, shock_week=str(WEEKS[1]), click_rate=0.2)
    write_weeks(params, tmp_path, WEEKS, 2)
    source = SimulatorSource(params, tmp_path / "lake")
    assert scenario in SCENARIOS
    for week in WEEKS:
        pulled = source.pull(week, week.end)
        for name in DELAYED:
            order = [(column, "ascending") for column in pulled[name].column_names]
            found = read(tmp_path, name, week).sort_by(order)
            assert found.equals(pulled[name].sort_by(order)), (name, week)


def test_progress_ends_at_one(params: SimulatorParams, tmp_path: Path) -> None:
    done: list[float] = []
    write_weeks(params, tmp_path, WEEKS[:1], 2, lambda fraction, what: done.append(fraction))
    assert done == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_with_budgets_too_the_bytes_do_not_depend_on_the_threads(
    make: Make, tmp_path: Path
) -> None:
    """Each part has its share of a budget, so none waits for another."""
    params = make(
        users=2100, requests_per_user_day=2.0, behaviours_per_user_day=55.0,
        budgets=True, budget_share=1.0, click_rate=0.3,
    )  # fmt: skip
    for threads in (1, 3):
        write_weeks(params, tmp_path / str(threads), WEEKS[:1], threads)
    assert files(tmp_path / "1") == files(tmp_path / "3")
