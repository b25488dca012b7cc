"""A served week, replayed from the lake: nothing differs, and each fault is found and named."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.data import lake, served_features
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.features.folder import read
from roiflow.features.spec import NAMES
from roiflow.features.table import Flags, Floats, Ints
from roiflow.features.vocabulary import Vocabulary
from roiflow.jobs.check_parity import check
from roiflow.jobs.simulate_week import OnTrial, simulate
from roiflow.online import given as parity
from roiflow.online.snapshot import load_snapshot
from roiflow.online.store import MemoryStore
from roiflow.params import CheckParityParams, load_params
from roiflow.parity.faults import HYPOTHESES
from roiflow.serving.chooser import ServedChooser
from roiflow.serving.package import Package
from roiflow.serving.recommender import Considered, Recommender
from roiflow.serving.slates import RequestContexts, Slates
from roiflow.settings import Settings
from roiflow.simulator.population import WorldRequests
from roiflow.simulator.source import SimulatorSource
from tests.unit.serving.packages import ROOT, SLATE, TinyWorld, rebuilt, tiny_world, write_package

BEFORE, WEEK = Week.parse("2026-W02"), Week.parse("2026-W03")
STRICT = CheckParityParams(max_different_fraction=0.0)
INGEST = load_params(ROOT / "params.yaml").ingest.model_copy(update={"source": "simulator"})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """New users come every week; events become known at full hours."""
    return tiny_world(tmp_path_factory.mktemp("world"), newcomers=0.1)


@pytest.fixture(scope="module")
def package(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return write_package(tmp_path_factory.mktemp("package") / "package", world, feature_sample=0.3)


@dataclass(frozen=True)
class Home:
    """A home with the run of the week before, and a served week that is pulled but not checked."""

    settings: Settings
    world: TinyWorld
    package: Package
    before: Week = BEFORE

    @property
    def week(self) -> Week:
        return self.before.plus(1)

    @property
    def validated(self) -> Path:
        return self.settings.home / "validated"

    def serve(self, chooser: Callable[..., ServedChooser] = ServedChooser) -> None:
        """Serve the week as the job does, by a chooser that may have a fault."""
        self.place()
        recommender = Recommender(self.package)
        store = recommender.memory_store()
        load_snapshot(store, self.world.features / "online")
        source = SimulatorSource(self.world.params, self.settings.lake)
        one = chooser(recommender, store, source.world)
        source.serve_week(self.week, one)
        served_features.write(self.settings.lake, "simulator", self.week, one.served)
        self.pull(source)

    def place(self) -> None:
        """The run of the week before."""
        run = self.settings.runs / f"simulator-{self.before}" / "data"
        run.mkdir(parents=True)
        for name, place in (
            ("validated", self.world.validated),
            ("features", self.world.features),
            ("package", self.package.folder),
        ):
            (run / name).symlink_to(place)

    def pull(self, source: SimulatorSource) -> None:
        """The weeks as a run has them."""
        for week in (self.before, self.week):
            for table, rows in source.pull(week, self.week.end).items():
                lake.write(self.validated, table, week, rows)

    def check(self) -> dict[str, Any]:
        """The job's report, which is JSON."""
        ingest = INGEST.model_copy(update={"week": str(self.week)})
        report = check(self.validated, ingest, STRICT, self.settings)
        content: dict[str, Any] = json.loads(json.dumps(asdict(report), allow_nan=False))
        return content

    def rows(self, table: str, week: Week = WEEK) -> pa.Table:
        return lake.read(self.validated, table, week)


@pytest.fixture
def home(world: TinyWorld, package: Package, tmp_path: Path) -> Home:
    return Home(Settings(home=tmp_path), world, package)


def only(report: Mapping[str, Any]) -> dict[str, Any]:
    (one,) = report["packages"]
    found: dict[str, Any] = one
    return found


