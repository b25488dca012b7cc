"""The embedded engine, Spark and an oracle in SQL give the same features, of real data as well."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from roiflow import columns as c
from roiflow.data import lake
from roiflow.data.sources.complete_journey import CompleteJourney
from roiflow.data.sources.kuairand import KuaiRand
from roiflow.data.sources.protocol import Source
from roiflow.data.split import boundaries
from roiflow.data.validate import RawWindow, validate
from roiflow.data.weeks import Week
from roiflow.features import plan as feature_plan
from roiflow.features.hashing import hash_ids
from roiflow.features.plan import Plan
from roiflow.features.rows import Window, micros
from roiflow.features.spec import (
    COUNTS,
    ITEM_ENTITIES,
    RATES,
    SPECS,
    USER_ENTITIES,
    VALUE,
    VALUES,
    WINDOWS,
)
from roiflow.features.vocabulary import Vocabulary
from roiflow.offline.build import Built, build
from roiflow.params import FeaturesParams
from roiflow.spark.engine import features, spark_session
from tests import needs
from tests.conftest import Record
from tests.feature_world import PARAMS, World, at, random_world
from tests.integration import duckdb_oracle
from tests.integration.duckdb_oracle import names, oracle
from tests.unit.data.worlds import bounds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HISTORY = ("ad", "category", "action", "event_time")


EVERY = {
    **dict.fromkeys(USER_ENTITIES, (*COUNTS, *RATES)),
    **dict.fromkeys(ITEM_ENTITIES, ("impressions", "clicks", "conversions", *RATES, VALUE)),
}
"""Whatever can be declared of an entity; behaviours are a user's alone."""


@contextmanager
def every_feature() -> Iterator[None]:
    """The list is whatever can be declared, in every window: engines are not of one list alone."""
    counted = [
        replace(
            SPECS[0],
            name=f"{entity}_{aggregate}_{days}d",
            entity=entity,
            aggregate=aggregate,
            unit="log(1 + count)" if aggregate in COUNTS else "",
            window_days=days,
        )
        for entity, aggregates in EVERY.items()
        for aggregate in aggregates
        for days in WINDOWS
    ]
    specs = (*counted, *VALUES)
    windows = " ".join(WINDOWS.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_plan, "SPECS", specs)
        patch.setattr(feature_plan, "NAMES", tuple(spec.name for spec in specs))
        patch.setattr(
            duckdb_oracle,
            "LIST",
            "\n".join(
                f"{entity}: {'; '.join(f'{name} {windows}' for name in aggregates)}"
                for entity, aggregates in EVERY.items()
            ),
        )
        yield


