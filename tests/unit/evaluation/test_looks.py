"""Looks at a trial that is being served: what they know, and what they do about it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from roiflow.artefacts.evaluation import Finding
from roiflow.artefacts.trial import Look, Trial
from roiflow.data.weeks import MICROS_PER_HOUR, Week
from roiflow.evaluation.looks import Looking, Looks, verdict
from roiflow.experiment import trials
from roiflow.experiment.assignment import in_canary
from roiflow.jobs.simulate_week import OnTrial, simulate
from roiflow.params import load_params
from roiflow.serving.package import Package
from roiflow.serving.recommender import Models
from roiflow.simulator.served import shown
from roiflow.simulator.source import SimulatorSource
from tests.labels import planted_labels
from tests.trials import estimate, interval
from tests.unit.serving.packages import ROOT, TinyWorld, tiny_world, write_package

WEEK = Week.parse("2026-W03")
PARAMS = load_params(ROOT / "params.yaml")
CANARY = PARAMS.canary.model_copy(update={"start_share": 0.4, "share": 0.5, "min_users": 5})
LIMITS = PARAMS.evaluate.model_copy(update={"min_effective_sample_size": 10.0})
LOOKING = Looking(WEEK, planted_labels((1.0, 0.8, 0.6), (0.0,)), CANARY, LIMITS, 1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    return tiny_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def packages(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Package, Package]:
    folder = tmp_path_factory.mktemp("packages")
    champion = write_package(folder / "champion", world)
    return champion, write_package(folder / "challenger", world, temperature=0.25)


Serve = Callable[..., tuple[Trial, Looks]]


@pytest.fixture
def serve(world: TinyWorld, tmp_path: Path) -> Serve:
    def play(stable: Package | None, canary: Package, looking: Looking = LOOKING) -> object:
        made: list[Looks] = []

        def watch(champion: Models | None, challenger: Models) -> Looks:
            made.append(looking.watch(champion, challenger))
            return made[0]

        simulate(
            stable.folder if stable else None,
            world.features / "online",
            SimulatorSource(world.params, tmp_path),
            WEEK,
            on_trial=OnTrial(canary.folder, looking.params, watch),
        )
        trial = trials.read(tmp_path, "simulator", WEEK)
        assert trial is not None
        return trial, made[0]

    return play  # type: ignore[return-value]


def test_looks_are_taken_at_their_hours_and_kept_with_the_trial(
    serve: Serve, packages: tuple[Package, Package]
) -> None:
    trial, _ = serve(*packages)
    hours = [(one.at - WEEK.start) / MICROS_PER_HOUR for one in trial.looks]
    # In the first hour from then on that has a request.
    assert [hour // 24 for hour in hours] == [1, 2, 3][: len(hours)]
    assert hours
    for one in trial.looks:
        assert one.low < one.delta < one.high
        # Always valid costs about 40 % more than the 1.96 errors of a single look.
        assert one.high - one.delta > 1.96 * one.error > 0
    sizes = [one.requests for one in trial.looks]
    assert sizes == sorted(sizes)


def test_a_package_beside_itself_differs_by_nothing(
    serve: Serve, packages: tuple[Package, Package]
) -> None:
    trial, _ = serve(packages[0], packages[0])
    assert [(one.delta, one.error, one.low, one.high) for one in trial.looks] == [(0, 0, 0, 0)] * 3
    assert len(trial.phases) == 2


def test_what_a_look_knows_is_what_was_known_by_then(
    serve: Serve, packages: tuple[Package, Package], tmp_path: Path
) -> None:
    """Every conversion is known within an hour here: sums are those of the log."""
    # A bound so wide that no look ends anything: the slates of 72 hours lie in the log.
    calm = replace(LOOKING, params=CANARY.model_copy(update={"alpha": 1e-12}))
    trial, looks = serve(None, packages[1], calm)
    rows = shown(tmp_path / "simulator", WEEK)
    assert rows is not None
    last = trial.looks[-1]
    early = rows.filter(pc.less(rows["known_time"].cast(pa.int64()), last.at))
    assert last.requests == pc.count_distinct(early["request_id"]).as_py()
    # By hand: cost a request of the stable arm, each phase weighed by one over its share.
    times = early["event_time"].cast(pa.int64()).to_numpy()
    share = trial.share_at(times)
    canary = in_canary(early["user_id"].to_pylist(), trial.salt, share)
    assert (canary == (early["arm"].to_numpy() == "canary")).all()
    weight = np.where(canary, 0.0, 1.0 / (1.0 - share))
    cost = 3 * np.average(early["cost_micros"].to_numpy(), weights=weight)
    found = looks._evidence(last.at)
    assert found is not None
    assert found.champion.cost == pytest.approx(cost, rel=0.15)  # less its control variates


def look(low: float, high: float) -> Look:
    return Look(5, 900, (low + high) / 2, 1.0, low, high, 100.0)


@pytest.mark.parametrize(
    ("low", "high", "share"),
    [(-9.0, -0.1, 0.0), (0.1, 9.0, 1.0), (-0.1, 9.0, None), (-9.0, 0.0, None)],
)
def test_only_what_is_shown_ends_a_trial(low: float, high: float, share: float | None) -> None:
    phase = verdict(look(low, high), estimate(), CANARY)
    assert (phase and phase.share) == share
    if phase:
        assert phase.since == 5
        assert "after 900 requests" in phase.why


def test_a_loss_inside_the_harm_bound_stops_nothing() -> None:
    bound = CANARY.model_copy(update={"harm": 0.02})
    assert verdict(look(-9.0, -1.0), estimate(), bound) is None
    assert verdict(look(-9.0, -2.1), estimate(), bound) is not None


def test_what_the_decision_would_not_pass_promotes_nothing_and_may_stop() -> None:
    faulty = estimate(findings=(Finding("replay", 3, 7, "3 slates"),))
    assert verdict(look(0.1, 9.0), faulty, CANARY) is None
    worse = estimate(roi_lift=interval(-0.04, 0.01))
    assert verdict(look(0.1, 9.0), worse, CANARY) is None
    stopped = verdict(look(-9.0, -0.1), faulty, CANARY)
    assert stopped is not None
    assert stopped.share == 0.0


def test_few_users_end_nothing() -> None:
    few = CANARY.model_copy(update={"min_users": 901})
    assert verdict(look(-9.0, -0.1), estimate(), few) is None
    assert verdict(look(0.1, 9.0), estimate(), few) is None


def test_too_few_users_are_no_look(serve: Serve, packages: tuple[Package, Package]) -> None:
    few = replace(LOOKING, params=CANARY.model_copy(update={"min_users": 1000}))
    trial, _ = serve(*packages, few)
    assert trial.looks == ()
