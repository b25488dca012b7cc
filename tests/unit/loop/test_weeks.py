"""The closed loop without a pipeline: what its weeks run with, resume from and take from a week."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from roiflow.artefacts.run import Lineage
from roiflow.data.schemas import TIME
from roiflow.data.weeks import Week
from roiflow.errors import ParamsError, RunError
from roiflow.evaluation.canary import no_trial
from roiflow.loop.result import LoopResult, Outcome, WeekOutcome
from roiflow.loop.weeks import (
    Loop,
    Stopwatch,
    open_loop,
    outcome_of,
    resume,
    run_loop,
    weeks_of,
)
from roiflow.settings import Settings
from roiflow.simulator.served import shown
from roiflow.simulator.world import World
from tests.records import decision, leave, promoted

ROOT = Path(__file__).parents[3]
TRUTH = {"roi": 1.0, "value": 1.0}
OUTCOME = Outcome("fail", 2, False, "ab", None, "none", "x", "c0ffee")


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return open_loop(ROOT, Settings(home=tmp_path), 11)


def weeks(*names: str) -> tuple[WeekOutcome, ...]:
    return tuple(
        WeekOutcome(name, "logging", {}, None, no_trial("simulator", name), OUTCOME, {})
        for name in names
    )


def test_a_seed_has_its_own_home_and_its_runs_the_values_of_the_section_loop(loop: Loop) -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert loop.home.parts[-2:] == ("loop", "seed-11")
    assert loop.params.ingest.simulator.seed == 11
    assert loop.params.train_ranker.epochs == shipped["loop"]["train_ranker"]["epochs"]
    assert loop.params.evaluate.requests == shipped["loop"]["evaluate"]["requests"]
    assert loop.params.evaluate.seed == shipped["evaluate"]["seed"]
    assert loop.settings.registry_uri == f"sqlite:///{loop.home / 'mlflow.db'}"
    own = open_loop(ROOT, Settings(home=loop.home), None)
    assert own.seed == shipped["ingest"]["simulator"]["seed"]
    assert own.digest != loop.digest


def test_the_first_week_ends_the_first_whole_window(loop: Loop) -> None:
    simulator = loop.params.ingest.simulator
    weeks = weeks_of(loop.params, 3)
    assert weeks[0].window(simulator.weeks)[0] == World(simulator).first_week
    assert weeks == [weeks[0], weeks[0].plus(1), weeks[0].plus(2)]


def test_a_loop_longer_than_the_world_is_refused(loop: Loop) -> None:
    simulator = loop.params.ingest.simulator.model_copy(update={"world": "panel"})
    ingest = loop.params.ingest.model_copy(update={"simulator": simulator})
    with pytest.raises(RunError, match=r"99 weeks from 2017-W\d\d on: the world ends with 2017"):
        weeks_of(loop.params.model_copy(update={"ingest": ingest}), 99)


def test_a_repository_without_params_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml: No such file"):
        open_loop(tmp_path, Settings(home=tmp_path), 1)


def test_finished_weeks_are_not_run_again(loop: Loop) -> None:
    """There is no repository to run anything in."""
    assert resume(loop).weeks == ()
    result = LoopResult(11, loop.digest, weeks("2026-W04", "2026-W05"))
    result.write(loop.result)
    nowhere = replace(loop, repository=Path("/nowhere"))
    assert run_loop(nowhere, 2, lambda _done, _what: None) == result
    assert run_loop(nowhere, 1, lambda _done, _what: None).weeks == weeks("2026-W04")


def test_weeks_of_other_parameters_are_refused(loop: Loop) -> None:
    LoopResult(11, "0" * 16, weeks("2026-W04")).write(loop.result)
    with pytest.raises(RunError, match=f"made with parameters 0{{16}}, .* {loop.digest}: move"):
        resume(loop)


def test_the_stopwatch_adds_up_and_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.5, 4.0, 10.0])
    monkeypatch.setattr("roiflow.loop.weeks.time.monotonic", lambda: next(now))
    told: list[tuple[float, str]] = []
    watch = Stopwatch(lambda done, what: told.append((done, what)), 1, 4, "2026-W05")
    watch.start("serve")
    watch.start("prepare")
    watch.start("serve")
    watch.stop()
    assert watch.seconds == {"serve": 2.5 + 6.0, "prepare": 0.5}
    assert told[0] == (0.25, "2026-W05: serve")
    assert [what for _, what in told] == [f"2026-W05: {name}" for name in ("serve", "prepare")] + [
        "2026-W05: serve"
    ]
    assert all(0.25 <= done <= 0.5 for done, _ in told)


def test_a_week_s_outcome_is_its_decision_promotion_and_commit(tmp_path: Path) -> None:
    leave(
        tmp_path,
        decision(verdict="fail", promote=False, rule="none", reason="x"),
        promoted(version=2, promoted=False, champion="ab", rule="none", reason="x"),
        Lineage("simulator", "2026-W05", "c0ffee", "f" * 64),
    )
    assert outcome_of(tmp_path) == OUTCOME


def test_a_served_week_is_all_of_its_own_impressions(tmp_path: Path) -> None:
    """Its last hour becomes known in the next week, the last hour of the one before in it."""
    week = Week.parse("2026-W05")
    assert shown(tmp_path, week) is None

    def write(root: Path, times: list[int], names: list[str]) -> None:
        path = root / "impressions" / f"week={week}" / "part-0.parquet"
        path.parent.mkdir(parents=True)
        table = pa.table({"event_time": pa.array(times, TIME), "request_id": names})
        pq.write_table(table, path)

    write(tmp_path, [week.start - 1, week.start, week.start + 1], ["before", "a", "b"])
    write(tmp_path / "pending", [week.end - 1], ["c"])
    found = shown(tmp_path, week)
    assert found is not None
    assert found["request_id"].to_pylist() == ["a", "b", "c"]