def test_without_a_fault_nothing_differs(home: Home) -> None:
    home.serve()
    report = home.check()
    one = only(report)
    assert (report["verdict"], report["reason"]) == ("pass", "")
    assert one["compared"] == one["slates"] + len(late_requests(home)) > 300
    assert 0.2 < one["sampled"] / one["slates"] < 0.4
    for name in ("different", "not_final", "degraded", "not_kept", "stale_share"):
        assert one[name] == 0, name
    assert (one["features"], one["fault"], one["corrupt"]) == ([], None, [])
    assert report["summary"].startswith(f"{one['compared']:,} slates compared, 0 differ")
    assert home.check() == report


def test_of_two_arms_in_one_week_nothing_differs(home: Home, tmp_path: Path) -> None:
    """Each is compared with its own package; of the logging policy there is nothing to compare."""
    other = write_package(tmp_path / "other", home.world, temperature=0.25, feature_sample=0.3)
    folder = home.settings.runs.parent / "packages" / other.digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(other.folder)
    home.place()
    source = SimulatorSource(home.world.params, home.settings.lake)
    canary = load_params(ROOT / "params.yaml").canary
    online, trial = home.world.features / "online", OnTrial(other.folder, canary)
    for stable in (home.package, None):
        simulate(stable.folder if stable else None, online, source, WEEK, on_trial=trial)
        home.pull(source)
        report = home.check()
        found = {one["policy_version"]: one for one in report["packages"]}
        packages = [one for one in (stable, other) if one]
        assert found.keys() == {one.digest[:12] for one in packages}
        assert (report["verdict"], report["different"]) == ("pass", 0)
        for one in found.values():
            assert one["compared"] > 50
            assert one["not_kept"] == 0


def late_requests(home: Home) -> set[str]:
    """Requests of the week that become known only after it."""
    served = served_features.read(home.settings.lake, "simulator", WEEK)
    assert served is not None
    return set(served["request_id"].to_pylist()) - set(
        home.rows("impressions")["request_id"].to_pylist()
    )


def test_an_older_package_with_a_newer_snapshot_differs_in_nothing(tmp_path: Path) -> None:
    """Ads and users that the package does not know are out of vocabulary for both sides."""
    world = tiny_world(tmp_path, newcomers=0.1, new_ads_per_week=3)
    package = write_package(tmp_path / "package", world, feature_sample=1.0)
    weeks = (str(BEFORE), str(WEEK))
    (tmp_path / "run").mkdir()
    features = rebuilt(tmp_path / "run", world, tmp_path / "home" / "lake", weeks)
    late = replace(world, features=features, validated=tmp_path / "run" / "validated")
    home = Home(Settings(home=tmp_path / "home"), late, package, WEEK)
    home.serve()
    one = only(home.check())
    vocabulary = Vocabulary.read(features / "vocabulary.parquet")
    assert vocabulary.size("ad") > Vocabulary.read(package.folder / "vocabulary.parquet").size("ad")
    assert one["compared"] > 300
    assert (one["different"], one["features"]) == (0, [])


