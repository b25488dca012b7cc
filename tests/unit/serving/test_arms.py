"""A week of the simulated world that two arms serve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from roiflow.artefacts.trial import Look, Phase, Trial
from roiflow.data import served_features
from roiflow.data.sources.protocol import Tables
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.experiment import trials
from roiflow.experiment.assignment import in_canary, salt_of
from roiflow.jobs.simulate_week import OnTrial, Recalibrating, simulate
from roiflow.params import load_params
from roiflow.policy.candidate_sets import columns_of
from roiflow.policy.plackett_luce import conditional_propensities
from roiflow.serving.arms import Seen, Weighed
from roiflow.serving.package import Package
from roiflow.serving.recalibrate import NOTHING, kept, learn
from roiflow.serving.recommender import Models
from roiflow.simulator.served import shown
from roiflow.simulator.source import SimulatorSource
from tests.labels import planted_labels
from tests.unit.serving.packages import ROOT, TinyWorld, write_package

WEEK = Week.parse("2026-W03")
DAY = 24 * MICROS_PER_HOUR
PARAMS = load_params(ROOT / "params.yaml")
CANARY = PARAMS.canary.model_copy(update={"start_share": 0.2, "start_hours": 48, "share": 0.5})
RECALIBRATE = PARAMS.recalibrate.model_copy(update={"hours": 24, "min_clicks": 5})

LABELS = planted_labels((1.0, 0.8, 0.6), (0.0,))


@pytest.fixture(scope="session")
def challenger(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Another package of the same world: it draws from sharper odds."""
    return write_package(tmp_path_factory.mktemp("challenger") / "package", world, temperature=0.25)


@dataclass
class Witness:
    """Sees all until `ends` hours of the week are over, and gives the share that it was told."""

    says: Phase | None = None
    ends: int = 168
    seen: list[Seen] = field(default_factory=list)
    known: list[Tables] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    @property
    def looks(self) -> Sequence[Look]:
        return [Look(at, 1, 0.0, 1.0, -2.0, 2.0, 5.0) for at in self.asked if at % DAY == 0]

    def awaits(self, now: int) -> bool:
        return now < WEEK.start + self.ends * MICROS_PER_HOUR

    def see(self, seen: Seen) -> None:
        self.seen.append(seen)

    def observe(self, tables: Tables) -> None:
        self.known.append(tables)

    def look(self, now: int) -> Phase | None:
        self.asked.append(now)
        return self.says if self.says and self.says.since == now else None


@dataclass(frozen=True)
class Served:
    rows: dict[str, Any]
    """Of the first positions, by column."""
    lake: Path
    trial: Trial

    @property
    def canary(self) -> Any:
        return self.rows["arm"] == "canary"


Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def serve(
    world: TinyWorld,
    package: Package,
    challenger: Package,
    tmp_path_factory: pytest.TempPathFactory,
) -> Serve:
    tmp_path = tmp_path_factory.mktemp("lake")

    def play(
        watch: Witness | None = None, stable: Package | None = package, learning: Any = None
    ) -> Served:
        source = SimulatorSource(world.params, tmp_path)
        made = None if watch is None else lambda *_: watch
        simulate(
            stable.folder if stable else None,
            world.features / "online",
            source,
            WEEK,
            learning,
            on_trial=OnTrial(challenger.folder, CANARY, made),
        )
        rows = shown(tmp_path / "simulator", WEEK)
        assert rows is not None
        first = rows.filter(pa.compute.equal(rows["position"], 1)).sort_by("request_id")
        columns = {name: np.array(first[name].to_pylist()) for name in first.column_names}
        columns["event_time"] = first["event_time"].cast("int64").to_numpy()
        trial = trials.read(tmp_path, "simulator", WEEK)
        assert trial is not None
        return Served(columns, tmp_path, trial)

    return play


@pytest.fixture(scope="module")
def plain(serve: Serve) -> Served:
    """Nobody watches."""
    return serve()


def test_a_user_keeps_to_the_arm_that_the_edge_gives_and_only_ever_joins_the_canary(
    plain: Served, package: Package, challenger: Package
) -> None:
    found = plain
    later = WEEK.start + 48 * MICROS_PER_HOUR
    assert found.trial == Trial(
        str(WEEK),
        challenger.digest,
        package.digest,
        salt_of(str(WEEK)),
        (Phase(WEEK.start, 0.2, "start"), Phase(later, 0.5, "ramp")),
        (),
    )
    rows, time = found.rows, found.rows["event_time"]
    share = np.where(time < later, 0.2, 0.5)
    expected = in_canary(rows["user_id"].tolist(), salt_of(str(WEEK)), share)
    assert found.canary.tolist() == expected.tolist()
    versions = np.where(found.canary, challenger.digest[:12], package.digest[:12])
    assert rows["policy_version"].tolist() == versions.tolist()
    assert set(rows["arm"].tolist()) == {"stable", "canary"}
    joined: set[str] = set()
    for row in np.argsort(time).tolist():
        assert found.canary[row] or rows["user_id"][row] not in joined
        joined |= {rows["user_id"][row]} if found.canary[row] else set()
    for part, phase in ((0.2, time < later), (0.5, time >= later)):
        users = np.unique(rows["user_id"][phase])
        held = np.unique(rows["user_id"][phase & found.canary]).size
        assert abs(held - part * users.size) < 4 * np.sqrt(users.size * part * (1 - part))


