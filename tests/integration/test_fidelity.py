"""The world against real logs, and calibration to a folder of weeks with known parameters."""

import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from roiflow.calibration.calibrate import calibrate, value_of
from roiflow.calibration.fidelity import compare, simulated_log
from roiflow.calibration.public_logs import LOGS, read_log
from roiflow.cli import main as cli
from roiflow.data import lake
from roiflow.data.weeks import Week
from roiflow.params import load_params
from roiflow.simulator.source import SimulatorSource
from tests import needs
from tests.conftest import Record
from tests.worlds import SHIPPED, STEADY, world_params

ROOT = Path(__file__).parents[2]
HELD = {
    "kuairand": {"activity", "gap", "popularity", "click", "conversion"},
    "kuairand_dense": {"activity", "gap", "popularity", "click", "conversion"},
    "trivago": {"activity", "gap", "popularity", "position", "price"},
    "online_ads": {"click", "conversion", "revenue"},
}
PLANTED = {
    "synthetic.requests_per_user_day": 1.5,
    "synthetic.behaviours_per_user_day": 3.0,
    "synthetic.activity_shape": 0.8,
    "synthetic.session_events": 3.0,
    "synthetic.session_minutes": 2.0,
    "synthetic.popularity_exponent": 1.0,
    "synthetic.price_median": 80.0,
    "examination.exponent": 1.2,
    "click_rate": 0.15,
    "conversion_rate": 0.3,
    "revenue_sigma": 0.6,
}


@pytest.mark.parametrize("name", LOGS)
def test_each_real_log_is_read_as_it_was_published(name: str) -> None:
    log = read_log(name, needs.public_data())
    assert set(compare(log, log).distance) == HELD[name]
    assert compare(log, log).overall == 0
    counts = {
        "kuairand": log.by_position.tolist() == [[228_188], [100_848]],
        "kuairand_dense": log.by_position.tolist() == [[41_819], [27_477]],
        "trivago": log.by_position[1, :3].tolist() == [4209, 1434, 1034],
        "online_ads": log.by_position.tolist() == [[239_017_725], [2_492_837]],
    }
    assert counts[name]


@pytest.mark.proof
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("kuairand", 0.5, 0.08),
        ("kuairand_dense", 0.4, 0.08),
        ("trivago", 0.4, 0.15),
        ("online_ads", 0.5, 0.4),
    ],
)
def test_the_world_comes_near_each_real_log(
    name: str, before: float, after: float, full: bool, record: Record
) -> None:
    if name in {"kuairand_dense", "online_ads"}:
        needs.full_size(full, "one of the longer logs")
    users = 5000 if full else 2000
    done = calibrate(SHIPPED, read_log(name, needs.public_data()), users)
    record(f"Distance from {name}, as shipped", f"{done.before.overall:.3f}")
    record(f"Distance from {name}, calibrated", f"{done.after.overall:.3f}")
    assert done.before.overall > before
    assert done.after.overall < after
    for marginal, distance in done.after.distance.items():
        assert distance < done.before.distance[marginal] + 0.02


def test_known_parameters_are_found_again(tmp_path: Path, record: Record) -> None:
    """Two weeks of a planted world in the lake's layout, and a start that knows nothing of it.

    The worlds that are tried have another seed: other ads of other quality, hence the tolerance.
    """
    own = {key.rpartition(".")[2]: value for key, value in PLANTED.items()}
    same = STEADY | {"world": "synthetic", "ads": 100, "scenario": "stationary"}
    planted = world_params(**(same | own | {"seed": 11, "users": 4000}))
    source = SimulatorSource(planted, tmp_path / "none")
    for week in (source.world.first_week, source.world.first_week.plus(1)):
        for table, rows in source.pull(week, week.end).items():
            lake.write(tmp_path / "lake", table, week, rows)
    real = read_log(str(tmp_path / "lake"), None)
    done = calibrate(world_params(**same), real, users=2000)
    assert set(done.values) == {*PLANTED, "synthetic.price_sigma"}
    for key, value in PLANTED.items():
        record(f"Calibrated {key}, planted {value:g}", f"{done.values[key]:g}")
        assert done.values[key] == pytest.approx(value, rel=0.2), key
    assert done.before.overall > 0.2
    assert done.after.overall < 0.05


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a small world, the current folder, and two of its weeks in `weeks`."""
    text = (ROOT / "params.yaml").read_text()
    content = yaml.safe_load(text)["ingest"]["simulator"]
    text = text.replace(f"users: {content['synthetic']['users']}", "users: 60")
    text = text.replace(f"world: {content['world']}", "world: synthetic", 1)
    text = text.replace(f"shock_week: {content['shock_week']}", "shock_week: 2026-W06", 1)
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "dvc.yaml").touch()
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROIFLOW_DATA_FOLDER", raising=False)
    return tmp_path


def call(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_calibrate_and_fidelity_from_the_command_line(world: Path) -> None:
    first = load_params(world / "params.yaml").ingest.simulator.first_week
    call("simulate", first, "weeks", "--weeks", "2")
    said = call("simulate", "calibrate", "--log", "weeks", "--out", "new.yaml", "--users", "40")
    assert "before" in said
    assert "after" in said
    old, new = ((world / name).read_text().splitlines() for name in ("params.yaml", "new.yaml"))
    assert [line.partition("#")[2] for line in new] == [line.partition("#")[2] for line in old]
    fitted = load_params(world / "new.yaml").ingest.simulator
    assert value_of(fitted, "synthetic.users") == 60
    assert f"ingest.simulator.click_rate: {fitted.click_rate:g}" in said
    said = call("simulate", "fidelity", "--log", "weeks", "--after", "new.yaml", "--out", "r.html")
    assert "overall" in said
    assert "weeks" in (world / "r.html").read_text()
    assert Week.parse(first) in lake.held(world / "weeks", "impressions")


def test_a_simulated_week_has_no_distance_from_itself(world: Path) -> None:
    params = load_params(world / "params.yaml").ingest.simulator
    call("simulate", params.first_week, "weeks")
    ours = simulated_log(params, days=7, positions=params.slate_size)
    distances = compare(ours, read_log("weeks", None)).distance
    for name in ("activity", "gap", "popularity", "price"):
        assert distances[name] < 0.05  # the last hour is known a week later