class Watched(ServedChooser):
    """Keeps what it was told was eligible."""

    seen: dict[int, Flags]

    def choose(
        self, requests: WorldRequests, eligible: Flags, rng: np.random.Generator
    ) -> tuple[Ints, Floats]:
        self.seen = getattr(self, "seen", {})
        for hour in np.unique(requests.event_time // MICROS_PER_HOUR).tolist():
            self.seen[hour] = eligible
        return super().choose(requests, eligible, rng)


def test_two_weeks_of_budgets_and_of_ads_that_come_in_them_differ_in_nothing(
    tmp_path: Path,
) -> None:
    """Neither features nor eligibility: one package, served from the snapshot of either week."""
    world = tiny_world(
        tmp_path,
        ads=20,
        new_ads_per_week=6,
        ad_weeks=5.0,
        budgets=True,
        budget_share=1.5,
        newcomers=0.1,
    )
    package = write_package(tmp_path / "package", world, feature_sample=1.0)
    watched: list[Watched] = []

    def watch(*arguments: Any) -> Watched:
        watched.append(Watched(*arguments))
        return watched[-1]

    home = Home(Settings(home=tmp_path / "home"), world, package)
    lake_folder = home.settings.lake
    differing, compared, places = [], 0, (BEFORE, WEEK)
    for before in places:
        if before != BEFORE:
            weeks = (str(BEFORE), str(before))
            features = rebuilt(tmp_path / str(before), world, lake_folder, weeks)
            validated = tmp_path / str(before) / "validated"
            home = replace(
                home,
                world=replace(world, features=features, validated=validated),
                before=before,
            )
        home.serve(watch)
        one = only(home.check())
        differing.append((one["different"], one["features"], one["fault"]))
        compared += one["compared"]
    assert differing == [(0, [], None)] * 2
    assert compared > 700
    after = rebuilt(
        tmp_path / "after", world, lake_folder, tuple(str(one.plus(1)) for one in places)
    )
    vocabulary = Vocabulary.read(after / "vocabulary.parquet").ids("ad")
    come = poor = 0
    for catalogue, chooser in zip(read(after).catalogues, watched, strict=True):
        week, ad_world = Week.parse(catalogue.week), world.source.world
        row = ad_world.ad_rows(week, np.array(vocabulary.take(catalogue.ad - 1).to_pylist()))
        hours = np.array(sorted(chooser.seen))
        theirs = np.array([chooser.seen[hour] for hour in hours.tolist()])
        ours = catalogue.eligible(hours * MICROS_PER_HOUR + 1)
        np.testing.assert_array_equal(ours, theirs[:, row])
        assert ours.sum() == theirs.sum()
        come += int(np.count_nonzero(catalogue.start > week.start))
        poor += int(np.count_nonzero(~catalogue.solvent))
    assert come >= 10
    assert poor > 100


class Shifted(ServedChooser):
    """Its requests' clock is five hours ahead; the log has the right time."""

    hours = 5

    def __init__(self, recommender: Recommender, *rest: Any) -> None:
        super().__init__(Ahead(recommender, self.hours), *rest)  # type: ignore[arg-type]


class Ahead:
    def __init__(self, recommender: Recommender, hours: int) -> None:
        self._recommender, self._hours = recommender, hours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recommender, name)

    def consider(self, batch: RequestContexts, *rest: Any) -> Considered:
        time = batch.event_time + self._hours * MICROS_PER_HOUR
        found = self._recommender.consider(replace(batch, event_time=time), *rest)
        return replace(found, batch=batch)


class Behind(Shifted):
    hours = -1


@pytest.mark.parametrize(("chooser", "hours"), [(Shifted, "+5"), (Behind, "-1")])
def test_a_shifted_clock_is_named(home: Home, chooser: type[Shifted], hours: str) -> None:
    home.serve(chooser)
    report = home.check()
    fault = only(report)["fault"]
    assert report["verdict"] == "fail"
    assert fault["name"] == "time-zone shift"
    assert fault["size"] == f"the request's time {hours} h"


class Calendar(ServedChooser):
    """Hour and weekday of its requests are those of a place seven hours behind."""

    def __init__(self, recommender: Recommender, *rest: Any) -> None:
        super().__init__(OtherCalendar(recommender), *rest)  # type: ignore[arg-type]