def propensities(weighed: Weighed, seen: Seen) -> Any:
    return conditional_propensities(weighed.logits, columns_of(weighed.sets.ad, seen.ad))


def test_whoever_watches_sees_what_both_arms_thought_of_every_request(
    serve: Serve, plain: Served
) -> None:
    """And the logits of the arm that served give the propensities that were logged."""
    witness = Witness(ends=120)
    found = serve(witness)
    ends = WEEK.start + 120 * MICROS_PER_HOUR
    count = sum(one.requests.number.size for one in witness.seen)
    assert count == np.count_nonzero(found.rows["event_time"] < ends) > 100
    logged = dict(zip(found.rows["request_id"], found.rows["propensity"], strict=True))
    for one in witness.seen:
        assert one.stable is not None
        served = np.where(
            one.canary[:, None], propensities(one.challenger, one), propensities(one.stable, one)
        )
        np.testing.assert_allclose(served, one.propensity, rtol=1e-9)
        names = [f"{WEEK}-{number:010d}" for number in one.requests.number.tolist()]
        assert [logged[name] for name in names] == one.propensity[:, 0].tolist()
        assert set(one.share.tolist()) <= {0.2, 0.5}
    other = np.concatenate([propensities(one.challenger, one) for one in witness.seen])
    assert (other != np.concatenate([one.propensity for one in witness.seen])).any()
    assert found.trial.looks == tuple(witness.looks)
    # With and without being watched, the same slates are served.
    assert plain.rows["ad_id"].tolist() == found.rows["ad_id"].tolist()
    np.testing.assert_allclose(plain.rows["propensity"], found.rows["propensity"], rtol=1e-5)
    told = sum(one["impressions"].num_rows for one in witness.known)
    assert told > 100


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_look_may_stop_or_promote_from_an_hour_on(serve: Serve, share: float) -> None:
    at = WEEK.start + 30 * MICROS_PER_HOUR
    witness = Witness(Phase(at, share, "a look"))
    found = serve(witness)
    assert found.trial.phases == (Phase(WEEK.start, 0.2, "start"), Phase(at, share, "a look"))
    after = found.rows["event_time"] >= at
    assert set(found.rows["arm"][after].tolist()) == {"canary" if share else "stable"}
    assert 0 < np.count_nonzero(found.canary[~after]) < np.count_nonzero(~after)
    # Nothing is asked of the other arm any more.
    assert max(int(one.requests.event_time[-1]) for one in witness.seen) < at


def test_the_same_week_twice_is_the_same_and_a_broken_off_one_is_not_half_the_old(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = Recalibrating(LABELS, RECALIBRATE)
    first = serve(learning=learning)
    before = served_features.path_of(first.lake, "simulator", WEEK).read_bytes()
    again = serve(learning=learning)
    assert served_features.path_of(first.lake, "simulator", WEEK).read_bytes() == before
    assert {name: rows.tolist() for name, rows in first.rows.items()} == {
        name: rows.tolist() for name, rows in again.rows.items()
    }
    assert first.trial == again.trial

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # What would pass for the evidence of rows that are written anew is gone before they are.
    monkeypatch.setattr(SimulatorSource, "serve_week", killed)
    with pytest.raises(KeyboardInterrupt):
        serve()
    assert trials.read(first.lake, "simulator", WEEK) is None
    assert served_features.read(first.lake, "simulator", WEEK) is None


def test_each_arm_is_recalibrated_on_its_own_users(
    serve: Serve, package: Package, challenger: Package
) -> None:
    found = serve(learning=Recalibrating(LABELS, RECALIBRATE))
    slates = served_features.read(found.lake, "simulator", WEEK)
    rows = shown(found.lake / "simulator", WEEK)
    assert slates is not None
    assert rows is not None
    for one, canary in ((package, False), (challenger, True)):
        users = np.unique(found.rows["user_id"][found.canary == canary])
        each = kept(found.lake, "simulator", one.digest)
        assert each.each
        own = slates.filter(pa.compute.is_in(slates["user_id"], pa.array(users)))
        last = each.each[-1]
        assert last.learned.users <= users.size
        mine = own.filter(pa.compute.equal(own["policy_version"], one.digest[:12]))
        models = Models(Package.load(one.folder), each)
        known = NOTHING.joined([mine], [{"impressions": rows, "conversions": NOTHING.conversions}])
        fitted = learn(models, one.digest, known, LABELS, last.since, RECALIBRATE)
        assert fitted is not None
        assert fitted.click == last.click
        assert fitted.learned.impressions == last.learned.impressions


def test_without_a_champion_the_logging_policy_is_the_stable_arm(
    serve: Serve, challenger: Package
) -> None:
    witness = Witness()
    found = serve(witness, stable=None)
    assert found.trial.champion is None
    assert all(one.stable is None for one in witness.seen)
    versions = np.where(found.canary, challenger.digest[:12], "logging")
    assert found.rows["policy_version"].tolist() == versions.tolist()
    slates = served_features.read(found.lake, "simulator", WEEK)
    assert slates is not None
    assert slates.num_rows == np.count_nonzero(found.canary)