@pytest.mark.proof
def test_money_that_64_bits_cannot_sum(spark: "SparkSession", tmp_path: Path) -> None:
    world = World()
    for number in range(12):
        time = at(1 + number // 4, number % 4)
        world = world.show("u1", "a1", time, clicked=True)
        world = world.convert(f"i{number}", time, revenue=2**60)
    for day in (5, 9, 17):
        world = world.show("u1", "a1", at(day), clicked=True)
    engines = Engines("money", world.write(tmp_path / "validated"), PARAMS, spark)
    with every_feature():
        assert_equal(engines.on_spark, engines.embedded, engines.plan)
        largest = engines.plan.dense_names.index("ad_value_56d")
    assert engines.embedded.dense[:, largest].max() > np.log(2**61 / 32 / 1e6)


def sampled(source: Source, weeks: Sequence[Week], users: int, folder: Path) -> Path:
    """The validated weeks of some users drawn at random."""
    raw, clean = folder / "raw", folder / "validated"
    chosen: pa.Array | None = None
    for week in weeks:
        tables = source.pull(week, week.end)
        if chosen is None:
            ids = pc.unique(tables["impressions"][c.USER]).sort()
            chosen = ids.take(np.random.default_rng(1).choice(len(ids), users, replace=False))
        for name in ("impressions", "behaviours", "users"):
            rows = tables[name]
            tables[name] = rows.filter(pc.is_in(rows[c.USER], value_set=chosen))
        shown, converted = tables["impressions"][c.IMPRESSION], tables["conversions"]
        of_them = pc.is_in(converted[c.IMPRESSION], value_set=shown.combine_chunks())
        tables["conversions"] = converted.filter(of_them)
        for name, rows in tables.items():
            lake.write(raw, name, week, rows)
    for checked in validate(RawWindow(raw, "files"), weeks, weeks[-1].end, bounds(0.1)):
        lake.write(clean, checked.table, checked.week, checked.clean)
    return clean


@dataclass(frozen=True)
class Case:
    """Validated weeks, and how features are built of them."""

    make: Callable[[Path, bool], Path]
    """From an empty folder and whether in full."""
    history_length: int
    min_count: int
    every: bool = False
    """Whether the list is `every_feature`."""


def journey(folder: Path, full: bool) -> Path:
    weeks = Week(2017, 18).window(5)
    return sampled(CompleteJourney.installed(8), weeks, 6 if full else 2, folder)


def kuairand(folder: Path, full: bool) -> Path:
    weeks = Week(2022, 18).window(2)
    return sampled(KuaiRand(needs.public_data("kuairand")), weeks, 1_000 if full else 300, folder)


def random(folder: Path, full: bool) -> Path:
    size = 600 if full else 100
    return random_world(5, requests=size, behaviours=size).write(folder / "validated")


CASES = {
    "complete_journey": Case(journey, history_length=50, min_count=1),
    "kuairand": Case(kuairand, history_length=50, min_count=3),  # many ads share index 0
    "random": Case(random, history_length=3, min_count=1),
    "every": Case(random, history_length=3, min_count=1, every=True),
}


@dataclass(frozen=True)
class Found:
    """What one engine gives, by impression_id."""

    ids: list[str]  # n, sorted
    dense: NDArray[np.float64]  # (n, F)
    lengths: NDArray[np.int64]  # (n,)
    history: NDArray[np.int64]  # (sum of lengths, len(HISTORY))


@dataclass(frozen=True)
class Engines:
    """One case, given to each engine."""

    name: str
    folder: Path
    params: FeaturesParams
    spark: "SparkSession"

    @cached_property
    def built(self) -> Built:
        out = self.folder.parent / "features"
        return build(Window(self.folder), Vocabulary({}), self.params, out, threads=2)

    @property
    def plan(self) -> Plan:
        return self.built.engine.plan

    @cached_property
    def weeks(self) -> list[Week]:
        return Window(self.folder).weeks

    @cached_property
    def embedded(self) -> Found:
        log, events = self.built.features.impressions, self.built.features.events
        order = np.argsort(self._ids)
        start, end = log.history_start[order], log.history_end[order]
        rows = np.concatenate([np.arange(*one) for one in zip(start, end, strict=True)])
        columns = (getattr(events, name)[rows.astype(np.int64)] for name in HISTORY)
        return Found(
            self._ids[order].tolist(),
            log.dense[order].astype(np.float64),
            end - start,
            np.column_stack([column.astype(np.int64) for column in columns]),
        )

    @property
    def _ids(self) -> NDArray[np.str_]:
        """The impression of each of the embedded engine's rows."""
        window = Window(self.folder)
        shown = window.all("impressions")
        user = self.built.vocabulary.index("user", shown[c.USER])
        time, position = micros(shown[c.EVENT_TIME]), shown[c.POSITION].to_numpy()
        order = np.lexsort((position, hash_ids(shown[c.REQUEST]), time, user))
        assert_array_equal(time[order], self.built.features.impressions.event_time)
        return np.array(shown[c.IMPRESSION].to_pylist(), np.str_)[order]

    @cached_property
    def on_spark(self) -> Found:
        built = self.built
        frame = features(self.spark, self.folder, self.weeks, self.plan, built.vocabulary)
        assert frame.columns == [c.IMPRESSION, *self.plan.dense_names, "history"]
        assert {kind for name, kind in frame.dtypes if name in self.plan.dense_names} == {"float"}
        rows = frame.toArrow()
        self.spark.catalog.clearCache()
        return found(rows, self.plan)

    @cached_property
    def in_sql(self) -> Found:
        test = boundaries(self.weeks, self.params.validation_days, 0).test
        rows = oracle(self.folder, self.weeks, self.plan, self.built.vocabulary, test)
        return found(rows, self.plan)


def found(rows: pa.Table, plan: Plan) -> Found:
    rows = rows.sort_by(c.IMPRESSION)
    history = rows["history"].combine_chunks()
    columns = (pc.struct_field(history.flatten(), name).to_numpy() for name in HISTORY)
    return Found(
        rows[c.IMPRESSION].to_pylist(),
        np.column_stack([rows[name].to_numpy() for name in plan.dense_names]).astype(np.float64),
        history.value_lengths().to_numpy().astype(np.int64),
        np.column_stack([column.astype(np.int64) for column in columns]),
    )


def assert_equal(one: Found, other: Found, plan: Plan) -> None:
    assert one.ids == other.ids
    for column, spec in enumerate(plan.specs):
        assert_allclose(
            one.dense[:, column], other.dense[:, column], rtol=1e-6, atol=1e-6, err_msg=spec.name
        )
        if spec.unit == "log(1 + count)":
            left, right = (np.expm1(side.dense[:, column]).round() for side in (one, other))
            assert_array_equal(left, right, err_msg=spec.name)
    assert_array_equal(one.lengths, other.lengths)
    assert_array_equal(one.history, other.history)


@pytest.fixture(scope="module")
def spark() -> Iterator["SparkSession"]:
    with pytest.MonkeyPatch.context() as environment:
        # The compiler that starts fast: what it compiles here runs for seconds.
        arguments = "--driver-java-options -XX:TieredStopAtLevel=1 pyspark-shell"
        environment.setenv("PYSPARK_SUBMIT_ARGS", arguments)
        session = spark_session("local[2]")
    session.sparkContext.setLogLevel("ERROR")
    session.conf.set("spark.sql.shuffle.partitions", 2)
    yield session
    session.stop()


@pytest.fixture(scope="class", params=CASES)
def engines(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    full: bool,
    spark: "SparkSession",
) -> Iterator[Engines]:
    case = CASES[request.param]
    params = FeaturesParams(
        history_length=case.history_length,
        prior_strength=20.0,
        validation_days=2,
        run_up_days=0,
        min_count=case.min_count,
        traffic=[],
    )
    folder = case.make(tmp_path_factory.mktemp("weeks"), full)
    with every_feature() if case.every else nullcontext():
        yield Engines(request.param, folder, params, spark)


@pytest.mark.proof
class TestEnginesAgree:
    def test_the_list_is_the_oracles(self, engines: Engines) -> None:
        assert list(engines.plan.dense_names) == names()

    def test_the_oracle_gives_what_the_embedded_engine_gives(self, engines: Engines) -> None:
        assert_equal(engines.in_sql, engines.embedded, engines.plan)

    def test_spark_gives_what_the_embedded_engine_gives(
        self, engines: Engines, record: Record
    ) -> None:
        assert_equal(engines.on_spark, engines.embedded, engines.plan)
        rows, columns = engines.embedded.dense.shape
        record(
            "embedded engine, Spark and SQL oracle equal",
            f"{rows:,} impressions x {columns} features, {engines.embedded.history.shape[0]:,} "
            f"behaviours in histories, {engines.name}",
        )

    def test_features_and_histories_vary(self, engines: Engines) -> None:
        varied = np.ptp(engines.embedded.dense, axis=0) > 0
        assert varied.mean() > 0.5
        assert engines.embedded.lengths.max() == engines.plan.history_length
        assert engines.embedded.lengths.min() == 0