class OtherCalendar:
    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recommender, name)

    def draw(self, found: Considered, rows: Any) -> Slates:
        slates = self._recommender.draw(found, rows)
        shape = parity.Shape(3, self._recommender.history, SLATE, NAMES)
        given = parity.unpack([row.tobytes() for row in slates.vectors], shape)
        around = given.context.copy()
        hours = found.batch.event_time[rows] // MICROS_PER_HOUR - 7
        weekday = (hours // 24 + 3) % 7
        around[:, 2], around[:, 3] = hours % 24, weekday
        vectors = parity.pack(replace(given, context=around))
        return replace(slates, vectors=vectors)


def test_a_calendar_of_another_zone_is_named(home: Home) -> None:
    home.serve(Calendar)
    one = only(home.check())
    assert one["fault"]["name"] == "time-zone shift"
    assert one["fault"]["size"] == "hour and weekday -7 h"
    names = {feature["feature"] for feature in one["features"]}
    assert {"hour"} <= names <= {"hour", "weekday"}


LOST = WEEK.start + (2 * 24 + 13) * MICROS_PER_HOUR


class Deaf(ServedChooser):
    """Its store never hears of the events of one hour."""

    def observe(self, tables: Tables) -> None:
        heard = {
            name: rows.filter(pc.not_equal(rows["known_time"].cast(pa.int64()), LOST))
            for name, rows in tables.items()
        }
        super().observe(heard)


def test_a_dropped_hour_is_named(home: Home) -> None:
    home.serve(Deaf)
    report = home.check()
    one = only(report)
    assert report["verdict"] == "fail"
    assert one["fault"]["name"] == "dropped hour"
    assert one["fault"]["size"].startswith(
        f"{np.datetime64(LOST, 'us').astype('datetime64[h]')}:00 UTC"
    )
    assert one["features"][0]["feature"] in report["reason"]
    served = served_features.read(home.settings.lake, "simulator", WEEK)
    assert served is not None
    times = dict(
        zip(
            served["request_id"].to_pylist(),
            served["event_time"].cast(pa.int64()).to_pylist(),
            strict=True,
        )
    )
    named = {
        example["request_id"] for feature in one["features"] for example in feature["examples"]
    }
    assert named
    assert all(times[name] > LOST for name in named)


def test_back_filled_rows_of_a_week_that_was_pulled_before_are_named(home: Home) -> None:
    home.serve()
    rows = home.rows("behaviours", BEFORE)
    later = rows.slice(0, rows.num_rows // 4)
    at = pc.add(later["known_time"], pa.scalar(1_000_000, pa.duration("us")))
    place = later.schema.get_field_index("known_time")
    moved = later.set_column(place, "known_time", at).cast(later.schema)
    lake.write(home.validated, "behaviours", BEFORE, pa.concat_tables([rows, moved]))
    report = home.check()
    fault = only(report)["fault"]
    assert report["verdict"] == "fail"
    assert fault["name"] == "back-fill"
    assert fault["size"] == f"{moved.num_rows} behaviours that an earlier pull did not hold"


def test_behaviours_that_come_later_into_the_served_week_are_named(
    world: TinyWorld, tmp_path: Path
) -> None:
    whole = write_package(tmp_path / "package", world, feature_sample=1.0)
    home = Home(Settings(home=tmp_path / "home"), world, whole)
    home.serve()
    rows, served = (
        home.rows("behaviours"),
        served_features.read(home.settings.lake, "simulator", WEEK),
    )
    assert served is not None
    known = rows["known_time"].cast(pa.int64()).to_numpy()
    users = np.array(rows["user_id"].to_pylist())
    last: dict[int, None] = {}  # behaviours just before a slate of their user
    for slate in served.select(["user_id", "as_of"]).to_pylist():
        mine = np.flatnonzero((users == slate["user_id"]) & (known <= slate["as_of"]))
        last |= dict.fromkeys(mine[-1:].tolist())
    first = rows.take(list(last)[:12])
    ago = pc.subtract(first["event_time"], pa.scalar(1, pa.duration("us")))
    place = first.schema.get_field_index("event_time")
    moved = first.set_column(place, "event_time", ago).cast(first.schema)
    lake.write(home.validated, "behaviours", WEEK, pa.concat_tables([rows, moved]))
    fault = only(home.check())["fault"]
    assert fault["name"] == "back-fill", fault
    assert "12 behaviours of" in fault["size"]


class Elsewhere(ServedChooser):
    """Its store speaks of ads by indices that are one too large."""

    def __init__(self, recommender: Recommender, store: MemoryStore, *rest: Any) -> None:
        super().__init__(recommender, Off(store), *rest)


class Off:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, *arguments: Any) -> Any:
        users = self._store.read(*arguments)
        size = self._store.plan.sizes["ad"]

        def off(ad: Any) -> Any:
            return np.where(ad > 0, ad % (size - 1) + 1, ad).astype(np.int32)

        return replace(users, history_ad=off(users.history_ad), bucket_ad=off(users.bucket_ad))


def test_a_shifted_vocabulary_is_named(home: Home) -> None:
    home.serve(Elsewhere)
    fault = only(home.check())["fault"]
    assert fault["name"] == "vocabulary shift"
    assert "of kind ad" in fault["size"]


class OtherPriors(ServedChooser):
    """Rates are smoothed towards other means, more strongly."""

    def __init__(self, recommender: Recommender, store: MemoryStore, *rest: Any) -> None:
        super().__init__(recommender, store, *rest)
        own = store.plan
        other = replace(own, ctr=1.5 * own.ctr, cvr=0.5 * own.cvr, prior_strength=35.0)
        store._shelf = replace(store.shelf, plan=other)


def test_other_priors_are_named(home: Home) -> None:
    home.serve(OtherPriors)
    report = home.check()
    fault = only(report)["fault"]
    assert fault["name"] == "statistics", fault
    assert fault["size"].startswith("prior strength 35")


class Scaled(ServedChooser):
    """Vectors are normalised with the mean and deviation of their own batch."""

    def __init__(self, recommender: Recommender, *rest: Any) -> None:
        super().__init__(Spoilt(recommender, self.spoil), *rest)  # type: ignore[arg-type]

    def spoil(self, dense: Any) -> Any:
        flat = dense.reshape(-1, dense.shape[-1])
        std = flat.std(axis=0)
        return ((dense - flat.mean(axis=0)) / np.where(std > 0, std, 1)).astype(np.float32)


class Spoilt:
    def __init__(self, recommender: Recommender, spoil: Callable[[Any], Any]) -> None:
        self._recommender, self._spoil = recommender, spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recommender, name)

    def draw(self, *arguments: Any) -> Slates:
        slates = self._recommender.draw(*arguments)
        plan = self._recommender.models.plan
        rows, width = slates.row.shape[0], slates.row.shape[1] * len(plan.specs) * 4
        dense = np.ascontiguousarray(slates.vectors[:, -width:]).view(np.float32)
        spoilt = self._spoil(dense.reshape(rows, -1, len(plan.specs)))
        vectors = slates.vectors.copy()
        vectors[:, -width:] = np.ascontiguousarray(spoilt).reshape(rows, -1).view(np.uint8)
        return replace(slates, vectors=vectors)


def test_statistics_of_the_batch_are_named(home: Home) -> None:
    home.serve(Scaled)
    fault = only(home.check())["fault"]
    assert fault["name"] == "statistics", fault
    assert "scaled by other statistics of each hour's batch" in fault["size"]


class Noisy(Scaled):
    def spoil(self, dense: Any) -> Any:
        noise = np.random.default_rng(dense.shape[0]).normal(scale=0.1, size=dense.shape)
        return (dense + noise).astype(np.float32)


def test_noise_is_not_explained(home: Home) -> None:
    home.serve(Noisy)
    report = home.check()
    fault = only(report)["fault"]
    assert report["verdict"] == "fail"
    assert fault["name"] == "unexplained"
    assert fault["explains"] == 0
    assert set(fault["tried"]) == set(HYPOTHESES)
    assert max(fault["tried"].values()) < 0.5


def test_a_week_that_none_of_ours_served_is_not_compared(home: Home) -> None:
    for week in (BEFORE, WEEK):
        for table, rows in home.world.source.pull(week, WEEK.end).items():
            lake.write(home.validated, table, week, rows)
    report = home.check()
    assert (report["verdict"], report["packages"]) == ("not served", [])


def test_slates_that_were_not_kept_fail(home: Home) -> None:
    home.serve()
    served = served_features.read(home.settings.lake, "simulator", WEEK)
    assert served is not None
    served_features.write(home.settings.lake, "simulator", WEEK, served.slice(5))
    report = home.check()
    assert report["verdict"] == "fail"
    assert "5 of" in report["reason"]
    assert "were not kept" in report["reason"]
    served_features.path_of(home.settings.lake, "simulator", WEEK).unlink()
    assert home.check()["verdict"] == "fail"


def test_without_the_run_before_nothing_can_be_compared(home: Home) -> None:
    home.serve()
    (home.settings.runs / f"simulator-{BEFORE}" / "data" / "features").unlink()
    report = home.check()
    assert report["verdict"] == "fail"
    assert "cannot be compared" in report["reason"]
